"""SoftCoT++: SoftCoT with several starts, each a path of its own, kept apart by contrast (arXiv 2505.11484).

    T^k = SoftCoT's thoughts with the vector u^k at all of the assistant's slots             k = 1 .. N
    v^k = T^k, flattened and scaled to length one;  w^k = the same of dropout(T^k)
    contrast = mean over k of -log softmax_j(v^k . w^j / temperature)[k]
    loss = mean over k of the likelihood behind T^k + diversity_weight contrast

The published code declares the u^k trained, but cuts off their gradient: they stay the embeddings of rare tokens
(`starts="frozen"`). Here they learn too, through the frozen assistant. With one path this is SoftCoT.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone
from ..config import bounded
from .assistant import slot_ids
from .base import Losses, Prompt, draw_seed
from .softcot import PUBLISHED, SoftCoT, SoftCoTConfig


@dataclass(frozen=True)
class SoftCoTPPConfig(SoftCoTConfig):
    """The corrected method by default; `reference()` for the published one."""

    paths: int = 4
    """Starts, and so the most paths there can be (N; published: 10)."""
    starts: Literal["learned", "frozen"] = "learned"
    """Starts are trained with the projection, or (as published, by mistake) stay what they were."""
    first_start: Literal["placeholder", "rare"] = "placeholder"
    """The first path starts as SoftCoT does, or (as published) at a rare token as the others do."""
    diversity_weight: float = 0.1
    """Weight of the contrast between paths (published: one over the number of paths)."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """Paths are compared by cosines over a temperature (as in the published code), or by the bare dot products of the
    paper's formula, which saturate as soon as thoughts are large."""
    temperature: float = 0.05
    """Temperature of the cosines."""
    dropout: float = 0.0
    """Dropout on one side of the comparison (published: 0.5): a path's cosine with itself is sqrt(1 - dropout)."""
    path_likelihood: Literal["mean", "sum"] = "mean"
    """The likelihood is the mean over paths, or (as published) their sum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        bounded(self, paths=(1, 64), diversity_weight=(0, 1e6), temperature=(1e-6, 1e6), dropout=(0, 0.99))
        for name, idle, needed in (
            ("temperature", self.similarity == "dot", "similarity='cosine'"),
            ("placeholder", self.first_start == "rare", "first_start='placeholder'"),
        ):
            value = getattr(self, name)
            if idle and value != getattr(type(self), name):
                raise ValueError(f"{name}={value!r} would change nothing here: it needs {needed}; give both or neither")

    @classmethod
    def reference(cls, thoughts: int = 32, paths: int = 10) -> "SoftCoTPPConfig":
        """The published behaviour in training."""
        return cls(
            thoughts, paths=paths, starts="frozen", first_start="rare", diversity_weight=1 / paths, dropout=0.5,
            path_likelihood="sum", **PUBLISHED,
        )  # fmt: skip


class SoftCoTPP(SoftCoT):
    """SoftCoT++: SoftCoT with several learned starts per question, whose thoughts a contrast keeps apart."""

    name = "softcot-pp"
    Config = SoftCoTPPConfig
    presets = {"reference": SoftCoTPPConfig.reference()}  # noqa: RUF012

    def __init__(self, backbone: Backbone, config: SoftCoTPPConfig):
        super().__init__(backbone, config)
        tokens = slot_ids(self.reader, config.paths).tolist()
        if config.first_start == "placeholder":  # once: equal starts would have equal gradients for ever
            tokens = [self.placeholder, *(token for token in tokens if token != self.placeholder)]
        self.start_ids = torch.tensor(tokens[: config.paths])
        if config.starts == "learned":
            self.starts = nn.Parameter(self.reader.embed(self.start_ids).detach().float().clone())

    @property
    def trained_paths(self) -> int:
        return self.config.paths

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        config = self.config
        vectors = self._thoughts(prompts, self._starts(config.paths))
        likelihood = self._likelihood(prompts, vectors)
        kept = self._kept(prompts, vectors) if config.dropout else None
        diversity = contrast(vectors, None if config.similarity == "dot" else config.temperature, kept).mean()
        share = config.paths if config.path_likelihood == "sum" else 1
        parts = {"likelihood": likelihood, "diversity": diversity}
        if config.paths > 1:
            parts["path_cosine"] = path_cosine(vectors.detach()).mean()
        return Losses(share * likelihood + config.diversity_weight * diversity, parts)

    def _starts(self, paths: int) -> Float[Tensor, "path state"]:
        """The first starts."""
        if paths > self.config.paths:
            raise ValueError(
                f"softcot-pp has {self.config.paths} starts, {paths} paths are asked for; give at most "
                f"{self.config.paths}, or train it with --options.paths {paths}"
            )
        return self.starts[:paths] if self.config.starts == "learned" else self.reader.embed(self.start_ids[:paths])

    def _kept(
        self, prompts: Sequence[Prompt], vectors: Float[Tensor, "example path step feature"]
    ) -> Float[Tensor, "example path step feature"]:
        """Dropout's factors, drawn anew each step for each example and path: no batch mate changes them."""
        share = 1 - self.config.dropout
        drawn = []
        for prompt in prompts:
            for path in range(vectors.shape[1]):
                seed = draw_seed(torch.initial_seed(), prompt.example.id, path)  # of this step, see train
                drawn.append(torch.rand(vectors.shape[2:], generator=torch.Generator().manual_seed(seed)) < share)
        return torch.stack(drawn).view(vectors.shape).to(vectors) / share


def contrast(
    thoughts: Float[Tensor, "example path step feature"],
    temperature: float | None = 0.05,
    kept: Float[Tensor, "example path step feature"] | None = None,
) -> Float[Tensor, "example"]:
    """How badly each path's thoughts are told from those of the other paths, in nats: log N where all are the same.

    `kept` multiplies the side that is compared with. Without a temperature: bare dot products, the paper's equation.
    """
    one, other = thoughts.flatten(2), (thoughts if kept is None else thoughts * kept).flatten(2)
    if temperature is not None:
        one, other = F.normalize(one, dim=-1) / temperature, F.normalize(other, dim=-1)
    with torch.autocast(thoughts.device.type, enabled=False):  # cosines near one would round to one
        scores = one @ other.mT
    return -scores.log_softmax(-1).diagonal(dim1=-2, dim2=-1).mean(-1)


def path_cosine(thoughts: Float[Tensor, "example path step feature"]) -> Float[Tensor, "example"]:
    """Mean cosine between the thoughts of two different paths."""
    flat = F.normalize(thoughts.flatten(2), dim=-1)
    paths = flat.shape[1]
    return ((flat @ flat.mT).sum((1, 2)) - paths) / (paths * (paths - 1))
