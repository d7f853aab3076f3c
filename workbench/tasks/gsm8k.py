"""GSM8K (Cobbe et al. 2021): school word problems with worked steps, read in their native JSONL.

`source` is a folder with train.jsonl and test.jsonl (socratic: train_socratic.jsonl, test_socratic.jsonl), one of
those files, or a hub id (default openai/gsm8k). Dev is held out of train; both formats hold out the same questions.

A line of the solution is a step. In the socratic format the line is `sub-question ** step`: the sub-question stays in
front of what answers it and only the mark ** goes; one that nothing answers (two lines of the test file) is no step.
So both formats have the same steps, the socratic ones longer. The calculator's marks (<<48/2=24>>) are no text of a
line, except where a line holds nothing else, as in GSM8K-Aug: there each mark's equation is a step.
"""

import re
from functools import partial

from ..files import quoted
from . import Example, Task
from .answers import number_answer
from .number import equal_numbers
from .records import Native, Record, load, measured

CALCULATOR = re.compile(r"<<([^<>\n]*)>>")
INSTRUCTION = (
    "Solve the problem step by step, one short step per line. End with a line that reads '#### ' and the number."
)
MAIN, SOCRATIC = (
    Native("openai/gsm8k", {part: f"{part}{end}.jsonl" for part in ("train", "test")}, ("question", "answer"), config=c)
    for c, end in (("main", ""), ("socratic", "_socratic"))
)


def main(source: str | None = None) -> Task:
    """Steps as they were written first."""
    return _task("gsm8k", MAIN, source)


def socratic(source: str | None = None) -> Task:
    """Each step led in by the sub-question that it answers."""
    return _task("gsm8k-socratic", SOCRATIC, source)


def _task(name: str, native: Native, source: str | None) -> Task:
    return Task(
        name=name,
        load=lambda split: load(native, split, source, partial(_example, native is SOCRATIC)),
        parse=number_answer,
        same=equal_numbers,
        source=source,
        instruction=INSTRUCTION,
        answer_tokens=512,
    )


def _example(asked: bool, record: Record) -> Example:
    question, answer = record.fields["question"], record.fields["answer"]
    if not isinstance(question, str) or not isinstance(answer, str):
        raise record.error("'question' and 'answer' must be text")
    worked, mark, final = answer.rpartition("####")
    if not mark or number_answer(f"#### {final}") is None:
        raise record.error(f"the answer must end in a line '#### number', it ends in {answer[-60:]!r}")
    gold = record.gold(final.strip(), number_answer, equal_numbers)
    lines = [step for line in worked.splitlines() if line.strip() for step in worked_line(line)]
    if asked:
        lines = [line for line in (_answered(record, line) for line in lines) if line]
    question, steps = question.strip(), tuple(lines)
    return Example(record.place, question, steps, gold, measured(question, steps))


def worked_line(line: str) -> list[str]:
    """A line without the calculator's marks; where they are all there is (GSM8K-Aug), each holds a step."""
    words = CALCULATOR.sub("", line).strip()
    if re.search(r"\w", words):
        return [words]
    return [step.strip() for step in CALCULATOR.findall(line) if step.strip()]


def _answered(record: Record, line: str) -> str:
    """A socratic line without its mark: "How many? ** 1 + 1 = 2" -> "How many? 1 + 1 = 2"; empty without an answer."""
    asked, mark, step = line.partition("**")
    if not mark:
        raise record.error(f"a line must read 'sub-question ** step', it reads {quoted(line, 60)}")
    return f"{asked.strip()} {step.strip()}".strip() if step.strip() else ""
