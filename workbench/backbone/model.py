"""The language model every method talks to: load, embed, run, generate.

Rows of vectors go in (`inputs_embeds`), so a thought and the embedding of a word are the same kind of thing.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer
from transformers.utils import logging

from ..files import placed
from ..places import BACKBONES, FETCHED
from . import trial
from .attention import cache_name
from .decoding import Decoding, named
from .generation import Completion, generate
from .prefixes import Prefixes
from .states import noted
from .texts import Texts
from .thoughts import Step

# Family -> how the model's type starts, and a token its chats have (the shipped backbone is a Qwen3 without chats).
FAMILIES = {"qwen3": ("qwen3", "<|im_end|>"), "qwen2.5": ("qwen2", "<|im_end|>"), "llama": ("llama", "<|eot_id|>")}
PADDING = "<|finetune_right_pad_id|>"  # what Llama 3.1 has for padding and does not name as such
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")  # of most, of GPT-2, of OPT and NeoX, of Phi
ROWS = 4096  # of the embedding table, looked at together
HELD = 2**24  # probabilities held at a time


@dataclass(frozen=True)
class Output:
    """Of one forward pass: states after the final norm and logits (None where not asked for), and the grown cache.

    layers: the states of other layers that were asked for (see `states`).
    """

    hidden: Float[Tensor, "row position feature"] | None
    logits: Float[Tensor, "row column vocabulary"] | None
    cache: DynamicCache
    layers: dict[int, Float[Tensor, "row position feature"]] = field(default_factory=dict)


def pad(rows: Sequence[Tensor], side: Literal["left", "right"]) -> tuple[Tensor, Bool[Tensor, "row position"]]:
    """Stack ragged rows (ids or vectors) with zeros on one side; the mask is true on real positions."""
    stacked = pad_sequence(list(rows), batch_first=True, padding_side=side)
    ones = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
    return stacked, pad_sequence(ones, batch_first=True, padding_side=side)


def located(name: str) -> str:
    """A backbone's name as it holds from any folder: the whole path of a local one, a shipped or hub name as it is."""
    return name if (BACKBONES / name / "config.json").exists() else placed(name)


