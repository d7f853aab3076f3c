"""ProsQA (Hao et al. 2024): which of two concepts a person is, told by following a graph of rules.

    Every daxes is a wugs. Tom is a daxes. Ann is a feps. Every feps is a gorps. ... Is Tom a wugs or gorps?
    Tom is a daxes. Every daxes is a wugs. -> Tom is a wugs.

`source` is a folder with prosqa_train.json, prosqa_valid.json and prosqa_test.json (or train.json, ...), one of those
files, or the difficulty of problems that are made here, of the same kind but in words the shipped backbone has tokens
for. They are seeded, and a hash of the question decides its split.

A graph grows node by node: each hangs on about 1.6 earlier ones, deep ones preferred, and mostly not on both those that
come from the person asked about and those that come from another. The right concept comes from the first alone and is
the farthest such, the wrong one comes from the second alone: exactly one of the two can be reached.
"""

import math
import random
import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ..config import choose
from ..files import quoted
from . import Example, Made, Split, Task
from .answers import BEFORE_ANSWER, boxed, marked, plain, same_word
from .arith import NAMES, NONCE_VERBS, split_of
from .records import Native, Record, load, measured, numbered_json

RULE = re.compile(r"\b(?:Every (\w+)|([A-Z]\w*)) is an? (\w+)")
ASKED = re.compile(r"\bIs (\w+) an? (\w+) or (?:an? )?(\w+)\?")
ANSWER = re.compile(r"\s*([A-Z]\w*) is an? (\w+)\.?\s*")
ANSWER_LAST = re.compile(r"\b([A-Z]\w*) is an? (\w+)\W*$")
CONCEPT = re.compile(r"(?:an? )?([a-z]\w*)\.?")
INSTRUCTION = (
    "Answer the question from the facts and rules. First write the fact and the rules that lead to the answer, one per "
    "line. End with a line that reads '#### ' and the answer as a sentence."
)
SIZES: dict[Split, int] = {"train": 4000, "dev": 300, "test": 500}
Edges = Collection[tuple[str, str]]
Kind = Literal["correct path", "longer path", "hallucination", "wrong target", "correct label", "incorrect label"]


@dataclass(frozen=True)
class Difficulty:
    """Nodes of a graph, and steps from the person to the answer (at least, at most)."""

    nodes: tuple[int, int]
    hops: tuple[int, int]


DIFFICULTIES = {
    "mini": Difficulty(nodes=(10, 10), hops=(3, 3)),
    "standard": Difficulty(nodes=(19, 30), hops=(3, 6)),  # as the published ones: 23 nodes, 36 edges on average
    "long": Difficulty(nodes=(26, 34), hops=(5, 8)),
}
BOTH, DEPTH_WEIGHT, IN_EDGES = 0.3, 1.5, 1.6  # share of nodes of any family, pull of deep ones, mean of a Poisson


def task(source: str | None = None) -> Task:
    """Problems made here (`source`: None or a difficulty), or native files."""
    if source is None or source in DIFFICULTIES or not Path(source).expanduser().exists():
        difficulty = choose("difficulty (and no file or folder)", source or "standard", DIFFICULTIES)
        return _task(lambda split: problems(split, difficulty), source, opening="think:\n")
    return _task(lambda split: load(_native(source), split, source, _example), source, instruction=INSTRUCTION)


def _task(load, source: str | None, instruction: str = "", opening: str = "") -> Task:
    return Task(
        name="prosqa",
        load=load,
        parse=answer_sentence,
        same=same_answer,
        source=source,
        instruction=instruction,
        opening=opening,
        answer_tokens=128,
    )


# ------------------------------------------------------------------------------------------------------- made problems


@lru_cache(maxsize=8)
def problems(split: Split, difficulty: Difficulty, seed: int = 0) -> Made[Example]:
    """The problems of a split, always the same ones."""
    return Made(stream(split, seed, difficulty), SIZES[split])


def stream(split: Split, seed: int, difficulty: Difficulty) -> Iterator[Example]:
    """Endless distinct problems of one split."""
    rng, seen = random.Random(f"prosqa {seed} {split}"), set()
    while True:
        example = compose(rng, difficulty)
        if example is not None and split_of(example.question) == split and example.id not in seen:
            seen.add(example.id)
            yield example


