"""Where marks are put into training rows: before labels that the model finds unlikely, or by another rule."""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .config import LTTuningConfig


def label_probabilities(
    logits: Float[Tensor, "position vocabulary"], ids: Int[Tensor, "position"], first: int
) -> Float[Tensor, "label"]:
    """The model's probability of each id from place `first` on, given what stands before it (paper, eq. 5)."""
    labels = ids[first:]
    return logits[first - 1 : len(ids) - 1].float().softmax(-1).gather(-1, labels[:, None])[:, 0]


def candidates(probability: Float[Tensor, "label"], threshold: float, first: int = 0) -> Int[Tensor, "candidate"]:
    """The places, counted from `first`, of the labels that are less likely than the threshold."""
    return (probability < threshold).nonzero()[:, 0] + first


def inserted(ids: Int[Tensor, "_"], places: Sequence[int], counts: Sequence[int], mark: int) -> Int[Tensor, "_"]:
    """The ids with `counts` marks before those at `places` (rising)."""
    pieces, start = [], 0
    for place, count in zip(places, counts, strict=True):
        pieces += [ids[start:place], ids.new_full((count,), mark)]
        start = place
    return torch.cat([*pieces, ids[start:]])


def drawn(places: Sequence[int], config: LTTuningConfig, chance: random.Random) -> tuple[list[int], list[int]]:
    """Of the candidates those that get marks, and how many each.

    At most `cap` of them (below 1: that share), equally likely; each gets none with chance 1 - insert, else one, and
    one more with chance `again` until there are `most`.
    """
    most = round(config.cap * len(places)) if config.cap < 1 else int(config.cap)
    chosen = sorted(chance.sample(list(places), most)) if len(places) > most else list(places)
    counts = [int(chance.random() < config.insert) for _ in chosen]
    for k, count in enumerate(counts):
        while 0 < count < config.most and chance.random() < config.again:
            count += 1
        counts[k] = count
    return chosen, counts
