"""The language model every method talks to: load, embed, run, generate.

Rows of vectors go in (`inputs_embeds`), so a thought and the embedding of a word are the same kind of thing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from jinja2 import TemplateError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging

from .attention import cache_name
from .decoding import Decoding, named
from .files import placed
from .generation import Completion, generate
from .prefixes import Prefixes

SHIPPED = Path(__file__).parents[1] / "data" / "backbones"
SLOT = "\ue000"  # stands for the thoughts in a message; a private-use character no text contains
# Marks around the slot, by what the tokenizer knows: ours, Qwen3, Qwen2.5, Llama 3, those that Coconut adds.
MARKS = (
    ("<bot>", "<eot>"),
    ("<think>", "</think>"),
    ("<|box_start|>", "<|box_end|>"),
    ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    ("<|start-latent|>", "<|end-latent|>"),
)
# Family -> how the model's type starts, and a token its chats have (the shipped backbone is a Qwen3 without chats).
FAMILIES = {"qwen3": ("qwen3", "<|im_end|>"), "qwen2.5": ("qwen2", "<|im_end|>"), "llama": ("llama", "<|eot_id|>")}
PADDING = "<|finetune_right_pad_id|>"  # what Llama 3.1 has for padding and does not name as such
# The day of every prompt: Llama's templates take it as `date_string`, others ask a clock, which a macro stands in for.
DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday"}
CLOCK = (
    "{%- macro strftime_now(format) %}{{- format"
    + "".join(f" | replace('{directive}', '{text}')" for directive, text in DAY.items())
    + " }}{%- endmacro %}\n"
)
FINAL_NORMS = ("norm", "ln_f")  # of Llama and Qwen (and most others), of GPT-2


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


def located(name: str) -> str:
    """A backbone's name as it holds from any folder: the whole path of a local one, a shipped or hub name as it is."""
    return name if (SHIPPED / name / "config.json").exists() else placed(name)