def compose(rng: random.Random, difficulty: Difficulty) -> Example | None:
    """One problem, or None where the graph that was drawn has none of this difficulty or too few words."""
    parents = _graph(rng, rng.randint(*difficulty.nodes))
    edges = [(parent, node) for node, found in enumerate(parents) for parent in found]
    people = [node for node, found in enumerate(parents) if not found]
    if len(people) > len(NAMES) or len(parents) - len(people) > len(NONCE_VERBS):
        return None
    names = dict(zip(people, rng.sample(NAMES, len(people)), strict=True))
    concepts = [node for node, found in enumerate(parents) if found]
    names |= dict(zip(concepts, rng.sample(NONCE_VERBS, len(concepts)), strict=True))
    told = [(names[one], names[other]) for one, other in edges]
    rng.shuffle(told)
    who, other = names[0], names[1]
    near, far = distances(told, who), distances(told, other)
    low, high = difficulty.hops
    right = sorted(name for name, hops in near.items() if low <= hops <= high and name not in far)
    right = [name for name in right if near[name] == max(near[one] for one in right)]  # the way is to be long
    wrong = sorted(name for name in far if name not in near and name != other)
    if not right or not wrong:
        return None
    target, decoy = rng.choice(right), rng.choice(wrong)
    asked = rng.sample([target, decoy], 2)
    question = " ".join([*(_sentence(*edge) for edge in told), f"Is {who} a {asked[0]} or {asked[1]}?"])
    path = shortest_path(told, who, target)
    steps = tuple(_sentence(*edge) for edge in pairwise(path))
    name = blake2b(question.encode(), digest_size=6).hexdigest()
    return Example(name, question, steps, _sentence(who, target), _labels(question, steps))


def _graph(rng: random.Random, size: int) -> list[list[int]]:
    """The parents of each node. Nodes 0 and 1 are the two people; whoever has no parents is one more."""
    parents: list[list[int]] = [[], []]
    family, depth = [1, 2], [0, 0]  # bits: comes from 0, comes from 1
    while len(parents) < size:
        draw = rng.random()
        barred = 0 if draw < BOTH else 2 if draw < (1 + BOTH) / 2 else 1
        candidates = [node for node in range(len(parents)) if not family[node] & barred]
        found: list[int] = []
        for _ in range(min(_poisson(rng, IN_EDGES), len(candidates))):
            weights = [1 + DEPTH_WEIGHT * depth[node] for node in candidates]
            found.append(rng.choices(candidates, weights)[0])
            candidates.remove(found[-1])
        parents.append(found)
        family.append(0)
        for parent in found:
            family[-1] |= family[parent]
        depth.append(1 + max((depth[parent] for parent in found), default=-1))
    return parents


def _poisson(rng: random.Random, mean: float) -> int:
    count, left = 0, rng.random()
    while left > math.exp(-mean):
        count, left = count + 1, left * rng.random()
    return count


def _sentence(one: str, other: str) -> str:
    return f"{one} is a {other}." if one[0].isupper() else f"Every {one} is a {other}."


def _labels(question: str, steps: tuple[str, ...]) -> dict[str, str | int | float]:
    edges = rules(question)
    return measured(question, steps, hops=len(steps), nodes=len({n for edge in edges for n in edge}), edges=len(edges))


# -------------------------------------------------------------------------------------------------------------- graphs


def rules(text: str) -> list[tuple[str, str]]:
    """The edges a text tells, in its order: "Every daxes is a wugs." and "Tom is a daxes."."""
    return [(concept or person, other) for concept, person, other in RULE.findall(text)]


def distances(edges: Edges, start: str) -> dict[str, int]:
    """The fewest steps to each node that can be reached."""
    after: dict[str, list[str]] = {}
    for one, other in edges:
        after.setdefault(one, []).append(other)
    found, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for other in after.get(node, []):
            if other not in found:
                found[other] = found[node] + 1
                queue.append(other)
    return found


def shortest_path(edges: Edges, start: str, target: str) -> list[str]:
    """The nodes of a shortest path, of several the one told last first; ValueError where there is none."""
    near = distances(edges, start)
    if target not in near:
        raise ValueError(f"no rules lead from {start} to {target}")
    path = [target]
    while path[-1] != start:
        path.append(next(one for one, other in edges if other == path[-1] and near.get(one) == near[other] - 1))
    return path[::-1]


