"""The collapse verdict: whether thoughts still say something about the question, and several things.

Geometry alone decides where it cannot be otherwise: thoughts that differ by rounding, questions with the same thoughts.
How much difference is enough hangs on the model (on SmolLM2 thoughts with a relative spread of 0.002 can carry the
answer), so lines drawn on one model are no verdict on another: there it is "undecided" until a counter-test has said
what another question's thoughts cost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .cloud import STILL, spread, still
from .inputs import as_thoughts, ratio
from .neighbours import squared_distance_blocks
from .thoughts import between, probe

State = Literal["healthy", "drifting", "collapsed", "undecided"]
STATES: tuple[State, ...] = ("healthy", "drifting", "collapsed", "undecided")
CALIBRATED = "nano"  # the backbone that the default lines were drawn on
NOTHING_LOST = 0.05  # share of the questions: another question's thoughts cost less than that, with 95 % confidence


@dataclass(frozen=True)
class Thresholds:
    """Where `collapse` draws its lines, each pair for "drifting" and for "collapsed".

    The defaults are from 75 runs of LTA-Thinker on the shift domain with the shipped backbone (1 to 8 thoughts,
    auxiliary losses at weights 0 to 10, Muon and AdamW, the published recipe; 200 to 500 questions). The 19 that they
    call collapsed answer like an empty slot (1 point more on average, 9 at most). The 31 that beat it by 15 points or
    more have a relative spread of 0.05 to 0.42, a slot cosine of up to 0.65 (0.85 in one, with alignment at weight 1),
    and at most 13 % of their questions with one thought (30 and 43 % in two with one or two slots).

    Other methods need lines of their own: hidden states with a few huge features have high cosines and a low relative
    spread by nature, a task with few different questions has many with the same thoughts. A soft prompt is collapsed by
    construction, and so are thoughts nobody has trained, nearly.
    """

    low_spread: float = 0.1
    """Relative spread between questions over all steps, below which thoughts depend little on the question."""
    dead_spread: float = 0.02
    """Relative spread of a step below which it does not depend on the question; collapsed where all steps do not."""
    close_cosine: float = 0.7
    """Mean cosine between slots above which they are merging."""
    merged_cosine: float = 0.99
    """The same, above which they are one."""
    many_same: float = 0.25
    """Share of the questions that have one and the same thoughts, from which on that is many."""
    most_same: float = 0.75
    """The same, from which on thoughts are collapsed."""
    same_distance: float = 0.01
    """Two questions have the same thoughts up to this share of the root mean square distance between questions."""


@dataclass(frozen=True)
class Verdict:
    """Whether thoughts collapsed, why, and the numbers it rests on."""

    state: State
    evidence: tuple[str, ...]
    values: dict[str, float]  # those of `probe`, and same: the largest share of questions with the same thoughts
    idle: tuple[int, ...]  # steps that do not depend on the question


def collapse(vectors: ArrayLike, mask: ArrayLike | None = None, thresholds: Thresholds | None = None) -> Verdict:
    """Judge thoughts [example, step, feature] by relative spread between questions, cosine between slots, and how many
    questions have the same thoughts in all steps.

    collapsed: no step depends on the question, slots are one, or most questions have the same thoughts. drifting: the
    same to a lesser degree, or some steps idle. `Thresholds` says where the lines are. "healthy" means not collapsed:
    whether thoughts help, only accuracy tells, beside that with another question's thoughts. Vectors do not say which
    model they are of: of a store, `settled` knows.
    """
    x, present = as_thoughts(vectors, mask)
    lines = thresholds or Thresholds()
    if not present.any():
        raise ValueError("there are no thoughts to judge: give vectors [example, step, feature] with at least one step")
    steps, deviation, square = between(x, present)
    spreads = {s: ratio(deviation[:, k], square[:, k]) for k, s in enumerate(steps)}
    return judged(probe(x, present), spreads, *_same(x, present, lines.same_distance), lines)


def judged(
    known: Mapping[str, float], spreads: Mapping[int, float], same: int, several: int, lines: Thresholds
) -> Verdict:
    """The same from numbers: those of `probe`, the relative spread of each step, and how many questions have the same
    thoughts, of how many."""
    values = {**known, "same": same / several if several else 0.0}
    rel, cosine = values["relative_spread"], values.get("slot_cosine", float("nan"))
    idle = tuple(s for s, value in spreads.items() if value < lines.dead_spread)
    dead = len(idle) == len(spreads)
    bad, poor = [], []
    if dead:
        bad.append(f"thoughts do not depend on the question: relative spread {rel:.2g} is below {lines.dead_spread:g}")
    elif idle:
        which, low = (", ".join(parts) for parts in (map(str, idle), (f"{spreads[s]:.2g}" for s in idle)))
        poor.append(
            f"idle slots {which} (of {len(spreads)}) do not depend on the question: relative spread {low}, "
            f"below {lines.dead_spread:g}"
        )
    elif rel < lines.low_spread:
        poor.append(f"thoughts depend little on the question: relative spread {rel:.2g} is below {lines.low_spread:g}")
    _merging(cosine, lines, bad, poor)
    if values["same"] >= lines.many_same and not dead:
        (bad if values["same"] >= lines.most_same else poor).append(
            f"{same} of {several} questions have the same thoughts, up to {lines.same_distance:g} of the distance "
            "between questions"
        )
    return _verdict(bad, poor, values, idle)


@dataclass(frozen=True)
class Swapped:
    """What another question's thoughts cost: share of the questions right with their own minus with another's, paired,
    and its 95 % interval. `workbench counter` writes it into the store with the thoughts unchanged."""

    lost: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        interval = f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"another question's thoughts cost {100 * self.lost:.1f} points {interval} on {self.n} questions"


def settled(found: Verdict, about: Mapping[str, Any]) -> Verdict:
    """A verdict by geometry beside what a store's attributes say: its backbone, and what a counter-test found.

    Where another question's thoughts cost something, thoughts are not collapsed, however little they differ; where they
    cost nothing, they say nothing that is used, however much they differ. Without a counter-test lines of the shipped
    model hold for it alone.
    """
    swapped = swapped_of(about)
    home = PurePath(str(about.get("backbone", CALIBRATED))).name == CALIBRATED
    sure = found.values["relative_spread"] <= STILL or found.values.get("same", 0.0) >= Thresholds.most_same
    said, state = found.evidence, found.state
    if swapped is not None:
        said = (str(swapped), *said)
        if swapped.low > 0:
            state = "drifting" if home and state != "healthy" else "healthy"
        elif swapped.high < NOTHING_LOST:
            state = "drifting" if state == "healthy" else "collapsed"
        elif state != "healthy":
            state = "undecided"
    elif state != "healthy" and not (home or sure):
        state = "undecided"
        said = (*said, "these lines are the shipped model's: here a counter-test decides (workbench counter)")
    return replace(found, state=state, evidence=said)


def swapped_of(about: Mapping[str, Any]) -> Swapped | None:
    """What a store's attributes say of a counter-test; None where there was none."""
    try:
        return Swapped(**json.loads(about.get("counter") or "{}")["shuffled"])
    except (ValueError, KeyError, TypeError):
        return None