class Backbone(nn.Module):
    """A Hugging Face causal language model, frozen, with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str | None = None):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer, self.name, self.revision = tokenizer, name, revision
        self.prefixes, self.padded, self.full_logits = Prefixes(), False, False  # shortcuts of training: `likelihood`
        # Rows are padded behind a mask here; who saves or generates with transformers' own code needs the id.
        if tokenizer.is_fast:  # whatever its file says: no piece of text is cut or filled up
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        if tokenizer.pad_token is None:
            tokenizer.pad_token = PADDING if PADDING in tokenizer.get_vocab() else tokenizer.eos_token
        if self.model.generation_config.pad_token_id is None:
            self.model.generation_config.pad_token_id = tokenizer.pad_token_id

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
        shipped = SHIPPED / name
        path = str(shipped) if (shipped / "config.json").exists() else name
        if path == name and not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            known = ", ".join(sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))) or "none"
            raise ValueError(
                f"no backbone at {name!r}: give a shipped name ({known}), a folder made by save_pretrained, "
                "or a hub id like Qwen/Qwen3-0.6B"
            )
        try:
            config = AutoConfig.from_pretrained(path, revision=revision)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            missing = f"there is no folder {Path(name).absolute()}; for a hub id check the name and the network"
            raise ValueError(
                f"backbone {name!r} could not be loaded ({reason}); {'mend it' if Path(name).is_dir() else missing}"
            ) from error
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
        local = int(os.environ.get("LOCAL_RANK", "0"))  # launchers of several processes number them per machine
        # before it is sharded (FSDP moves layer by layer) a backbone need not fit on one GPU
        sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        on_gpu = torch.cuda.is_available() and not sharded
        device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
        return cls(model.to(device), tokenizer, name, revision)

    def train(self, mode: bool = True) -> "Backbone":
        """While a method around it trains, a frozen language model stays as it answers, without dropout."""
        return super().train(mode and self.trains)

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
    def bytes_per_token(self) -> int:
        """What the keys and values of a token take in all layers."""
        config = self.model.config
        known, heads = config.to_dict(), config.num_attention_heads
        size, shared = known.get("head_dim") or self.width // heads, known.get("num_key_value_heads") or heads
        return 2 * config.num_hidden_layers * shared * size * self.table.element_size()

    @cached_property
    def family(self) -> str:
        """A key of `FAMILIES`, or "other"."""
        kind, vocabulary = self.model.config.model_type, self.tokenizer.get_vocab()
        fits = (name for name, (start, token) in FAMILIES.items() if kind.startswith(start) and token in vocabulary)
        return next(fits, "other")

    @cached_property
    def turn_end(self) -> int:
        """The token that ends a reply in the chat template (`<|im_end|>`, `<|eot_id|>`), else the end of text."""
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SLOT}]
            behind = self.ids(self._rendered(turns, reply=False).rpartition(SLOT)[2])
            marks = [i for i in behind.tolist() if i in self.tokenizer.added_tokens_decoder]
            if marks:
                return marks[0]
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of backbone {self.name!r} has no token that ends an answer; set its eos_token"
            )
        return self.tokenizer.eos_token_id

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end an answer: the turn's end, the text's, and those of the generation config."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(i for i in [*ids, self.tokenizer.eos_token_id, self.turn_end] if i is not None)

    def decoding(self, name: str) -> Decoding:
        """Settings that have a name: "greedy", "model" (its own) or "published" (LTA-Thinker's for its family)."""
        return named(name, self.family, self.model.generation_config)

    # -- text --------------------------------------------------------------------------------------------------------

    @cached_property
    def marks(self) -> tuple[str, str]:
        """What stands before and behind the thoughts in a message; empty where the tokenizer has nothing for it."""
        vocabulary = self.tokenizer.get_vocab()
        return next(((begin, end) for begin, end in MARKS if begin in vocabulary and end in vocabulary), ("", ""))

    @cached_property
    def _anchor(self) -> str:
        """A token to read pieces of text behind, where the tokenizer puts a blank before what stands first."""
        eos = self.tokenizer.eos_token or ""
        behind, alone = self._first(f"{eos}a").tolist(), self._first("a").tolist()
        return eos if behind[:1] == [self.tokenizer.eos_token_id] and behind[1:] != alone else ""

    def _first(self, text: str) -> Int[Tensor, "_"]:
        """Token ids of a text that nothing stands before, nothing added."""
        # the tokenizer underneath, where there is one: the call above it makes masks too and takes three times as long
        if self.tokenizer.is_fast:
            ids = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        else:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.long)

    def ids(self, text: str) -> Int[Tensor, "_"]:
        """Token ids of a piece of text as in the middle of a longer one, nothing added."""
        return self._first(self._anchor + text)[1:] if self._anchor else self._first(text)

    def chat(self, message: str, thinking: bool = False) -> str:
        """A user's message as the model reads it, up to where its reply starts.

        By the chat template (its switch for thinking set, date pinned so that inputs do not change overnight) or,
        without one, the plain message after the begin-of-text token.
        """
        if not self.tokenizer.chat_template:
            return (self.tokenizer.bos_token or "") + message
        return self._rendered([{"role": "user", "content": message}], reply=True, thinking=thinking)

    def _rendered(self, turns: list[dict[str, str]], reply: bool, thinking: bool = False) -> str:
        """A conversation as text; with `reply`, the header of the next one is there."""
        try:
            return self.tokenizer.apply_chat_template(
                turns, chat_template=CLOCK + self.tokenizer.get_chat_template(), tokenize=False,
                add_generation_prompt=reply, enable_thinking=thinking, date_string="26 Jul 2024",
            )  # fmt: skip
        except (TemplateError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"the chat template of backbone {self.name!r} cannot write a plain message ({reason}); set another "
                "one on its tokenizer (chat_template), or none"
            ) from error

    def around(self, message: str, reply: str = "") -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """Ids before and after the slot of a user message, marks of the slot and generation prompt included.

        `message` holds `SLOT` once and is rendered as in `chat`; `reply` is how the answer starts. Where neither that
        nor a chat template says how, it starts on a new line.
        """
        if message.count(SLOT) != 1:
            raise ValueError(
                f"a message must hold the slot character U+E000 once, this one holds it {message.count(SLOT)} times"
            )
        text = self.chat(message)
        headless = not self.tokenizer.chat_template or text.endswith(SLOT)
        parts = (text + (reply or "\n" * headless)).split(SLOT)
        if len(parts) != 2:
            raise ValueError(
                f"the chat template of backbone {self.name!r} writes a message {len(parts) - 1} times, it must do so "
                "once; set another one on its tokenizer (chat_template), or none"
            )
        begin, end = self.marks
        return self._first(parts[0] + begin), self.ids(end + parts[1])

    def in_reply(self, message: str, reply: str = "", marks: bool = True) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """Ids before and after a slot that opens the reply to a user message, with the slot's marks unless told not to.

        `reply` is what follows the slot. A begin mark that the chat template writes itself is not written twice.
        """
        text, (begin, end) = self.chat(message, thinking=marks), self.marks if marks else ("", "")
        opened = bool(begin) and text.rstrip().endswith(begin)
        behind = end + (reply or "\n" * (not self.tokenizer.chat_template))
        return self._first(text if opened else text + begin), self.ids(behind)

    # -- arithmetic --------------------------------------------------------------------------------------------------

    def embed_each(self, pieces: Sequence[Int[Tensor, "_"]]) -> tuple[Float[Tensor, "_ feature"], ...]:
        """The input embeddings of one or more pieces of text, looked up all at once."""
        return self.embed(torch.cat(list(pieces))).split([len(piece) for piece in pieces])

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
        positions) there are logits, and states if `hidden`; without it only states. States are those of the last layer:
        the others' are not kept.
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
            cache_name(type(self.model)): cache,
            "use_cache": True,
        }
        if logits_at is None:
            out = self.model.base_model(**arguments)
            return Output(out.last_hidden_state, None, cache)
        kept: list[Tensor] = []
        hook = self.model.base_model.register_forward_hook(lambda _, __, found: kept.append(found.last_hidden_state))
        try:
            out = self.model(**arguments, logits_to_keep=logits_at)
        finally:
            hook.remove()
        return Output(kept[0] if hidden else None, out.logits, cache)

    def read_out(self, vectors: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ vocabulary"]:
        """Logits of the words that vectors would be written as, in float32: final norm, then output head.

        The "logit lens" (nostalgebraist 2020), for vectors that have not been through the final norm yet, unlike
        `Output.hidden`. A model's own scaling of its logits is left out.
        """
        parts = dict(self.model.base_model.named_children())
        name = next((name for name in FINAL_NORMS if name in parts), None)
        if name is None:
            raise ValueError(
                f"backbone {self.name!r} ({type(self.model).__name__}) has no final norm called "
                f"{' or '.join(FINAL_NORMS)}, so its words cannot be read in vectors; use a Llama, Qwen or GPT-2"
            )
        return self.model.get_output_embeddings()(parts[name](vectors.to(self.table.dtype))).float()

    def generate(
        self,
        rows: Sequence[Float[Tensor, "_ feature"]],
        decoding: Decoding,
        *,
        draws: int = 1,
        seeds: Sequence[int] | None = None,
        batch_size: int | None = None,
        plain: bool = False,
    ) -> list[list[Completion]]:
        """`draws` answers for each row of vectors, as `generation.generate` writes them."""
        return generate(self, rows, decoding, draws=draws, seeds=seeds, batch_size=batch_size, plain=plain)
