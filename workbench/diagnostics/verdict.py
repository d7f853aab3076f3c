"""The collapse verdict: whether thoughts still say something about the question, and several things."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .cloud import spread
from .inputs import as_thoughts, ratio
from .neighbours import nearest_distances
from .thoughts import between, probe


@dataclass(frozen=True)
class Verdict:
    """Whether thoughts collapsed, why, and the numbers it rests on."""

    state: Literal["healthy", "drifting", "collapsed"]
    evidence: tuple[str, ...]
    values: dict[str, float]  # those of `probe`, and twins: the share of questions with another's thoughts
    idle: tuple[int, ...]  # steps that do not depend on the question


def collapse(
    vectors: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    dead_spread: float = 0.02,
    low_spread: float = 0.1,
    merged_cosine: float = 0.99,
    close_cosine: float = 0.9,
    twin_distance: float = 0.002,
    twin_share: float = 0.25,
) -> Verdict:
    """Judge thoughts [example, step, feature] by relative spread between questions, cosine between slots, and twins.

    collapsed: relative spread below `dead_spread` at every step (thoughts ignore the question), or slot cosine above
    `merged_cosine` (several slots are one). drifting: the same beyond `low_spread` or `close_cosine`; some steps idle;
    or at least `twin_share` of the questions have the thoughts of another one in all steps, up to `twin_distance` of
    the root mean square distance between questions.

    The defaults separate measured runs of LTA-Thinker on the shift domain: collapsed 0.00001 to 0.015 and 0.999,
    useful 0.34 to 0.45 and 0.2 to 0.33, slots merging 0.47 to 0.59 and 0.91 to 0.96; the nearest of 300 questions of a
    useful run are 0.009 apart, while their single slots often coincide, which is no fault: each says one of a few
    things. Hidden states with a few huge features have high cosines and low relative spread by nature, and a task with
    few different questions has twins: judge those with thresholds of their own. A soft prompt is collapsed by
    construction.
    """
    x, present = as_thoughts(vectors, mask)
    if not present.any():
        raise ValueError("there are no thoughts to judge: give vectors [example, step, feature] with at least one step")
    steps, deviation, square = between(x, present)
    twins, several = _twins(x, present, twin_distance)
    values = probe(x, present) | {"twins": twins / several if several else 0.0}
    rel, cosine = values["relative_spread"], values.get("slot_cosine", float("nan"))
    spreads = {s: ratio(deviation[:, k], square[:, k]) for k, s in enumerate(steps)}
    idle = tuple(s for s, value in spreads.items() if value < dead_spread)
    bad, poor = [], []
    if len(idle) == len(steps):
        bad.append(f"thoughts do not depend on the question: relative spread {rel:.2g} is below {dead_spread:g}")
    elif idle:
        which, low = (", ".join(parts) for parts in (map(str, idle), (f"{spreads[s]:.2g}" for s in idle)))
        poor.append(
            f"idle steps {which} (of {len(steps)}) do not depend on the question: relative spread {low}, "
            f"below {dead_spread:g}"
        )
    elif rel < low_spread:
        poor.append(f"thoughts depend little on the question: relative spread {rel:.2g} is below {low_spread:g}")
    if cosine > merged_cosine:
        bad.append(f"slots merged into one: their mean cosine {cosine:.4f} is above {merged_cosine:g}")
    elif cosine > close_cosine:
        poor.append(f"slots are merging: their mean cosine {cosine:.3f} is above {close_cosine:g}")
    if len(idle) < len(steps) and values["twins"] >= twin_share:
        poor.append(
            f"{twins} of {several} questions have the thoughts of another question, up to {twin_distance:g} of the "
            "distance between questions"
        )
    good = [f"relative spread {rel:.2g}" + ("" if np.isnan(cosine) else f", slot cosine {cosine:.2f}")]
    state = "collapsed" if bad else "drifting" if poor else "healthy"
    return Verdict(state, tuple(bad + poor or good), values, idle)


def _twins(x: np.ndarray, present: np.ndarray, distance: float) -> tuple[int, int]:
    """How many examples have the thoughts of another in all steps, and how many examples have thoughts."""
    some = present.any(axis=1)
    whole = x[some].reshape(some.sum(), -1)
    if len(whole) < 2:
        return 0, len(whole)
    typical = np.sqrt(2 * spread(whole, total=True))
    return int((nearest_distances(whole, 1)[:, 0] <= distance * typical).sum()), len(whole)
