"""Invented words in plain English: questions that any language model can be asked, and that hang on what a word means.

    invented-more   Tom has 12 apples. Tom zorfs some apples. Does Tom have more or fewer apples than before?
    invented-sums   Tom has 12 apples. Tom blorfs 3 apples. Tom vorsks 2 apples. How many apples does Tom have now?
    invented-told   To mubat things means to sell some of them. Tom has 12 apples. Tom mubats some apples. Does Tom ...?

What a thought can add, and what it cannot:

    invented-more   What a verb means stands nowhere in the text, so a model that was never told is at chance. Thoughts
                    can learn twelve meanings and say the one that is asked for. That is a dictionary: all splits have
                    the same verbs, with other people, things and numbers. So can a soft prompt, which holds all twelve
                    at once and leaves the choice to the model. Another question's thoughts say another verb, or the
                    same.
    invented-sums   The same for one or two verbs and a sum, which the model must do itself: a thought that names the
                    meanings is worth no more than the model's own arithmetic with known verbs.
    invented-told   The meaning is in the question, as a paraphrase. Verbs and paraphrases of dev and test are in no
                    other split, so nothing can be looked up: a thought must be computed from the question. It cannot
                    add what the text does not say; it can only make plain what a small model overlooks. `cot` and
                    `direct` are the measure of that.

The three have no verb in common. Numbers never tell a meaning: every reading of a question is possible. All of it is
seeded, and a hash of the question decides its split.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product

from ..config import choose
from . import Example, Made, Split, Task
from .answers import number_answer
from .arith import ITEMS, NAMES, identity, split_of
from .number import equal_numbers

SIZES: dict[Split, int] = {"train": 4000, "dev": 500, "test": 500}
MARK = "Answer:"
MORE = {"+": ("zorf", "vask", "plim", "jelb", "twem", "snurp"), "-": ("drev", "mokt", "flarn", "gwib", "bresk", "yolp")}
SUMS = {
    "+": ("blorf", "chulm", "quend", "shomp", "trand", "glaff"),
    "-": ("vorsk", "prant", "skonk", "thweg", "rulk", "dimp"),
}
TOLD: dict[Split, tuple[str, ...]] = {
    "train": (
        "mubat", "tefil", "ronub", "gadip", "vilom", "kuseb", "jopat", "nirud", "wefok", "zabul", "lodem", "pirag",
        "sotev", "hudin", "camup", "yetil", "bofag", "dulep", "rimod", "gesok",
    ),
    "dev": ("finop", "wazem", "tudib", "kolat", "mivud", "jebin"),
    "test": ("pavok", "lumed", "sarib", "nofil", "gebup", "hodid", "vekan", "tirom"),
}  # fmt: skip
MEANINGS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "+": (
            "to buy some more of them", "to find some more of them", "to be given some more of them",
            "to pick up a few extra ones", "to earn some of them", "to win some of them",
            "to bring home some more of them", "to receive some as a present",
        ),
        "-": (
            "to sell some of them", "to lose some of them", "to give some of them away", "to use up some of them",
            "to throw some of them out", "to drop some of them and leave them there", "to break some of them",
            "to lend some of them to a friend",
        ),
    },
    "dev": {
        "+": ("to collect some more of them", "to borrow some more of them"),
        "-": ("to burn some of them", "to hand some of them to somebody else"),
    },
    "test": {
        "+": (
            "to gather some more of them", "to make some new ones", "to inherit some of them",
            "to take some from a shelf and keep them",
        ),
        "-": (
            "to donate some of them", "to mail some of them to a cousin", "to waste some of them",
            "to trade some of them for money",
        ),
    },
}  # fmt: skip
WORDS = {"+": "more", "-": "fewer"}
LARGEST, MOST = 40, 9  # of what somebody has, of what is added or taken
DIFFICULTIES = {"one": (1,), "two": (2,), "both": (1, 2)}
DIRECTION = re.compile(r"\b(more|fewer|less)\b", re.IGNORECASE)


def more_or_fewer(completion: str) -> str | None:
    """ "more" or "fewer" behind the last `Answer:` (or ####), else the only one of the two that is said; else None."""
    said = re.split(r"(?i)answer:|#{4,}", completion)[-1].strip()
    found = {"fewer" if word.lower() == "less" else word.lower() for word in DIRECTION.findall(said.split("\n")[0])}
    return found.pop() if len(found) == 1 else None


def more(source: str | None = None) -> Task:
    """More or fewer, by one invented verb. `source` is not used."""
    return _task("invented-more", source, _more, more_or_fewer, str.__eq__, "Answer with one word, more or fewer.", 16)


def sums(source: str | None = None) -> Task:
    """A sum with invented verbs. `source`: "one" or "two" of them, or "both" kinds mixed (the default)."""
    make = choose("number of verbs", source or "both", SUMMED)
    what = "Work it out, one short step per line. End with a line that reads 'Answer: ' and the number."
    return _task("invented-sums", source, make, number_answer, equal_numbers, what, 64)


def told(source: str | None = None) -> Task:
    """More or fewer, by a verb that the question explains and no other split has. `source` is not used."""
    return _task("invented-told", source, _told, more_or_fewer, str.__eq__, "Answer with one word, more or fewer.", 16)


@dataclass(frozen=True)
class _Scene:
    """Who has how many of what."""

    who: str
    items: str
    start: int

    @classmethod
    def drawn(cls, rng: random.Random) -> "_Scene":
        return cls(rng.choice(NAMES), rng.choice(ITEMS), rng.randint(MOST * 2 + 1, LARGEST))

    @property
    def opening(self) -> str:
        return f"{self.who} has {self.start} {self.items}."

    def changed(self, verb: str) -> str:
        return (
            f"{self.opening} {self.who} {verb}s some {self.items}. "
            f"Does {self.who} have more or fewer {self.items} than before?"
        )


def _more(split: Split, rng: random.Random) -> Example:
    symbol, scene = rng.choice("+-"), _Scene.drawn(rng)
    verb = rng.choice(MORE[symbol])
    return _example(scene.changed(verb), (), WORDS[symbol], verb=verb, meaning=symbol)


def _sums(counts: tuple[int, ...], split: Split, rng: random.Random) -> Example:
    scene, symbols = _Scene.drawn(rng), [rng.choice("+-") for _ in range(rng.choice(counts))]
    verbs = [rng.choice(SUMS[symbol]) for symbol in symbols]
    amounts = [rng.randint(2, MOST) for _ in symbols]
    moves = [f"{scene.who} {verb}s {amount} {scene.items}." for verb, amount in zip(verbs, amounts, strict=True)]
    value, steps = scene.start, []
    for symbol, amount in zip(symbols, amounts, strict=True):
        after = value + amount if symbol == "+" else value - amount
        steps.append(f"{value} {symbol} {amount} = {after}")
        value = after
    question = " ".join([scene.opening, *moves, f"How many {scene.items} does {scene.who} have now?"])
    return _example(question, tuple(steps), str(value), verb=" ".join(verbs), meaning="".join(symbols))


SUMMED = {name: partial(_sums, counts) for name, counts in DIFFICULTIES.items()}


def _told(split: Split, rng: random.Random) -> Example:
    symbol, scene, verb = rng.choice("+-"), _Scene.drawn(rng), rng.choice(TOLD[split])
    paraphrase = rng.choice(MEANINGS[split][symbol])
    question = f"To {verb} things means {paraphrase}. {scene.changed(verb)}"
    return _example(question, (), WORDS[symbol], verb=verb, meaning=symbol)


def readings(example: Example) -> list[int]:
    """What a sum would come to under every reading of its verbs: all whole and above zero."""
    start, *amounts = map(int, re.findall(r"\d+", example.question))
    return [
        start + sum(s * a for s, a in zip(signs, amounts, strict=True))
        for signs in product((1, -1), repeat=len(amounts))
    ]


def _example(question: str, steps: tuple[str, ...], answer: str, **labels: str) -> Example:
    return Example(identity(question), question, steps, answer, {"steps": len(steps), **labels})


def _stream(name: str, make: Callable[[Split, random.Random], Example], split: Split) -> Iterator[Example]:
    """Endless distinct questions of one split."""
    rng, seen = random.Random(f"{name} {split}"), set[str]()
    while True:
        example = make(split, rng)
        if split_of(example.question) == split and example.id not in seen:
            seen.add(example.id)
            yield example


@lru_cache(maxsize=16)
def _examples(name: str, make: Callable[[Split, random.Random], Example], split: Split) -> Made[Example]:
    return Made(_stream(name, make, split), SIZES[split])


def _task(
    name: str,
    source: str | None,
    make: Callable[[Split, random.Random], Example],
    parse: Callable[[str], str | None],
    same: Callable[[str, str], bool],
    instruction: str,
    answer_tokens: int,
) -> Task:
    return Task(
        name=name,
        load=lambda split: _examples(name, make, split),
        parse=parse,
        same=same,
        source=source,
        instruction=instruction,
        mark=MARK,
        answer_tokens=answer_tokens,
    )
