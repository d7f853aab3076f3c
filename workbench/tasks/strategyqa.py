"""StrategyQA (Geva et al. 2021): yes-or-no questions whose steps are implicit, with the facts that decide them.

`source` is a folder with strategyqa_train.jsonl and strategyqa_dev.jsonl, one of those files, or a hub id (default
ChilleD/StrategyQA). The official test items have no labels, so the published dev file serves as test; dev is held out
of train. A fact is a step. `facts` is text with a fact per line, or a list of texts.
"""

from ..files import quoted
from . import Example, Task
from .answers import same_word, yes_or_no
from .records import Native, Record, load, measured

NATIVE = Native(
    "ChilleD/StrategyQA",
    {"train": "strategyqa_train.jsonl", "test": "strategyqa_dev.jsonl"},
    ("qid", "question", "answer", "facts"),
)
INSTRUCTION = (
    "Answer the question with Yes or No. First write the facts that decide it, one per line. "
    "End with a line that reads '#### ' and Yes or No."
)


def task(source: str | None = None) -> Task:
    return Task(
        name="strategyqa",
        load=lambda split: load(NATIVE, split, source, _example),
        parse=yes_or_no,
        same=same_word,
        source=source,
        instruction=INSTRUCTION,
        answer_tokens=256,
    )


def _example(record: Record) -> Example:
    question, answer, facts = record.text("question"), record.fields["answer"], record.fields["facts"]
    if not isinstance(answer, bool):
        raise record.error(f"'answer' must be true or false, it is {quoted(answer)}")
    lines = facts.splitlines() if isinstance(facts, str) else facts
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise record.error(f"'facts' must be text with a fact per line, or a list of texts, it is {quoted(facts)}")
    steps = tuple(" ".join(line.split()) for line in lines if line.strip())
    return Example(record.text("qid"), question, steps, "Yes" if answer else "No", measured(question, steps))
