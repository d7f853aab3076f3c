"""The language model every method talks to: load, embed, run, generate.

Rows of vectors go in (`inputs_embeds`), so a thought and the embedding of a word are the same kind of thing.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging

from .config import bounded

SHIPPED = Path(__file__).parents[1] / "data" / "backbones"
SLOT = "\ue000"  # stands for the thoughts in a message; a private-use character no text contains
# Marks around the slot, by what the tokenizer knows: ours, Qwen3, Qwen2.5, Llama 3.
MARKS = (
    ("<bot>", "<eot>"),
    ("<think>", "</think>"),
    ("<|box_start|>", "<|box_end|>"),
    ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
)


@dataclass(frozen=True)
class Decoding:
    """How answers are written."""

    max_new_tokens: int = 64
    """Most tokens per answer; an answer that reaches it is marked unfinished."""
    temperature: float = 0.0
    """0 is greedy; above 0 samples."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this probability mass."""

    def __post_init__(self) -> None:
        bounded(self, max_new_tokens=(1, math.inf), temperature=(0, math.inf), top_p=(1e-9, 1))


@dataclass(frozen=True)
class Completion:
    """One answer: its text, its token ids without the stop token, and whether it stopped by itself."""

    text: str
    tokens: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Output:
    """Of one forward pass: states after the final norm and logits (None where not asked for), and the grown cache."""

    hidden: Float[Tensor, "row position feature"] | None
    logits: Float[Tensor, "row column vocabulary"] | None
    cache: DynamicCache


def pad(rows: Sequence[Tensor], side: Literal["left", "right"]) -> tuple[Tensor, Bool[Tensor, "row position"]]:
    """Stack ragged rows (ids or vectors) with zeros on one side; the mask is true on real positions."""
    stacked = pad_sequence(list(rows), batch_first=True, padding_side=side)
    ones = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
    return stacked, pad_sequence(ones, batch_first=True, padding_side=side)