class Backbone(Texts, nn.Module):
    """A Hugging Face causal language model, frozen, with its tokenizer.

    ValueError, one sentence, for a model that does not read rows of vectors as it reads tokens (see `trial`), and for a
    tokenizer with more tokens than the model has rows. `added` are marks that the tokenizer was given.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str | None = None, added: Sequence[str] = ()):
        super().__init__()
        trial.check_layers(model, name)
        trial.check_tokens(tokenizer, len(model.get_input_embeddings().weight), name)
        self.model = model.requires_grad_(False).eval()
        self.tokenizer, self.name, self.revision, self.added = tokenizer, name, revision, tuple(added)
        self.prefixes, self.padded, self.full_logits = Prefixes(), False, False  # shortcuts of training: `likelihood`
        # Rows are padded behind a mask here; who saves or generates with transformers' own code needs the id.
        if tokenizer.is_fast:  # whatever its file says: no piece of text is cut or filled up
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        if tokenizer.pad_token is None:
            tokenizer.pad_token = PADDING if PADDING in tokenizer.get_vocab() else tokenizer.eos_token
        if self.model.generation_config.pad_token_id is None:
            self.model.generation_config.pad_token_id = tokenizer.pad_token_id
        self.by_decoder = False  # whether the head calls the decoder within the base model
        known = not (self.table.is_meta or _sharded())  # weights are there, and whole on one machine
        found = trial.tried(self) if known else trial.Verdict()
        self.plain_logits, self.gaps = found.plain_logits, found.gaps

    def __repr__(self) -> str:
        """Three lines, not a dump of the modules: what it is, its size, what it holds."""
        config, count = self.model.config, sum(p.numel() for p in self.model.parameters())
        layers = getattr(config.get_text_config(), "num_hidden_layers", "?")
        where = f"{str(self.table.dtype).removeprefix('torch.')} on {self.table.device}"
        revision = f" at revision {self.revision}" if self.revision else ""
        learns = any(p.requires_grad for p in self.model.parameters())
        return (
            f"Backbone {self.name}{revision} ({config.model_type}), {'trained' if learns else 'frozen'}\n"
            f"  {count:,} parameters: {layers} layers of width {self.width}, {where}\n"
            f"  {len(self.table):,} tokens, {'with' if self.tokenizer.chat_template else 'without'} a chat template"
        )

    @classmethod
    def load(
        cls,
        name: str = "nano",
        *,
        revision: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        weights: bool = True,
    ) -> "Backbone":
        """A shipped backbone by its short name, a local folder, or a hub id; `dtype="auto"` keeps the stored one.

        Without `weights` it has their shapes and precision only (device "meta"): enough to count and to plan with,
        whatever its size, and nothing but the configuration and the tokenizer is read.
        """
        name = located(name)
        shipped = BACKBONES / name
        path = str(shipped) if (shipped / "config.json").exists() else name
        if path == name and not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            if name in FETCHED:
                raise ValueError(f"backbone {name!r} is not here yet: get it once with `workbench fetch {name}`")
            known = ", ".join(sorted(p.parent.name for p in BACKBONES.glob("*/config.json"))) or "none"
            raise ValueError(
                f"no backbone at {name!r}: give a shipped name ({known}), a folder made by save_pretrained, "
                "or a hub id like Qwen/Qwen3-0.6B"
            )
        try:
            config = AutoConfig.from_pretrained(path, revision=revision)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            missing = f"there is no folder {Path(name).absolute()}; for a hub id check the name and the network"
            raise ValueError(
                f"backbone {name!r} could not be loaded ({reason}); {'mend it' if Path(name).is_dir() else missing}"
            ) from error
        if type(config) not in AutoModelForCausalLM._model_mapping:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(
                f"backbone {name!r} ({config.model_type}) is no causal language model that transformers knows; "
                f"{trial.USABLE}"
            )
        if not weights:
            precision = (config.dtype or torch.float32) if dtype == "auto" else getattr(torch, dtype)
            with torch.device("meta"):
                empty: Any = AutoModelForCausalLM.from_config(config, dtype=precision)
            return cls(empty, AutoTokenizer.from_pretrained(path, revision=revision), name, revision)
        # weights that load at once need no progress bar
        kept = logging.set_tqdm_hook(lambda bar, given, named: bar(*given, **{"delay": 2, **named}))
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=dtype)
        finally:
            logging.set_tqdm_hook(kept)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
        return cls(model.to(home()), tokenizer, name, revision)

    def train(self, mode: bool = True) -> "Backbone":
        """While a method around it trains, a frozen language model stays as it answers, without dropout."""
        return super().train(mode and self.trains)

    @property
    def width(self) -> int:
        """Features of an embedding (and of a thought)."""
        return self.table.shape[1]

    @property
    def table(self) -> Float[Tensor, "vocabulary feature"]:
        """The input embedding table. What a model reads may be another multiple of it: see `inputs`."""
        return self.model.get_input_embeddings().weight

    @property
    def reader(self) -> nn.Module:
        """The model without its output head."""
        return self.model.get_decoder() if self.by_decoder else self.model.base_model

    @cached_property
    def window(self) -> int | None:
        """Positions that the model was made for; None where its config says nothing of it."""
        return trial.window(self.model)

    @cached_property
    def bounded(self) -> bool:
        """Whether positions are learned one by one, so that there is nothing beyond the window."""
        return trial.is_bounded(self.model)

    @property
    def device(self) -> torch.device:
        return self.table.device

    @property
    def trains(self) -> bool:
        """Whether any weight of the language model itself is trained."""
        return any(p.requires_grad for p in self.model.parameters())

    @property
    def bytes_per_token(self) -> int:
        """What the keys and values of a token take in all layers."""
        config = self.model.config.get_text_config(decoder=True)
        known, heads = config.to_dict(), config.num_attention_heads
        size, shared = known.get("head_dim") or self.width // heads, known.get("num_key_value_heads") or heads
        return 2 * config.num_hidden_layers * shared * size * self.table.element_size()

    @cached_property
    def family(self) -> str:
        """A key of `FAMILIES`, or "other"."""
        kind, vocabulary = self.model.config.model_type, self.tokenizer.get_vocab()
        fits = (name for name, (start, token) in FAMILIES.items() if kind.startswith(start) and token in vocabulary)
        return next(fits, "other")

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end an answer: the turn's end, the text's, and those of the generation config."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in [*ids, self.tokenizer.eos_token_id, self.turn_end] if i is not None)

    def decoding(self, name: str) -> Decoding:
        """Settings that have a name: "greedy", "model" (its own) or "published" (LTA-Thinker's for its family)."""
        return named(name, self.family, self.model.generation_config)

    def embed_each(self, pieces: Sequence[Int[Tensor, "_"]]) -> tuple[Float[Tensor, "_ feature"], ...]:
        """The input embeddings of one or more pieces of text, looked up all at once."""
        return self.embed(torch.cat(list(pieces))).split([len(piece) for piece in pieces])

    def embed(self, ids: Int[Tensor, "*_"]) -> Float[Tensor, "*_ feature"]:
        """Input embeddings as the model reads them, on the backbone's device."""
        return self.model.get_input_embeddings()(ids.to(self.device))

    @torch.no_grad()
    def inputs(self) -> Float[Tensor, "vocabulary feature"]:
        """The input embeddings of all tokens: the table itself, or what the model makes of it (Gemma scales it)."""
        if type(self.model.get_input_embeddings()) is nn.Embedding:
            return self.table.detach()
        return torch.cat([self.embed(rows) for rows in torch.arange(len(self.table)).split(ROWS)])

    @property
    def input_scale(self) -> Float[Tensor, ""]:
        """Root mean square of the input embeddings, in float32: how large a vector is that the model takes for a word.

        NaN for a model of shapes only (on the meta device).
        """
        return (
            torch.tensor(torch.nan, device="cpu")
            if self.table.is_meta
            else self.inputs().float().square().mean().sqrt()
        )

    def admit(self, length: int) -> None:
        """Rows of so many positions: a warning beyond the window, ValueError where the model has no such positions."""
        if self.window is None or length <= self.window:
            return
        if self.bounded:
            raise ValueError(
                f"a row of {length} positions is too long for backbone {self.name!r}, whose window is {self.window}; "
                "give shorter texts, fewer thoughts or another backbone"
            )
        warnings.warn(
            f"rows are longer than the window of backbone {self.name!r}, {self.window} positions, and what it makes of "
            "those beyond may be worth nothing; give shorter texts, fewer thoughts or another backbone",
            stacklevel=2,
        )

    def room(self, length: int, wanted: int) -> int:
        """Of `wanted` tokens, how many can be written behind so many positions; ValueError where none can."""
        if self.window is None or not self.bounded:
            return wanted
        self.admit(length)
        return min(wanted, self.window - length + 1)  # the last one is not read

    def run(
        self,
        embeds: Float[Tensor, "row position feature"],
        mask: Bool[Tensor, "row key"] | Bool[Tensor, "row 1 position key"],
        *,
        positions: Int[Tensor, "row position"] | None = None,
        cache: DynamicCache | None = None,
        logits_at: Int[Tensor, "column"] | None = None,
        hidden: bool = False,
        layers: Sequence[int] = (),
    ) -> Output:
        """One forward pass over new positions, behind `cache` if given.

        `mask` covers cached and new positions: 2-D marks the real ones (attention stays causal, padding may stand
        anywhere), 4-D says who reads whom and then `positions` must be given. With `logits_at` (columns of the new
        positions) there are logits, and states if `hidden`; without it only states. States are those of the last layer,
        and of `layers` those that are asked for.
        """
        cache = DynamicCache(config=self.model.config) if cache is None else cache
        if mask.ndim == 2:
            if positions is None:
                positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
            attention = mask.long()
        else:
            if positions is None:
                raise ValueError("a 4-D mask comes with its own positions [row, position]; give them")
            kinds: Any = cache.layers
            near = [layer.sliding_window for layer in kinds if isinstance(layer, DynamicSlidingWindowLayer)]
            if near and mask.shape[-1] > min(near):
                raise ValueError(
                    f"rows of {mask.shape[-1]} positions with an attention of their own do not go with the sliding "
                    f"window of backbone {self.name!r}, {min(near)} positions; give shorter texts or another backbone"
                )
            attention = torch.zeros(mask.shape, dtype=embeds.dtype, device=embeds.device)
            attention = attention.masked_fill(~mask, torch.finfo(embeds.dtype).min)
        if self.window is not None and mask.shape[-1] > self.window:
            self.admit(int(positions.max()) + 1)  # without padding
        arguments = {
            "inputs_embeds": embeds,
            "attention_mask": attention,
            "position_ids": positions,
            cache_name(type(self.model)): cache,
            "use_cache": True,
        }
        with noted(self.model, self.reader, (-1, *layers)) as found:
            if logits_at is None:
                self.reader(**arguments)
                return Output(found.pop(-1), None, cache, found)
            out = self.model(**arguments, logits_to_keep=logits_at)
        last = found.pop(-1)
        return Output(last if hidden else None, out.logits, cache, found)

    def cache_for(self, prompts: Sequence[int]) -> DynamicCache:
        """An empty cache; whatever prompts it is for, it starts the same."""
        return DynamicCache(config=self.model.config)

    def read_out(self, vectors: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ vocabulary"]:
        """Logits of the words that vectors would be written as, in float32: final norm, then output head.

        The "logit lens" (nostalgebraist 2020), for vectors that have not been through the final norm yet, unlike
        `Output.hidden`. A model's own scaling of its logits is left out.
        """
        parts = dict(self.reader.named_children())
        name = next((name for name in FINAL_NORMS if name in parts), None)
        if name is None:
            raise ValueError(
                f"backbone {self.name!r} ({type(self.model).__name__}) has no final norm called "
                f"{' or '.join(FINAL_NORMS)}, so its words cannot be read in vectors; use a Llama, Qwen or GPT-2"
            )
        return self.model.get_output_embeddings()(parts[name](vectors.to(self.table.dtype))).float()

    @torch.no_grad()
    def log_probabilities(self, vectors: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks (rows, log-probabilities [row, vocabulary] in float32) of the words read in vectors [n, feature]."""
        size = max(1, HELD // len(self.table))
        for start in range(0, len(vectors), size):
            rows = slice(start, start + size)
            block = torch.from_numpy(vectors[rows]).to(self.device, self.table.dtype)
            yield rows, self.read_out(block).log_softmax(-1).cpu().numpy()

    def generate(
        self,
        rows: Sequence[Float[Tensor, "_ feature"]],
        decoding: Decoding,
        *,
        draws: int = 1,
        seeds: Sequence[int] | None = None,
        batch_size: int | None = None,
        plain: bool = False,
        step: Step | None = None,
        layers: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """`draws` answers for each row of vectors, as `generation.generate` writes them."""
        return generate(
            self, rows, decoding, draws=draws, seeds=seeds, batch_size=batch_size, plain=plain, step=step, layers=layers
        )


def home() -> torch.device:
    """Where weights go: this process's GPU, if there is one."""
    local = int(os.environ.get("LOCAL_RANK", "0"))  # launchers of several processes number them per machine
    # before it is sharded (FSDP moves layer by layer) a backbone need not fit on one GPU
    return torch.device("cuda", local) if torch.cuda.is_available() and not _sharded() else torch.device("cpu")


def _sharded() -> bool:
    """Whether the launcher will shard the weights (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
