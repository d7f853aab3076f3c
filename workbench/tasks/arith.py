"""Seeded multi-step word problems, in a base domain and a shift domain with words the backbone has never read.

    Tom has 12 apples. Tom buys 5 apples. Tom shares the apples equally with 1 friend. How many apples does Tom have?
    12 + 5 = 17 apples ...

In the shift domain some verbs are new words ("Tom harvests 9 apples"): the frozen backbone cannot know which operation
they mean, a thought can tell it. Splits are disjoint by construction: a hash of the question decides its split.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby, permutations, product
from operator import add, mul, sub, truediv

from ..config import choose
from . import Example, Made, Split, Task
from .answers import number_answer
from .number import equal_numbers
from .records import OWN_FILE

NAMES = ("Tom", "Ann", "Max", "Eva", "Sam", "Mia", "Leo", "Zoe", "Ben", "Ida", "Jon", "Amy")
ITEMS = ("apples", "pens", "cards", "books", "coins", "eggs", "shells", "stamps", "nuts", "cups", "beads", "stones")
VERBS = {
    "+": ("buys", "finds", "gets", "wins", "picks", "receives"),
    "-": ("loses", "eats", "sells", "drops", "uses", "gives"),
}
SHIFT_VERBS = {
    "+": ("harvests", "earns", "collects", "gathers", "inherits", "bakes"),
    "-": ("burns", "donates", "breaks", "wastes", "discards", "mails"),
}
# Words without a meaning of their own: in every pretraining problem each stands for + or - afresh.
NONCE_VERBS = (
    "daxes", "wugs", "blicks", "feps", "gorps", "zibs", "tomas", "kiks", "pilks", "mubs", "sebs", "drins",
    "lorps", "vens", "quills", "jads", "hurfs", "yaps", "oggs", "neems", "cruds", "ruls", "xims", "boks",
)  # fmt: skip
APPLY: dict[str, Callable[[float, float], float]] = {"+": add, "-": sub, "*": mul, "/": truediv}
SCENES = ("It is a sunny day.", "The shop is closed.", "It is late.", "The bus is full.")
Words = Mapping[str, tuple[str, ...]]  # new verbs for + and for -
SIZES: dict[Split, int] = {"train": 8000, "dev": 1000, "test": 1000}
SPLITS: dict[int, Split] = {0: "test", 1: "dev"}  # by the last digit of the question's hash; the others are train


@dataclass(frozen=True)
class Difficulty:
    """How hard problems are: operations per problem, largest value, largest addend and factor, share of distractors."""

    operations: tuple[int, int] = (1, 3)
    largest: int = 49
    addend: int = 9
    factor: int = 3
    distractor: float = 0.25


DIFFICULTIES = {
    "easy": Difficulty(operations=(1, 2), distractor=0.0),
    "standard": Difficulty(),
    "hard": Difficulty(operations=(2, 4), largest=99, addend=29, factor=4, distractor=0.4),
}


@dataclass(frozen=True)
class Problem:
    """An example with what made it: the operations in order and the new word (or None) that names each."""

    example: Example
    operations: tuple[str, ...]
    words: tuple[str | None, ...]


@dataclass(frozen=True)
class Move:
    """One operation of a problem and the sentence that tells it; `word` is the new verb used, if any."""

    symbol: str
    amount: int
    sentence: str
    word: str | None = None


def compose(rng: random.Random, difficulty: Difficulty, words: Words | None = None) -> Problem:
    """One problem. `words` maps + and - to new verbs; the problem then has at least one of them."""
    while True:
        problem = _attempt(rng, difficulty, words)
        if problem is not None and (words is None or any(problem.words)):
            return problem


def _attempt(rng: random.Random, difficulty: Difficulty, words: Words | None) -> Problem | None:
    """A problem, or None when some value leaves 1..largest under some reading of the new words.

    So the numbers never tell what a new word means: read the other way, the problem would be as possible.
    """
    count = rng.randint(*difficulty.operations)
    (who, other), (items, junk) = rng.sample(NAMES, 2), rng.sample(ITEMS, 2)
    moves: list[Move] = []
    if rng.random() < 0.15:
        start, each = rng.randint(2, 9), rng.randint(2, difficulty.factor + 2)
        moves.append(Move("*", each, f"{who} has {start} boxes with {each} {items} each."))
    else:
        start = rng.randint(2, difficulty.largest)
    opening = [] if moves else [f"{who} has {start} {items}."]
    compared = len(moves) < count and rng.random() < 0.2
    while len(moves) < count - compared:
        moves.append(_change(rng, difficulty, words, who, items))
    if compared:
        moves.append(_comparison(rng, difficulty, who, other, items))
    if not all(_possible(start, reading, difficulty) for reading in _readings(moves)):
        return None
    sentences = [*opening, *(move.sentence for move in moves)]
    distracted = rng.random() < difficulty.distractor
    if distracted:
        noise = rng.choice([*SCENES, f"{other} has {rng.randint(2, difficulty.largest)} {junk}."])
        sentences.insert(rng.randint(1, len(sentences) - compared), noise)
    question = " ".join([*sentences, f"How many {items} does {other if compared else who} have?"])
    steps, value = [], start
    for move in moves:
        before, value = value, int(APPLY[move.symbol](value, move.amount))
        steps.append(f"{before} {move.symbol} {move.amount} = {value} {items}")
    new = tuple(move.word for move in moves)
    labels: dict[str, str | int | float] = {
        "operations": count,
        "distractor": int(distracted),
        "shift": sum(word is not None for word in new),
        "meaning": {"+": "all +", "-": "all -", "": "none"}.get("".join({m.symbol for m in moves if m.word}), "mixed"),
        "critical_step": next((k for k, word in enumerate(new) if word), -1),  # first step that hangs on a new word
    }
    example = Example(identity(question), question, tuple(steps), str(value), labels)
    return Problem(example, tuple(move.symbol for move in moves), new)


def _change(rng: random.Random, difficulty: Difficulty, words: Words | None, who: str, items: str) -> Move:
    """Something `who` does with the items; with new words on offer, mostly in one of them."""
    symbol = rng.choices("+-*/", weights=(4, 4, 1, 1))[0]
    if symbol in "+-":
        amount = rng.randint(1, difficulty.addend)
        fresh = words is not None and rng.random() < 0.7
        verb = rng.choice((words if words and fresh else VERBS)[symbol])
        return Move(symbol, amount, f"{who} {verb} {amount} {items}.", verb if fresh else None)
    amount = rng.randint(2, difficulty.factor)
    if symbol == "*":
        return Move(symbol, amount, f"{who} makes {amount} times as many {items}.")
    friends = "1 friend" if amount == 2 else f"{amount - 1} friends"
    return Move(symbol, amount, f"{who} shares the {items} equally with {friends}.")


def _comparison(rng: random.Random, difficulty: Difficulty, who: str, other: str, items: str) -> Move:
    """What somebody else has, told by comparison; asked for at the end."""
    if rng.random() < 0.4:
        times = rng.randint(2, difficulty.factor)
        return Move("*", times, f"{other} has {times} times as many {items} as {who}.")
    more = rng.randint(2, difficulty.addend)
    return Move("+", more, f"{other} has {more} more {items} than {who}.")


def _readings(moves: list[Move]) -> Iterator[list[Move]]:
    """The moves under every reading of their new words as + or -; just as they are when there are none."""
    distinct = sorted({move.word for move in moves if move.word})
    for signs in product("+-", repeat=len(distinct)):
        meaning = dict(zip(distinct, signs, strict=True))
        yield [replace(move, symbol=meaning[move.word]) if move.word else move for move in moves]


def _possible(value: float, moves: list[Move], difficulty: Difficulty) -> bool:
    """Whether every value on the way is a whole number in 1..largest."""
    for move in moves:
        value = APPLY[move.symbol](value, move.amount)
        if value != int(value) or not 1 <= value <= difficulty.largest:
            return False
    return True


def chains(example: Example) -> list[tuple[str, ...]]:
    """Every valid chain of a problem's worked steps, the given one first: its + and - in any order, as long as no value
    falls below 0; what stands between two of * and / stays there."""
    parts = [step.split(" ") for step in example.steps]  # value, operation, amount, =, value, items
    runs = [list(run) for _, run in groupby(range(len(parts)), lambda k: parts[k][1] in "+-")]
    orders = (permutations(run) if parts[run[0]][1] in "+-" else [tuple(run)] for run in runs)
    found: dict[tuple[str, ...], None] = {}
    for order in product(*orders):
        value, steps = float(parts[0][0]), []
        for k in (k for run in order for k in run):
            _, symbol, amount, _, _, items = parts[k]
            after = APPLY[symbol](value, float(amount))
            steps.append(f"{value:.0f} {symbol} {amount} = {after:.0f} {items}")
            value = after
            if value < 0:
                break
        else:
            found.setdefault(tuple(steps))
    return list(found)


def _digest(question: str) -> bytes:
    return blake2b(question.encode(), digest_size=6).digest()


def identity(question: str) -> str:
    """The id of a question, the same wherever and whenever it is made."""
    return _digest(question).hex()


def split_of(question: str) -> Split:
    """The one split a question can be in."""
    return SPLITS.get(int.from_bytes(_digest(question)) % 10, "train")


def stream(split: Split, seed: int, difficulty: Difficulty, words: Words | None = None) -> Iterator[Problem]:
    """Endless distinct problems of one split."""
    rng = random.Random(f"{seed} {split}")
    seen: set[str] = set()
    while True:
        problem = compose(rng, difficulty, words)
        if split_of(problem.example.question) == split and problem.example.id not in seen:
            seen.add(problem.example.id)
            yield problem


@lru_cache(maxsize=16)
def problems(split: Split, difficulty: Difficulty, shift: bool, seed: int = 0) -> Made[Problem]:
    """The problems of a split, always the same ones."""
    return Made(stream(split, seed, difficulty, SHIFT_VERBS if shift else None), SIZES[split])


def _task(name: str, shift: bool, source: str | None) -> Task:
    difficulty = choose("difficulty", source or "standard", DIFFICULTIES, OWN_FILE)
    return Task(
        name=name,
        load=lambda split: Made((p.example for p in problems(split, difficulty, shift)), SIZES[split]),
        parse=number_answer,
        same=equal_numbers,
        source=source,
        opening="think:\n",
        answer_tokens=64,
    )


def base(source: str | None = None) -> Task:
    """Problems in the words the shipped backbone was pretrained on. `source` names a difficulty."""
    return _task("arith", False, source)


def shift(source: str | None = None) -> Task:
    """Problems with at least one verb the shipped backbone has never read. `source` names a difficulty."""
    return _task("arith-shift", True, source)