class Backbone(nn.Module):
    """A Hugging Face causal language model, frozen, with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str | None = None):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer, self.name, self.revision = tokenizer, name, revision

    @classmethod
    def load(
        cls, name: str = "nano", *, revision: str | None = None, dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    ) -> "Backbone":
        """A shipped backbone by its short name, a local folder, or a hub id; `dtype="auto"` keeps the stored one."""
        shipped = SHIPPED / name
        path = str(shipped) if (shipped / "config.json").exists() else name
        if path == name and not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            known = ", ".join(sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))) or "none"
            raise ValueError(
                f"no backbone at {name!r}: give a shipped name ({known}), a folder made by save_pretrained, "
                "or a hub id like Qwen/Qwen3-0.6B"
            )
        try:
            AutoConfig.from_pretrained(path, revision=revision)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"backbone {name!r} could not be loaded ({reason}); check the name and the network"
            ) from error
        # weights that load at once need no progress bar
        kept = logging.set_tqdm_hook(lambda bar, given, named: bar(*given, **{"delay": 2, **named}))
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=dtype)
        finally:
            logging.set_tqdm_hook(kept)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
        local = int(os.environ.get("LOCAL_RANK", "0"))  # launchers of several processes number them per machine
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        return cls(model.to(device), tokenizer, name, revision)

    @property
    def width(self) -> int:
        """Features of an embedding (and of a thought)."""
        return self.table.shape[1]

    @property
    def table(self) -> Float[Tensor, "vocabulary feature"]:
        """The input embedding table."""
        return self.model.get_input_embeddings().weight

    @property
    def device(self) -> torch.device:
        return self.table.device

    @property
    def trains(self) -> bool:
        """Whether any weight of the language model itself is trained."""
        return any(p.requires_grad for p in self.model.parameters())

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end an answer."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None)

    # -- text --------------------------------------------------------------------------------------------------------

    def ids(self, text: str) -> Int[Tensor, "_"]:
        """Token ids of a piece of text, nothing added."""
        return torch.tensor(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)

    def around(self, message: str, reply: str = "") -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """Ids before and after the slot of a user message, marks of the slot and generation prompt included.

        `message` holds `SLOT` once; `reply` is how the answer starts. Uses the chat template (thinking off, date pinned
        so that inputs do not change overnight) or, without one, the plain message after the begin-of-text token.
        """
        if message.count(SLOT) != 1:
            raise ValueError(
                f"a message must hold the slot character U+E000 once, this one holds it {message.count(SLOT)} times"
            )
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True,
                enable_thinking=False, date_string="26 Jul 2024",
            )  # fmt: skip
        else:
            text = (self.tokenizer.bos_token or "") + message
        left, right = (text + reply).split(SLOT)
        vocabulary = self.tokenizer.get_vocab()
        begin, end = next(((b, e) for b, e in MARKS if b in vocabulary and e in vocabulary), ("", ""))
        return self.ids(left + begin), self.ids(end + right)

    # -- arithmetic --------------------------------------------------------------------------------------------------

    def embed(self, ids: Int[Tensor, "*_"]) -> Float[Tensor, "*_ feature"]:
        """Input embeddings, on the backbone's device."""
        return self.model.get_input_embeddings()(ids.to(self.device))

    def run(
        self,
        embeds: Float[Tensor, "row position feature"],
        mask: Bool[Tensor, "row key"] | Bool[Tensor, "row 1 position key"],
        *,
        positions: Int[Tensor, "row position"] | None = None,
        cache: DynamicCache | None = None,
        logits_at: Int[Tensor, "column"] | None = None,
        hidden: bool = False,
    ) -> Output:
        """One forward pass over new positions, behind `cache` if given.

        `mask` covers cached and new positions: 2-D marks the real ones (attention stays causal, padding may stand
        anywhere), 4-D says who reads whom and then `positions` must be given. With `logits_at` (columns of the new
        positions) there are logits, and states if `hidden`; without it only states.
        """
        cache = DynamicCache(config=self.model.config) if cache is None else cache
        if mask.ndim == 2:
            if positions is None:
                positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
            attention = mask.long()
        else:
            if positions is None:
                raise ValueError("a 4-D mask comes with its own positions [row, position]; give them")
            attention = torch.zeros(mask.shape, dtype=embeds.dtype, device=embeds.device)
            attention = attention.masked_fill(~mask, torch.finfo(embeds.dtype).min)
        arguments = {
            "inputs_embeds": embeds,
            "attention_mask": attention,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
        }
        if logits_at is None:
            out = self.model.base_model(**arguments)
            return Output(out.last_hidden_state, None, cache)
        out = self.model(**arguments, logits_to_keep=logits_at, output_hidden_states=hidden)
        return Output(out.hidden_states[-1] if hidden else None, out.logits, cache)

    @torch.no_grad()
    def generate(
        self,
        embeds: Float[Tensor, "row position feature"],
        mask: Bool[Tensor, "row position"],
        decoding: Decoding,
        *,
        draws: int = 1,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """`draws` answers for each left-padded row, from one prefill per row.

        Sampling takes one uniform number per token from a generator seeded by (seeds[row], draw): what else is in the
        batch never changes an answer. Finished rows leave the batch.
        """
        if decoding.temperature > 0 and (seeds is None or len(seeds) != len(embeds)):
            raise ValueError(f"sampling needs one seed per row ({len(embeds)}); give seeds=[...] or temperature 0")
        rows, limit = len(embeds), decoding.max_new_tokens
        last = torch.tensor([embeds.shape[1] - 1], device=self.device)
        out = self.run(embeds, mask, logits_at=last)
        cache, logits = out.cache, _last(out).repeat_interleave(draws, 0)
        if draws > 1:
            cache.batch_repeat_interleave(draws)
            mask = mask.repeat_interleave(draws, 0)
        chance = (
            _uniforms(seeds, draws, limit).to(self.device) if decoding.temperature > 0 and seeds is not None else None
        )
        stops = torch.tensor(sorted(self.stops), device=self.device)
        written = torch.zeros(rows * draws, limit, dtype=torch.long, device=self.device)
        length = torch.full((rows * draws,), limit, device=self.device)
        alive = torch.arange(rows * draws, device=self.device)  # which answers the rows of the batch belong to
        zero = torch.zeros(1, dtype=torch.long, device=self.device)
        for step in range(limit):
            token = _pick(logits, decoding, None if chance is None else chance[alive, step])
            ends = torch.isin(token, stops)
            written[alive, step] = token
            length[alive[ends]] = step
            if ends.any():
                going = (~ends).nonzero()[:, 0]
                if not len(going):
                    break
                alive, token, mask = alive[going], token[going], mask[going]
                cache.batch_select_indices(going)
            if step + 1 == limit:
                break
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = _last(self.run(self.embed(token)[:, None], mask, cache=cache, logits_at=zero))
        ids = [row[:n].tolist() for row, n in zip(written, length.tolist(), strict=True)]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        flat = [Completion(t, tuple(i), len(i) < limit) for t, i in zip(texts, ids, strict=True)]
        return [flat[k : k + draws] for k in range(0, len(flat), draws)]


def _last(out: Output) -> Float[Tensor, "row vocabulary"]:
    assert out.logits is not None
    return out.logits[:, -1].float()


def _uniforms(seeds: Sequence[int], draws: int, length: int) -> Float[Tensor, "answer token"]:
    """The random numbers of every answer, from a generator of its own."""
    rows = [
        torch.rand(length, generator=torch.Generator().manual_seed((seed * 1_000_003 + draw) % 2**63))
        for seed in seeds
        for draw in range(draws)
    ]
    return torch.stack(rows)


def _pick(logits: Float[Tensor, "row vocabulary"], decoding: Decoding, chance: Tensor | None) -> Int[Tensor, "row"]:
    """The next token: the likeliest, or the one at `chance` of the sorted cumulative distribution."""
    if chance is None:
        return logits.argmax(-1)
    probability, order = (logits / decoding.temperature).softmax(-1).sort(descending=True, stable=True)
    total = probability.cumsum(-1)
    kept = ((total - probability) < decoding.top_p).long().sum(-1, keepdim=True)  # always the first one at least
    target = chance[:, None] * total.gather(-1, kept - 1)
    return order.gather(-1, torch.searchsorted(total, target).clamp(max=kept - 1))[:, 0]
