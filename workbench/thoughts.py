"""What a thought is, what a step sees before it makes the next input, and what it makes.

A row of a language model is read from left to right. Each further input is a word (a token, whose embedding is read) or
a thought (any vector). Who decides is a step: `step(state) -> made`, for many rows at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Thoughts as weighted means of embeddings: the tokens that are mixed (-1 for padding), heaviest first."""

    tokens: Int[Tensor, "example path step component"]
    weights: Float[Tensor, "example path step component"]


@dataclass(frozen=True)
class Thoughts:
    """Thought vectors; `mask` is true where there is one, `tokens` names the token where a thought is one (else -1).

    `mixture` says the same as `vectors` in a hundredth of the space, where thoughts are mixtures of words. A thought
    stands before the answer, or in one: `draws` says in which of its path's (-1: before all of them), and `places`
    behind how many of its written tokens. None: all stand before.
    """

    vectors: Float[Tensor, "example path step feature"]
    mask: Bool[Tensor, "example path step"]
    tokens: Int[Tensor, "example path step"] | None = None
    signals: dict[str, Float[Tensor, "example path step"]] = field(default_factory=dict)
    mixture: Mixture | None = None
    draws: Int[Tensor, "example path step"] | None = None
    places: Int[Tensor, "example path step"] | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> "Thoughts":
        """The same change of all that is known of them: for a choice of examples, another device, more paths."""

        def maybe(value: Tensor | None) -> Tensor | None:
            return None if value is None else change(value)

        mixture = self.mixture and Mixture(change(self.mixture.tokens), change(self.mixture.weights))
        signals = {name: change(value) for name, value in self.signals.items()}
        return Thoughts(
            change(self.vectors), change(self.mask), maybe(self.tokens), signals, mixture,
            maybe(self.draws), maybe(self.places),
        )  # fmt: skip

    def over_paths(self, paths: int) -> "Thoughts":
        """Those of one path on as many paths: for a method that draws nothing."""
        return self.each(lambda value: value.expand(-1, paths, *value.shape[2:]))


@dataclass(frozen=True)
class State:
    """What a step sees of each row: the position before the input that it makes.

    hidden: after the final norm. logits: float32. rows: which rows these are (a prompt's copies one after the other:
    row = prompt x `copies` + copy). number: thoughts that the row has made. count: inputs that it has made, words and
    thoughts. chance: its uniform number for this input, None where nothing is sampled. written: the words, -1 where a
    thought stands and behind the row's last. layers: of the states asked for, by their index in transformers'
    `hidden_states` (-2 is what the last block reads).
    """

    hidden: Float[Tensor, "row feature"]
    logits: Float[Tensor, "row vocabulary"]
    rows: Int[Tensor, "row"]
    number: Int[Tensor, "row"]
    count: Int[Tensor, "row"] | None = None
    chance: Float[Tensor, "row"] | None = None
    written: Int[Tensor, "row input"] | None = None
    layers: dict[int, Float[Tensor, "row feature"]] = field(default_factory=dict)
    copies: int = 1

    @property
    def prompts(self) -> Int[Tensor, "row"]:
        """Which of the prompts each row goes on from."""
        return self.rows // self.copies

    @property
    def words(self) -> Int[Tensor, "row"]:
        """Words that the row has written."""
        return (self.number if self.count is None else self.count) - self.number


