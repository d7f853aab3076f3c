"""The decoder as the house's language model, so that whatever takes a backbone takes it, and its tokenizers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from ...backbone import Backbone, Decoding
from ...backbone.decoding import named
from ...backbone.prefixes import Prefixes
from .decoder import Decoder
from .generation import Cache, advance, begun

BOS, EOS = "<bos>", "<eos>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """The 256 bytes, begin and end of text."""
    tokenizer = _of_single(sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS)


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """The 52 letters of English, begin and end of text; what else a text holds is left out."""
    letters = [chr(start + k) for start in (65, 97) for k in range(26)]
    tokenizer = _of_single(letters)
    tokenizer.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS)


def _of_single(words: Sequence[str]) -> Tokenizer:
    return Tokenizer(BPE({word: number for number, word in enumerate(words)}, []))


class ThoughtModel(Backbone):
    """A decoder with its tokenizer. Words are read and written with thoughts beside them (`Conditioned`)."""

    def __init__(self, decoder: Decoder, tokenizer: Any, name: str, revision: str | None = None):
        nn.Module.__init__(self)
        self.model, self.tokenizer, self.name, self.revision, self.added = decoder, tokenizer, name, revision, ()
        self.prefixes, self.padded, self.full_logits = Prefixes("off"), False, False
        self.by_decoder, self.plain_logits, self.gaps = False, True, False

    @property
    def table(self) -> Float[Tensor, "vocabulary feature"]:
        return self.model.embedding.weight

    def embed(self, ids: Int[Tensor, "*_"]) -> Float[Tensor, "*_ feature"]:
        return self.model.embedding(ids.to(self.device))

    @torch.no_grad()
    def inputs(self) -> Float[Tensor, "vocabulary feature"]:
        return self.table.detach()

    @property
    def start(self) -> int:
        """The token that texts begin behind."""
        return self.turn_end if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id

    @cached_property
    def window(self) -> int | None:
        return self.model.shape.length

    @cached_property
    def bounded(self) -> bool:
        return False

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.model.shape.layers * self.width * self.table.element_size()

    @cached_property
    def family(self) -> str:
        return "other"

    @property
    def stops(self) -> frozenset[int]:
        return frozenset(i for i in (self.tokenizer.eos_token_id, self.turn_end) if i is not None)

    def decoding(self, name: str) -> Decoding:
        return named(name, self.family, GenerationConfig())

    def admit(self, length: int) -> None:
        """Any length will do: attention is windowed, and places turn."""

    def read_out(self, vectors: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ vocabulary"]:
        return self.model.logits(self.model.norm(vectors.to(self.table.dtype))).float()

    def run(self, *given: Any, **named: Any) -> Any:
        """Not of itself: see `Conditioned`."""
        raise ValueError("this language model reads words beside thoughts; ask its method to answer")


@dataclass(frozen=True)
class Seen:
    """Of one pass: states, logits where asked for, the grown cache."""

    hidden: Tensor
    logits: Tensor | None
    cache: Cache
    layers: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditioned:
    """The language model beside the thoughts of each of the prompts, as the writing loop takes it."""

    backbone: ThoughtModel
    z: Float[Tensor, "prompt latent feature"] | None
    model: None = None
    trains: bool = False

    @property
    def tokenizer(self) -> Any:
        return self.backbone.tokenizer

    @property
    def stops(self) -> frozenset[int]:
        return self.backbone.stops

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def embed(self, ids: Tensor) -> Tensor:
        return self.backbone.embed(ids)

    def admit(self, length: int) -> None:
        self.backbone.admit(length)

    def room(self, length: int, wanted: int) -> int:
        return wanted

    def cache_for(self, prompts: Sequence[int]) -> Cache:
        return begun(self.backbone.model, None if self.z is None else self.z[list(prompts)])

    def run(
        self,
        embeds: Tensor,
        mask: Tensor,
        *,
        cache: Any = None,
        logits_at: Tensor | None = None,
        hidden: bool = False,
        layers: Sequence[int] = (),
    ) -> Seen:
        """As `Backbone.run`; states of other layers are not kept."""
        if layers:
            raise ValueError(f"states of layer {layers[0]} are not kept by this language model; ask for none")
        decoder = self.backbone.model
        states = advance(decoder, embeds, mask[:, -embeds.shape[1] :], cache)
        return Seen(states, None if logits_at is None else decoder.logits(states[:, logits_at]), cache)
