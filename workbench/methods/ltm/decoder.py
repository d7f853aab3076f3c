"""The language model of LTM: a windowed causal decoder that reads thoughts by cross-attention, layer by layer.

    h <- h + SelfAttention(norm h)                  causal, the last `window` places, RoPE of neighbouring pairs
    h <- h + CrossAttention(norm h, z_l)            every place reads all latent vectors of its own layer
    h <- h + down(silu(gate) * up)

Nothing has a bias, so that z = 0 is the same as no cross-attention. All before the first cross-attention does not
depend on z and is read once (`Reading`) for all steps of inference.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig

from ...backbone.label_losses import label_losses
from ...config import allowed, bounded, configured
from .blocks import Layer, Norm, Pair, chunks, masked, rotation, seen_in_chunks, with_before

SHORT = 64  # places up to which attention in chunks costs more than it saves
NONE = -1  # a target that does not count


@dataclass(frozen=True)
class Shape:
    """What a decoder is."""

    vocabulary: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    window: int = 32
    latents: int = 8
    length: int = 128
    latent_pos: Literal["spread", "reference", "none"] = "spread"
    hidden: int = 0

    def __post_init__(self) -> None:
        allowed(self)
        bounded(self, vocabulary=(1, 2**31), width=(2, 2**20), layers=(1, 4096), heads=(1, 4096), window=(1, 2**31))
        bounded(self, latents=(0, 2**20), length=(1, 2**31), hidden=(0, 2**24))
        if self.width % (2 * self.heads):
            raise ValueError(
                f"a width of {self.width} does not divide into {self.heads} heads of an even size; give another width "
                "or number of heads"
            )
        if self.latents % self.layers:
            raise ValueError(
                f"{self.latents} latent vectors do not divide into {self.layers} layers; give a multiple of them"
            )

    @property
    def each(self) -> int:
        """Latent vectors of a layer."""
        return self.latents // self.layers

    @property
    def inner(self) -> int:
        """Width of the feed-forward layer: unless given, two thirds of four widths, rounded up to 32s."""
        return self.hidden or -(-(8 * self.width // 3) // 32) * 32

    @property
    def parameters(self) -> int:
        """How many numbers a decoder has."""
        attentions = 2 if self.latents else 1
        layer = 4 * attentions * self.width**2 + 3 * self.width * self.inner + (1 + attentions) * self.width
        return self.vocabulary * self.width + self.layers * layer + self.width

    def training_flops(self, steps: int) -> float:
        """FLOPs per token of a training step with so many steps of inference, as the paper counts them.

        (T + 1)(6 P + 6 L H N): no credit for the window, none for weights at rest.
        """
        return (steps + 1) * (6.0 * self.parameters + 6.0 * self.layers * self.width * self.length)


@dataclass(frozen=True)
class Reading:
    """What a text is before thoughts come in: states behind the first self-attention, queries of the first
    cross-attention (None without latents), and what later layers need of its places."""

    hidden: Float[Tensor, "example position feature"]
    queries: Float[Tensor, "example position head size"] | None
    turn: Complex[Tensor, "example_or_1 position half"]
    seen: Bool[Tensor, "piece 1 query key"]
    chunked: bool


class Decoder(nn.Module):
    """The model. Latent vectors [example, latent, feature] are laid out layer by layer, the bottom one's first."""

    def __init__(self, shape: Shape, init: Literal["residual", "reference"] = "residual"):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(
            Layer(shape.width, shape.inner, shape.heads, bool(shape.latents)) for _ in range(shape.layers)
        )
        self.norm = Norm(shape.width)
        self._begin(init)

    @torch.no_grad()
    def _begin(self, init: str) -> None:
        """N(0, 0.02^2); what writes into the residual stream smaller, by the root of how many do.

        `reference` scales `up` in place of `down` and counts two writes of a layer, as the released code does.
        """
        small = ("o", "up") if init == "reference" else ("o", "down")
        writes = (2 if init == "reference" else 3) * self.shape.layers
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                shrunk = name.split(".")[-2] in small
                parameter.normal_(0.0, 0.02 / writes**0.5 if shrunk else 0.02)

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(
        self,
        embeds: Float[Tensor, "example position feature"],
        there: Bool[Tensor, "example position"] | None = None,
        *,
        chunked: bool = True,
        kept: list[Pair] | None = None,
    ) -> Reading:
        """A text up to the first cross-attention. `there` is false on padding, which may stand on either side.

        chunked: attention a window at a time, each chunk over itself and the one before, in place of all places over
        all; the same numbers. kept: takes keys and values of the first layer.
        """
        count, window = embeds.shape[1], self.shape.window
        positions = torch.arange(count, device=embeds.device)[None] if there is None else (there.cumsum(1) - 1).clamp(0)
        turn = rotation(positions, self.shape.width // self.shape.heads, embeds.dtype)
        chunked = chunked and count > max(2 * window, SHORT)
        seen = seen_in_chunks(count, window, there, embeds.device) if chunked else masked(count, window, there, embeds)
        if chunked:
            seen = seen.expand(len(embeds), -1, -1, -1).flatten(0, 1)[:, None]
        first: Any = self.layers[0]
        x = embeds + self._attended(first, embeds, turn, seen, chunked, kept)
        queries = first.queries(x, turn) if self.shape.latents else None
        return Reading(x, queries, turn, seen, chunked)

    def states(
        self,
        reading: Reading,
        z: Float[Tensor, "example latent feature"] | None,
        *,
        pairs: list[Pair] | None = None,
        kept: list[Pair] | None = None,
    ) -> Float[Tensor, "example position feature"]:
        """States behind the final norm, given thoughts. None: without them, which is the same as zeros.

        pairs: keys and values of the latents, where they are known. kept: takes those of self-attention.
        """
        x, layers = reading.hidden, list[Any](self.layers)
        if pairs is None and z is not None and self.shape.latents:
            pairs = self.latent_pairs(z)
        for index, layer in enumerate(layers):
            if index:
                x = x + self._attended(layer, x, reading.turn, reading.seen, reading.chunked, kept)
            if pairs is not None:
                queries = layer.queries(x, reading.turn) if index else reading.queries
                x = x + layer.crossed(queries, *pairs[index])
            x = x + layer.fed(x)
        return self.norm(x)

    def latent_pairs(self, z: Float[Tensor, "example latent feature"]) -> list[Pair]:
        """Keys and values of each layer's latent vectors."""
        turn = self._latent_turn(z)
        each, layers = self.shape.each, list[Any](self.layers)
        return [layer.latent_pairs(z[:, k * each : (k + 1) * each], turn) for k, layer in enumerate(layers)]

    def _latent_turn(self, z: Tensor) -> Tensor | None:
        """How the latents' keys turn: at places spread over the text, or bunched as in the released code."""
        shape = self.shape
        if shape.latent_pos == "none":
            return None
        apart = shape.length // shape.latents if shape.latent_pos == "reference" else shape.length / shape.each
        places = apart * torch.arange(shape.each, device=z.device)[None]
        return rotation(places, shape.width // shape.heads, z.dtype)

    def _attended(
        self, layer: Any, x: Tensor, turn: Tensor, seen: Tensor, chunked: bool, kept: list[Pair] | None
    ) -> Tensor:
        """What a layer's self-attention adds."""
        queries, keys, values = layer.own(x, turn)
        if kept is not None:
            kept.append((keys, values))
        if not chunked:
            parts = (part.transpose(1, 2) for part in (queries, keys, values))
            return layer.self.o(F.scaled_dot_product_attention(*parts, attn_mask=seen).transpose(1, 2).flatten(2))
        window, count = self.shape.window, x.shape[1]
        own = chunks(queries, window)
        parts = (part.transpose(1, 2) for part in (own, with_before(keys, window), with_before(values, window)))
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=seen).transpose(1, 2)
        return layer.self.o(mixed.reshape(len(x), -1, x.shape[2])[:, :count])

    # -- what it says ------------------------------------------------------------------------------------------------

    @property
    def config(self) -> PretrainedConfig:
        """Its sizes by the names that language models have for them."""
        shape = self.shape
        sizes: dict[str, Any] = {
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "hidden_size": shape.width,
            "intermediate_size": shape.inner, "vocab_size": shape.vocabulary,
        }  # fmt: skip
        return PretrainedConfig(**sizes)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    @property
    def head(self) -> nn.Linear:
        """The output layer: the embedding's own weights."""
        head = nn.Linear(1, 1, bias=False, device="meta")
        head.weight = self.embedding.weight
        return head

    def logits(self, states: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ vocabulary"]:
        return F.linear(states, self.embedding.weight)

    def nll(
        self,
        states: Float[Tensor, "example position feature"],
        targets: Int[Tensor, "example position"],
        *,
        whole: bool = False,
    ) -> Float[Tensor, "example"]:
        """Negative log-likelihood of each text in nats, summed over the targets that count (are not NONE).

        Logits are made a piece at a time, or with `whole` all at once, the plain way.
        """
        if whole:
            each = F.cross_entropy(self.logits(states).transpose(1, 2), targets, ignore_index=NONE, reduction="none")
            return each.sum(1)
        counts = targets != NONE
        if bool(counts.all()):
            return label_losses(states.flatten(0, 1), targets.flatten(), self.head).view(targets.shape).sum(1)
        losses = label_losses(states[counts], targets[counts], self.head)
        return states.new_zeros(targets.shape).masked_scatter(counts, losses.to(states.dtype)).sum(1)

    # -- a file ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """config.json and model.safetensors in a folder."""
        from safetensors.torch import save_file

        from ...files import lasting, write_json

        folder = Path(folder)
        write_json(folder / "config.json", {"model_type": "ltm", **asdict(self.shape)})
        with lasting(folder / "model.safetensors") as temporary:
            save_file({name: p.detach().cpu().contiguous() for name, p in self.named_parameters()}, temporary)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Decoder":
        """What `save` wrote; ValueError, one sentence, unless names and shapes are exactly those of its config."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from ...files import checked, read_json, shown

        folder = Path(folder)
        what = "a folder that a decoder was saved in"
        about = checked(read_json(folder / "config.json", what), {}, shown(folder), f"give {what}")
        if about.pop("model_type", None) != "ltm":
            raise ValueError(f"{folder} holds another kind of model; give {what}")
        decoder = cls(configured(Shape, about))
        try:
            found = load_file(folder / "model.safetensors")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / 'model.safetensors'} cannot be read ({shown(error)}); give {what}") from error
        decoder.take(found, str(folder))
        return decoder

    @torch.no_grad()
    def take(self, weights: dict[str, Tensor], where: str) -> None:
        """All weights by name, strictly; ValueError, one sentence, for one that is missing, foreign or of another
        shape."""
        own = dict(self.named_parameters())
        shapes = ({name: tuple(value.shape) for name, value in some.items()} for some in (own, weights))
        wanted, found = shapes
        if wanted != found:
            name, shape = sorted(set(wanted.items()) ^ set(found.items()))[0]
            side = "lacks" if name not in found else "should not have" if name not in wanted else "has another shape of"
            raise ValueError(f"{where} {side} {name} {shape}; give the weights of one decoder, all of them")
        for name, value in weights.items():
            own[name].copy_(value)
