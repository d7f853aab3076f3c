"""Changes of thoughts between thinking and answering: the handle of every counter-test.

A change takes the thoughts of all questions (a list, an entry each) and gives as many back. By name, as `collect` and
the command line take it: `shuffled`, `noised:0.5`. Means are over all questions and paths, slot by slot.
"""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..config import choose
from ..methods import Thoughts

Change = Callable[[list[Thoughts]], list[Thoughts]]


def dropped(thoughts: list[Thoughts]) -> list[Thoughts]:
    """The slot is empty."""
    return [Thoughts(t.vectors[:, :, :0], t.mask[:, :, :0]) for t in thoughts]


def zeroed(thoughts: list[Thoughts]) -> list[Thoughts]:
    """Zero vectors where thoughts were: as many positions, nothing in them."""
    return [_with(t, torch.zeros_like(t.vectors)) for t in thoughts]


def shuffled(thoughts: list[Thoughts]) -> list[Thoughts]:
    """Every question gets the thoughts of another one: right kind, wrong content."""
    return [thoughts[donor] for donor in donors(len(thoughts))]


def donors(count: int, further: int = 1) -> list[int]:
    """For each of `count` questions the one whose thoughts it gets: all lie on one cycle, so nobody keeps their own.

    further: so many places along the cycle; 2 is the donor's donor, a third question.
    """
    if count < further + 1:
        needed = {1: "two", 2: "three"}.get(further, str(further + 1))
        raise ValueError(f"shuffling thoughts needs at least {needed} questions; give more examples")
    order = random.Random(0).sample(range(count), count)
    taken = dict(zip(order, [*order[further:], *order[:further]], strict=True))
    return [taken[i] for i in range(count)]


def averaged(thoughts: list[Thoughts]) -> list[Thoughts]:
    """Every question gets the mean thought: what a soft prompt could have learned."""
    return spread(thoughts, 0.0)


def noised(thoughts: list[Thoughts], amount: float) -> list[Thoughts]:
    """Gaussian noise added, its standard deviation `amount` times the root mean square of the question's thoughts."""
    made = []
    for place, t in enumerate(thoughts):
        noise = torch.randn(t.vectors.shape, generator=torch.Generator().manual_seed(place))
        size = t.vectors[t.mask].square().mean().sqrt() if bool(t.mask.any()) else 0.0
        made.append(_with(t, t.vectors + amount * size * noise))
    return made


def random_vectors(thoughts: list[Thoughts]) -> list[Thoughts]:
    """Gaussian directions of the same lengths: as large as thoughts, and nobody's."""
    made = []
    for place, t in enumerate(thoughts):
        noise = torch.randn(t.vectors.shape, generator=torch.Generator().manual_seed(place))
        made.append(_with(t, noise * (t.vectors.norm(dim=-1) / noise.norm(dim=-1))[..., None]))
    return made


def truncated(thoughts: list[Thoughts], amount: float) -> list[Thoughts]:
    """Only the first `amount` thoughts."""
    count = int(amount)
    if count != amount:
        raise ValueError(f"truncated:{amount:g} is no number of thoughts; give a whole one")
    return [Thoughts(t.vectors[:, :, :count], t.mask[:, :, :count]) for t in thoughts]


def scaled(thoughts: list[Thoughts], amount: float) -> list[Thoughts]:
    """Every vector times `amount`."""
    return [_with(t, amount * t.vectors) for t in thoughts]


def spread(thoughts: list[Thoughts], amount: float) -> list[Thoughts]:
    """What sets a question apart times `amount`: slots keep their mean over questions, their variance grows squared."""
    middle = _slot_means(thoughts)
    return [_with(t, middle[: t.vectors.shape[2]].lerp(t.vectors, amount)) for t in thoughts]


def without(thoughts: list[Thoughts], amount: float) -> list[Thoughts]:
    """All thoughts but the one of slot `amount`, counted from 0; the others move together."""
    slot = _slot("without", amount)
    kept = [[k for k in range(t.mask.shape[2]) if k != slot] for t in thoughts]
    return [Thoughts(t.vectors[:, :, own], t.mask[:, :, own]) for t, own in zip(thoughts, kept, strict=True)]


def swapped(thoughts: list[Thoughts], amount: float) -> list[Thoughts]:
    """Slot `amount` alone, counted from 0, is another question's, where both have it."""
    slot, made = _slot("swapped", amount), []
    for t, donor in zip(thoughts, shuffled(thoughts), strict=True):
        vectors = t.vectors.clone()
        if slot < min(t.vectors.shape[2], donor.vectors.shape[2]):
            both = t.mask[:, :, slot] & donor.mask[:, :, slot]
            vectors[:, :, slot][both] = donor.vectors[:, :, slot][both]
        made.append(_with(t, vectors))
    return made


def _slot(name: str, amount: float) -> int:
    if int(amount) != amount:
        raise ValueError(f"{name}:{amount:g} is no slot; give a whole number, counted from 0")
    return int(amount)


PLAIN: dict[str, Change] = {
    "dropped": dropped,
    "zeroed": zeroed,
    "shuffled": shuffled,
    "averaged": averaged,
    "random": random_vectors,
}
WITH_AMOUNT: dict[str, Callable[[list[Thoughts], float], list[Thoughts]]] = {
    "noised": noised,
    "truncated": truncated,
    "scaled": scaled,
    "spread": spread,
    "without": without,
    "swapped": swapped,
}


def change_named(name: str) -> Change:
    """`shuffled`, `noised:0.5`, ...: the change a name stands for, or one sentence."""
    kind, _, amount = name.partition(":")
    if choose("change of thoughts", kind, PLAIN | WITH_AMOUNT) is PLAIN.get(kind):
        if amount:
            raise ValueError(f"the change {kind!r} takes no amount, {name!r} has one; leave it out")
        return PLAIN[kind]
    try:
        number = float(amount)
    except ValueError:
        raise ValueError(f"the change {kind!r} needs an amount, as in {kind}:2; got {name!r}") from None
    if not 0 <= number < float("inf"):
        raise ValueError(f"the amount of {name!r} must be a number that is at least 0")
    changed = WITH_AMOUNT[kind]
    return lambda thoughts: changed(thoughts, number)


def _with(thoughts: Thoughts, vectors: Tensor) -> Thoughts:
    """Other vectors: they are tokens no longer, and what was measured of the old ones is dropped."""
    return Thoughts(vectors, thoughts.mask)


def _slot_means(thoughts: Sequence[Thoughts]) -> Tensor:
    """Mean thought of each slot over the questions and paths that have it, [step, feature]."""
    steps = max(t.vectors.shape[2] for t in thoughts)
    total = torch.zeros(steps, thoughts[0].vectors.shape[3], dtype=torch.float64)
    count = torch.zeros(steps, 1, dtype=torch.float64)
    for t in thoughts:
        there = t.mask[..., None].double()
        total[: t.vectors.shape[2]] += (t.vectors * there).sum((0, 1))
        count[: t.vectors.shape[2]] += there.sum((0, 1))
    return (total / count.clamp(min=1)).float()