def glance(values: Mapping[str, float], thresholds: Thresholds | None = None, backbone: str = CALIBRATED) -> Verdict:
    """The verdict as far as relative_spread and slot_cosine allow, such as the numbers that training logs: without the
    vectors nobody can tell idle slots, or questions with the same thoughts. `backbone` as in `settled`."""
    lines = thresholds or Thresholds()
    rel = values["relative_spread"]
    bad, poor = [], []
    if rel < lines.dead_spread:
        bad.append(f"thoughts do not depend on the question: relative spread {rel:.2g} is below {lines.dead_spread:g}")
    elif rel < lines.low_spread:
        poor.append(f"thoughts depend little on the question: relative spread {rel:.2g} is below {lines.low_spread:g}")
    _merging(values.get("slot_cosine", float("nan")), lines, bad, poor)
    return settled(_verdict(bad, poor, dict(values), ()), {"backbone": backbone})


def _merging(cosine: float, lines: Thresholds, bad: list[str], poor: list[str]) -> None:
    if cosine > lines.merged_cosine:
        bad.append(f"slots merged into one: their mean cosine {cosine:.4f} is above {lines.merged_cosine:g}")
    elif cosine > lines.close_cosine:
        poor.append(f"slots are merging: their mean cosine {cosine:.3f} is above {lines.close_cosine:g}")


def _verdict(bad: list[str], poor: list[str], values: dict[str, float], idle: tuple[int, ...]) -> Verdict:
    rel, cosine = values["relative_spread"], values.get("slot_cosine", float("nan"))
    good = [f"relative spread {rel:.2g}" + ("" if np.isnan(cosine) else f", slot cosine {cosine:.2f}")]
    state = "collapsed" if bad else "drifting" if poor else "healthy"
    return Verdict(state, tuple(bad + poor or good), values, idle)


def _same(x: np.ndarray, present: np.ndarray, distance: float) -> tuple[int, int]:
    """How many examples have the thoughts of the one that most others have the thoughts of (0 where nobody has those of
    another), and how many have thoughts."""
    some = present.any(axis=1)
    whole = x[some].reshape(some.sum(), -1)
    if len(whole) < 2 or still(whole):
        return len(whole) if len(whole) > 1 else 0, len(whole)
    limit = 2 * spread(whole, total=True) * distance**2  # of squared distances, whose mean is twice the variance
    most = max(int((squared <= limit).sum(axis=1).max()) for _, squared in squared_distance_blocks(whole, whole))
    return most if most > 1 else 0, len(whole)