def path_kind(question: str, completion: str) -> Kind:
    """What is wrong with the worked steps of a completion, if anything (the paper's categories).

    A path may begin where thoughts have led, at any node that can be reached. Without steps only the answer counts.
    """
    edges, (who, *options) = rules(question), _asked(question)
    near = distances(edges, who)
    right = next(option for option in options if option in near)
    worked, mark, _ = completion.rpartition("####" if "####" in completion else "\\boxed")
    claimed = rules(worked if mark else completion)
    answer = answer_sentence(completion)
    if not claimed or (not mark and answer is not None):
        right_said = answer is not None and same_answer(answer, _sentence(who, right))
        return "correct label" if right_said else "incorrect label"
    joined = all(one[1] == other[0] for one, other in pairwise(claimed))
    if not joined or not set(claimed) <= set(edges) or claimed[0][0] not in near:
        return "hallucination"
    if claimed[-1][1] != right:
        return "wrong target"
    return "correct path" if near[claimed[0][0]] + len(claimed) == near[right] else "longer path"


def _asked(question: str) -> tuple[str, str, str]:
    """The person and the two concepts."""
    found = ASKED.search(question)
    if found is None:
        raise ValueError(f"the question must end in 'Is Tom a ... or ...?', it ends in {question[-60:]!r}")
    return found[1], found[2], found[3]


def answer_sentence(completion: str) -> str | None:
    """The sentence "Tom is a wugs." behind the last `####`, in a box, or all there is; None for anything else.

    A box may hold the concept alone: "Tom is a \\boxed{wugs}" is the sentence, "\\boxed{wugs}" is "wugs". Worked steps
    without a mark are no answer: the first of them is a sentence of this kind too.
    """
    held = None if "####" in completion else boxed(completion)
    said = marked(completion) if "####" in completion else held or completion
    if said is None:
        return None
    found = ANSWER.fullmatch(_words(BEFORE_ANSWER.sub("", said)))
    concept = CONCEPT.fullmatch(_words(held)) if held else None
    if found is None and concept is not None:
        lines = (line for line in reversed(completion.splitlines()) if concept[1] in line and "box" in line)
        line = _words(next(lines, ""))
        found = ANSWER_LAST.search(line)
        if found is None or found[2] != concept[1]:
            return concept[1] if CONCEPT.fullmatch(BEFORE_ANSWER.sub("", line)) else None
    return _sentence(found[1], found[2]) if found else None


def _words(text: str) -> str:
    """A text without LaTeX's wrapping and blanks."""
    words = " ".join(plain(re.sub(r"\\[ ,;:!]|~|\\q?quad\b", " ", text)).split())
    return re.sub(r" \.$", ".", words) if "\\" in text else words


def same_answer(prediction: str, gold: str) -> bool:
    """Whether a sentence, or a concept alone, is the gold sentence."""
    return same_word(prediction, gold) or same_word(prediction, gold.rstrip(".").rpartition(" ")[2])


# --------------------------------------------------------------------------------------------------------- native files


def _native(source: str) -> Native:
    """The files of a folder by the names they were published under, or without their prefix."""
    folder = Path(source).expanduser()
    prefix = "prosqa_" if folder.is_dir() and any(folder.glob("prosqa_*.json")) else ""
    prefix = "prosqa_" if folder.is_file() and folder.name.startswith("prosqa_") else prefix
    parts: dict[str, str] = {"train": "train", "dev": "valid", "test": "test"}
    files = {part: f"{prefix}{name}.json" for part, name in parts.items()}
    return Native("", files, ("question", "answer", "steps"), read=numbered_json)


def _example(record: Record) -> Example:
    question, answer, steps = record.text("question"), record.text("answer"), record.fields["steps"]
    if not isinstance(steps, list) or not all(isinstance(step, str) and step.strip() for step in steps):
        raise record.error(f"'steps' must be a list of sentences, it is {quoted(steps)}")
    sentence = answer_sentence(f"#### {answer}")
    if sentence is None:
        raise record.error(f"'answer' must be a sentence like 'Tom is a lempus.', it is {quoted(answer)}")
    steps = tuple(step.strip() for step in steps)
    return Example(record.place, question, steps, sentence, _labels(question, steps))
