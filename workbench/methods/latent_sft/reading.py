"""What Latent-SFT's rows are read with: the encoder and its labels, latents as vectors, states under the masks."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone import Backbone, likelihood
from ...backbone.attention import shareable
from ...backbone.label_losses import is_plain
from ...backbone.leaves import states as leafy_states
from ..base import LatentMethod, Prompt
from ..mixtures import mixed
from ..trained import trained_copy
from .config import LatentSFTConfig
from .labels import read_labels
from .layout import Layout, pieces_layout, segments
from .superposition import superposed

ROWS = 32  # read at a time when labels are made


class Reading(LatentMethod):
    """Decoder and encoder, and what they read; `LatentSFT` trains them and thinks."""

    def __init__(self, backbone: Backbone, config: LatentSFTConfig):
        if not is_plain(backbone.model.get_output_embeddings(), backbone.model.config):
            raise ValueError(
                f"backbone {backbone.name!r} makes its logits by more than a product with its output head, which "
                "latent-sft reads words with; use a Llama or Qwen"
            )
        super().__init__(_trained(backbone, config), config)
        self.encoder = _trained(backbone, config) if config.encoder else None
        if self.encoder is not None:
            rows = self.backbone.embed(torch.arange(len(self.backbone.tokenizer)))
            self.compress = nn.Parameter(rows.detach().float().mean(0))
        self.epoch = 0

    def encoded(self, prompts: Sequence[Prompt]) -> list[dict[str, Tensor]]:
        """Of each chain the words and weights of its latents, [slot, component], and the states they are read in."""
        chains = [chain_of(p) for p in prompts]
        return self.encoded_pieces(prompts, [segments(chain, self.config.ratio) for chain in chains])

    def encoded_pieces(
        self, prompts: Sequence[Prompt], pieces: Sequence[Sequence[Int[Tensor, "_"]]]
    ) -> list[dict[str, Tensor]]:
        """The same with a latent behind each of these pieces, such as those of another chain than the gold one."""
        config, encoder = self.config, self.encoder
        if encoder is None:
            raise ValueError("there is no encoder to make labels; give a file of them (labels), or have an encoder")
        layouts = [
            pieces_layout(p.before, own, p.after, config.encoder_positions)
            for p, own in zip(prompts, pieces, strict=True)
        ]
        slots = [self.compress.to(encoder.table.dtype).expand(len(own.slots), -1) for own in layouts]
        states = self.states(encoder, layouts, slots, config.induction_mask)
        known = [own[at.slots.to(own.device)] for own, at in zip(states, layouts, strict=True)]
        logits = self.readout(torch.cat(known)) / config.temperature
        tokens, weights = superposed(logits, config.components, self.unusable(prompts[0].after))
        counts = [len(own) for own in known]
        return [
            {"tokens": t, "weights": w, "vectors": h}
            for t, w, h in zip(tokens.split(counts), weights.split(counts), known, strict=True)
        ]

    def readout(self, states: Float[Tensor, "slot feature"]) -> Float[Tensor, "slot vocabulary"]:
        """Logits of the words that the encoder's states are read as; the decoder's matrix gets no gradient."""
        head: Any = self.backbone.model.get_output_embeddings()
        published = self.config.readout == "input-embedding"
        matrix = self.backbone.table if published else head.weight
        bias = None if published or head.bias is None else head.bias.detach()
        return F.linear(states.to(matrix.dtype), matrix.detach(), bias)

    def unusable(self, after: Int[Tensor, "_"] | None = None) -> Bool[Tensor, "vocabulary"] | None:
        """Words that are not mixed; with `after`, the end mark's first token among them."""
        if self.config.words == "all":
            return None
        tokenizer, size = self.backbone.tokenizer, len(self.backbone.table)
        found = torch.arange(size, device=self.backbone.device) >= len(tokenizer)
        found[tokenizer.pad_token_id] = True
        if after is not None:
            found[after[0]] = True
        return found

    @torch.no_grad()
    def labels(self, prompts: Sequence[Prompt]) -> list[dict[str, Tensor]]:
        """Labels of each chain, on the CPU: the encoder's, without dropout, or those of the file `labels`."""
        if self.encoder is None:
            if not self.config.labels:
                raise ValueError(
                    "this leg learns from labels, and there is neither an encoder nor a file of them; give labels "
                    "(write_labels makes a file), or have an encoder"
                )
            return read_labels(self, self.config.labels, prompts)
        training = self.training
        self.eval()
        found = [own for k in range(0, len(prompts), ROWS) for own in self.encoded(prompts[k : k + ROWS])]
        self.train(training)
        kept = ("tokens", "weights", "vectors") if self.config.thought == "hidden" else ("tokens", "weights")
        return [{name: own[name].cpu() for name in kept} for own in found]

    def vectors(self, labels: Sequence[dict[str, Tensor]]) -> list[Float[Tensor, "_ feature"]]:
        """The latents that are read, of each chain."""
        counts = [len(own["tokens"]) for own in labels]
        if self.config.thought == "hidden":
            return [own["vectors"].to(self.backbone.device) for own in labels]
        tokens, weights = (torch.cat([own[name] for own in labels]) for name in ("tokens", "weights"))
        return list(mixed(self.backbone, tokens, weights).split(counts))

    def states(
        self, model: Backbone, layouts: Sequence[Layout], slots: Sequence[Float[Tensor, "_ feature"]], masked: bool
    ) -> Sequence[Float[Tensor, "_ feature"]]:
        """States of each place of the rows, with these vectors in their slots; `masked`: by the masks of `layout`,
        else causal.

        Masked rows are read as rows with leaves, unless those have a sink; `Backbone.padded` chooses the plain way,
        masks of [place, place].
        """
        embeds = model.embed_each([own.ids.clamp(min=0) for own in layouts])
        rows = [
            one.index_copy(0, own.slots.to(one.device), z.to(one))
            for one, own, z in zip(embeds, layouts, slots, strict=True)
        ]
        if not masked:
            return likelihood.states(model, rows, positions=None)
        if shareable(model.model) and not self.backbone.padded and not layouts[0].sink:
            return leafy_states(model.model, [own.leafy(row) for own, row in zip(layouts, rows, strict=True)])
        reads, positions = [own.reads() for own in layouts], [own.positions for own in layouts]
        return likelihood.states(model, rows, reads=reads, positions=positions)


def _trained(backbone: Backbone, config: LatentSFTConfig) -> Backbone:
    """A copy that is trained, its table of embeddings aside."""
    own = trained_copy(backbone, config.lora_rank, config.lora_alpha, ())
    own.model.get_input_embeddings().requires_grad_(False)
    return own


def chain_of(prompt: Prompt) -> Int[Tensor, "_"]:
    """The worked steps as ids: the one chain of every leg."""
    return torch.cat(prompt.steps) if prompt.steps else prompt.before[:0]
