"""What stands where in the rows of the encoder and the decoder, and who may read whom: built, never searched for.

    encoder   P  S_1 C  S_2 C ... S_N C  E        C: the compress slot behind each segment S_i of the chain
    decoder   P  Z_1 S_2  Z_2 S_3 ... Z_N  F      Z: latents; F: end mark and answer
    last leg  P  Z_1 Z_2 ... Z_N  F

Every place has a kind and the number of its segment. Masks come from these two alone:

    induction     nobody reads a compress slot but itself
    supervision   P reads P; Z reads P and Z; F reads P, Z and F; the text behind Z_i reads Z_i and itself
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ...backbone.leaves import Leafy
from ...backbone.likelihood import UNLABELLED
from ..loops import LATENT

PROMPT, SLOT, TEXT, CLOSING = range(4)  # kinds of places: slots are compress slots or latents


@dataclass(frozen=True)
class Layout:
    """A row: ids (`LATENT` at slots), kinds, segments (from 0), positions, and the ids that are to be predicted.

    leaf: the kind of place that nobody else reads, so that it can be left out of the row (see `backbone.leaves`).
    """

    ids: Int[Tensor, "place"]
    kind: Int[Tensor, "place"]
    segment: Int[Tensor, "place"]
    positions: Int[Tensor, "place"]
    labels: Int[Tensor, "place"]
    leaf: int
    sink: bool = False  # whether the decoder's text reads the first place too

    @property
    def slots(self) -> Int[Tensor, "slot"]:
        """The places of the slots, in order."""
        return (self.kind == SLOT).nonzero()[:, 0]

    def reads(self) -> Bool[Tensor, "query key"]:
        """Who reads whom, with the masks of this page."""
        place = torch.arange(len(self.ids))
        before = place[:, None] >= place
        kind, segment, same = self.kind[:, None], self.segment[:, None], torch.eye(len(place), dtype=torch.bool)
        if self.leaf == SLOT:
            return before & ((self.kind != SLOT) | same)
        text, slot = self.kind == TEXT, self.kind == SLOT
        own = (text | slot) & (self.segment == segment)  # the latent and the text behind it
        if self.sink:
            own = own | (place == 0)
        return before & torch.where(kind == TEXT, own, ~text)

    def leafy(self, vectors: Tensor) -> Leafy:
        """The same as a row and its leaves: each slot of the encoder, each text of the decoder."""
        leaves, row = self.kind == self.leaf, (self.kind != self.leaf).long().cumsum(0)
        number = torch.where(leaves, self.segment - self.segment[leaves].min() if bool(leaves.any()) else 0, -1)
        begins = torch.cat([leaves[:1], (number[1:] != number[:-1]) & leaves[1:]])
        last = row[begins]  # places of the row before each leaf
        first = torch.zeros_like(last) if self.leaf == SLOT else last - 1
        return Leafy(vectors, self.positions, number, first, last)


def segments(chain: Int[Tensor, "_"], ratio: int) -> list[Int[Tensor, "_"]]:
    """The chain in pieces of `ratio` ids, the last one maybe shorter; ValueError for an empty chain."""
    if not len(chain):
        raise ValueError("a chain without steps has no latents; give examples with worked steps")
    return list(chain.split(ratio))


def encoder_layout(
    prompt: Int[Tensor, "_"],
    chain: Int[Tensor, "_"],
    end: Int[Tensor, "_"],
    ratio: int,
    positions: Literal["leaf", "physical"] = "leaf",
) -> Layout:
    """What the encoder reads. Positions "leaf": text as if there were no slots, a slot where the next token stands;
    "physical": places as they are."""
    return pieces_layout(prompt, segments(chain, ratio), end, positions)


def pieces_layout(
    prompt: Int[Tensor, "_"],
    pieces: Sequence[Int[Tensor, "_"]],
    end: Int[Tensor, "_"],
    positions: Literal["leaf", "physical"] = "leaf",
) -> Layout:
    """The same with a slot behind each of these pieces of the chain, which may be of any length."""
    placed = [(prompt, PROMPT, 0)]
    for number, piece in enumerate(pieces):
        placed += [(piece, TEXT, number), (piece.new_full((1,), LATENT), SLOT, number)]
    ids, kind, segment = _together([*placed, (end, CLOSING, 0)])
    text = (kind != SLOT).long().cumsum(0)
    places = torch.arange(len(ids)) if positions == "physical" else torch.where(kind == SLOT, text, text - 1)
    return Layout(ids, kind, segment, places, torch.full_like(ids, UNLABELLED), SLOT)


def decoder_layout(
    prompt: Int[Tensor, "_"], chain: Int[Tensor, "_"], closing: Int[Tensor, "_"], ratio: int, sink: bool = False
) -> Layout:
    """What the decoder reads in the first three legs: latents where they are at test, each text counted on from its
    latent. Labels are the segments from the second on, and all of the closing."""
    parts = segments(chain, ratio)
    pieces = [(prompt, PROMPT, 0)]
    for number in range(len(parts)):
        pieces.append((prompt.new_full((1,), LATENT), SLOT, number))
        if number + 1 < len(parts):
            pieces.append((parts[number + 1], TEXT, number))
    pieces.append((closing, CLOSING, 0))
    ids, kind, segment = _together(pieces)
    row = (kind != TEXT).long().cumsum(0) - 1
    place = torch.arange(len(ids))
    begin = torch.where(kind == SLOT, place, 0).cummax(0).values
    positions = torch.where(kind == TEXT, row + place - begin, row)
    labels = torch.where((kind == TEXT) | (kind == CLOSING), ids, UNLABELLED)
    return Layout(ids, kind, segment, positions, labels, TEXT, sink)


def latent_layout(prompt: Int[Tensor, "_"], count: int, closing: Int[Tensor, "_"]) -> Layout:
    """What the decoder reads in the last leg and at test."""
    pieces = [(prompt, PROMPT, 0)]
    pieces += [(prompt.new_full((1,), LATENT), SLOT, number) for number in range(count)]
    ids, kind, segment = _together([*pieces, (closing, CLOSING, 0)])
    labels = torch.where(kind == CLOSING, ids, UNLABELLED)
    return Layout(ids, kind, segment, torch.arange(len(ids)), labels, TEXT)


def _together(pieces: list[tuple[Tensor, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, kinds and segments of pieces one behind the other."""
    counts = torch.tensor([len(ids) for ids, _, _ in pieces])
    kind, segment = (torch.tensor([piece[k] for piece in pieces]).repeat_interleave(counts) for k in (1, 2))
    return torch.cat([ids.cpu() for ids, _, _ in pieces]), kind, segment