@dataclass(frozen=True)
class Made:
    """The next inputs, what they are, and what is to be kept of them.

    words: of each row the token it writes, whose embedding is its next input, or -1 for a thought; None: all are
    thoughts. vector: the thoughts; None where there are only words. token, signals, mixture: what is known of a thought
    (`token` is -1 where it is no token). ends: rows that end here; what was made for them is dropped.
    """

    vector: Float[Tensor, "row feature"] | None
    token: Int[Tensor, "row"] | None = None
    signals: dict[str, Float[Tensor, "row"]] = field(default_factory=dict)
    mixture: tuple[Int[Tensor, "row component"], Float[Tensor, "row component"]] | None = None
    words: Int[Tensor, "row"] | None = None
    ends: Bool[Tensor, "row"] | None = None

    def of(self, rows: Int[Tensor, "kept"]) -> "Made":
        """What was made for some of the rows."""

        def maybe(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[rows]

        mixture = None if self.mixture is None else (self.mixture[0][rows], self.mixture[1][rows])
        signals = {name: value[rows] for name, value in self.signals.items()}
        return Made(
            maybe(self.vector), maybe(self.token), signals, mixture, maybe(self.words), maybe(self.ends)
        )  # fmt: skip


Step = Callable[[State], Made]
Stop = Callable[[State, Made], Bool[Tensor, "row"]]


@dataclass(frozen=True)
class Kept:
    """Thoughts that were made together: of which rows, as which of a row's thoughts, behind how many of its words."""

    rows: Int[Tensor, "thought"]
    number: Int[Tensor, "thought"]
    words: Int[Tensor, "thought"]
    made: Made


@dataclass(frozen=True)
class Written:
    """Rows as they were written: of each its words, whether it ended by itself, and all thoughts as they were made."""

    words: list[list[int]]
    ended: list[bool]
    kept: Sequence[Kept]

    def thoughts(self, examples: int, like: Float[Tensor, "*_ feature"]) -> Thoughts:
        """All rows' thoughts as [example, path, step, feature], rows that have fewer padded; in the type of `like`.

        Without the places: for thoughts between which no word stands.
        """
        paths = len(self.words) // examples
        if not self.kept:
            vectors = like.new_zeros(examples, paths, 0, like.shape[-1])
            return Thoughts(vectors, torch.zeros(vectors.shape[:-1], dtype=torch.bool, device=like.device))
        rows, number = (torch.cat([getattr(one, name) for one in self.kept]) for name in ("rows", "number"))
        steps = int(number.max()) + 1 if len(number) else 0

        def spread(values: Sequence[Tensor], blank: float | int) -> Tensor:
            value = torch.cat(list(values))
            shape = (examples * paths, steps, *value.shape[1:])
            return value.new_full(shape, blank).index_put((rows, number), value).unflatten(0, (examples, paths))

        return _thoughts([one.made for one in self.kept], spread, like.dtype)

    def each_thoughts(self) -> list[Thoughts | None]:
        """Of each row the thoughts [1, 1, step, ...] that it made, and their places; None where no row could."""
        if not self.kept:
            return [None] * len(self.words)
        rows = torch.cat([one.rows for one in self.kept])
        order, counts = rows.argsort(stable=True), rows.bincount(minlength=len(self.words)).tolist()
        made = [one.made for one in self.kept]
        together = _thoughts(made, lambda values, _: torch.cat(list(values))[order][None, None])
        together, found = replace(together, places=torch.cat([one.words for one in self.kept])[order][None, None]), []
        together = together.each(lambda value: value.cpu())
        starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
        for start, count in zip(starts, counts, strict=False):
            own = slice(start, start + count)  # a copy: no row holds what all have made
            found.append(together.each(lambda value, own=own: value[:, :, own].clone()))
        return found


def _thoughts(
    made: Sequence[Made], spread: Callable[[Sequence[Tensor], float | int], Tensor], dtype: torch.dtype | None = None
) -> Thoughts:
    """What was made one after the other, arranged as [example, path, step, ...] by `spread(values, blank)`."""
    vectors = [one.vector if dtype is None else one.vector.to(dtype) for one in made if one.vector is not None]
    tokens = [one.token for one in made if one.token is not None]
    mixtures = [one.mixture for one in made if one.mixture is not None]
    there = spread([torch.ones(len(one), dtype=torch.bool, device=one.device) for one in vectors], False)
    return Thoughts(
        spread(vectors, 0.0),
        there,
        spread(tokens, -1) if tokens else None,
        {name: spread([one.signals[name] for one in made], torch.nan) for name in made[0].signals},
        Mixture(spread([ids for ids, _ in mixtures], -1), spread([w for _, w in mixtures], 0.0)) if mixtures else None,
    )


def joined(before: Thoughts, within: Sequence[Sequence[Thoughts | None]]) -> Thoughts:
    """All thoughts of an example: those `before` its answers [1, path, step], then those `within` them, [path][draw].

    Along `step` each path's come first that stand before, then draw after draw, so that `mask` has no gaps. What is
    known of one kind only is -1 or NaN for the other; mixtures are left out unless all are such.
    """
    if all(one is None for path in within for one in path):
        return before
    paths = [
        [
            _loose(before.each(lambda value, k=k: value[:, k : k + 1]), -1),
            *(_loose(one, draw) for draw, one in enumerate(answers) if one is not None),
        ]
        for k, answers in enumerate(within)
    ]
    segments = [segment for path in paths for segment in path]
    names = list(dict.fromkeys(name for segment in segments for name in segment))
    if any("mixture tokens" not in segment and len(segment["mask"]) for segment in segments):
        names = [name for name in names if not name.startswith("mixture")]
    steps = max(sum(len(segment["mask"]) for segment in path) for path in paths)

    def laid(name: str) -> Tensor:
        sample = next(segment[name] for segment in segments if name in segment)
        wide = [max(s[name].shape[axis] for s in segments if name in s) for axis in range(1, sample.ndim)]
        out = sample.new_full((1, len(paths), steps, *wide), BLANKS.get(name, torch.nan))
        for line, path in zip(out[0], paths, strict=True):
            start = 0
            for segment in path:
                count = len(segment["mask"])
                if name in segment and count:
                    inner = (slice(size) for size in segment[name].shape[1:])
                    line[(slice(start, start + count), *inner)] = segment[name]
                start += count
        return out

    mixture = None
    if "mixture tokens" in names:
        mixture = Mixture(laid("mixture tokens"), laid("mixture weights"))
    signals = {name.removeprefix("signal "): laid(name) for name in names if name.startswith("signal ")}
    tokens = laid("tokens") if "tokens" in names else None
    return Thoughts(laid("vectors"), laid("mask"), tokens, signals, mixture, laid("draws"), laid("places"))


BLANKS = {
    "vectors": 0, "mask": False, "tokens": -1, "draws": -1, "places": 0, "mixture tokens": -1, "mixture weights": 0,
}  # fmt: skip


def _loose(thoughts: Thoughts, draw: int) -> dict[str, Tensor]:
    """What is known of the thoughts of one row [1, 1, step] that are there, by name, [thought, ...]."""
    there = thoughts.mask
    count = int(there.sum())
    found = {
        "vectors": thoughts.vectors[there],
        "mask": there[there],
        "draws": torch.full((count,), draw),
        "places": torch.zeros(count, dtype=torch.long) if thoughts.places is None else thoughts.places[there],
    }
    if thoughts.tokens is not None:
        found["tokens"] = thoughts.tokens[there]
    if thoughts.mixture is not None:
        found["mixture tokens"] = thoughts.mixture.tokens[there]
        found["mixture weights"] = thoughts.mixture.weights[there]
    return found | {f"signal {name}": value[there] for name, value in thoughts.signals.items()}
