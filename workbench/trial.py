"""A language model is tried on four tokens before it is used: what does not read rows of vectors as we do is refused.

    tokens      a b c d   and   c a b d        read at once, by the model's own forward pass
    vectors     their embeddings               must give the same logits as the tokens they belong to,
    padded      behind a place that is masked  the same as without it, whatever else is in the batch,
    continued   a b, then c, then d            the same as at once, each behind the keys and values of those before

No list of names says which models can be used: a recurrent state, attention to what comes later, embeddings that are
scaled or completed where only tokens come in, positions that count padding all show here, in logits.
"""

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from . import attention, packing

WINDOWS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length")
GAP = 32  # masked places, over which a distance tells
OFFSETS = 8  # learned tables have a few rows more than positions
USABLE = "use a causal language model that attends in every layer, such as Llama, Qwen, Gemma, Mistral or GPT-2"


class Tried(Protocol):
    """What is tried."""

    name: str
    model: Any
    by_decoder: bool

    @property
    def table(self) -> Tensor: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def reader(self) -> nn.Module: ...

    def embed(self, ids: Tensor) -> Tensor: ...

    def run(
        self, embeds: Tensor, mask: Tensor, *, cache: Any = ..., logits_at: Any = ..., hidden: bool = ...
    ) -> Any: ...


@dataclass(frozen=True)
class Verdict:
    """What four tokens tell: whether logits are the output head's product with the states, and whether masked places
    between a prefix and what goes on from it change nothing (where distances count places, they do)."""

    plain_logits: bool = True
    gaps: bool = True


def check_layers(model: Any, name: str) -> None:
    """ValueError for encoders and decoders in one, and for layers that keep anything but keys and values."""
    config = model.config
    if config.is_encoder_decoder:
        refuse(name, model, "it is an encoder and a decoder")
    try:
        layers = DynamicCache(config=config).layers
    except Exception as error:  # of a model that has a cache of its own, whatever it is
        refuse(name, model, f"its cache is of a kind of its own ({type(error).__name__})")
    kinds = {type(layer) for layer in layers if hasattr(layer, "conv_states") or hasattr(layer, "recurrent_states")}
    if kinds:
        kept = ", ".join(sorted(kind.__name__ for kind in kinds))
        refuse(name, model, f"its layers keep a recurrent or convolutional state ({kept}), which padding would enter")
    if not any(isinstance(layer, DynamicLayer) for layer in layers):
        refuse(name, model, "no layer of it keeps keys and values")


def check_tokens(tokenizer: Any, rows: int, name: str) -> None:
    """ValueError where the tokenizer has tokens that the table has no row for."""
    added = tokenizer.added_tokens_decoder
    last = max([len(tokenizer) - 1, *added])
    if last >= rows:
        which = f" (such as {added[last].content[:40]!r})" if last in added else ""
        raise ValueError(
            f"the tokenizer of backbone {name!r} has tokens up to id {last}{which}, its embedding table only {rows} "
            "rows; resize it (model.resize_token_embeddings(len(tokenizer))) and save both, or take the tokens out"
        )


@torch.no_grad()
def tried(backbone: Tried) -> Verdict:
    """What is found with four tokens; ValueError for a model that cannot be used. `by_decoder` is set as it must be."""
    model, name, count = backbone.model, backbone.name, len(backbone.table)
    a, b, c, d = (number * count // 7 for number in (2, 3, 4, 5))
    ids = torch.tensor([[a, b, c, d], [c, a, b, d]], device=backbone.device)
    try:
        own = model(input_ids=ids, use_cache=False).logits.float()
        rows = backbone.embed(ids)
    except Exception as error:
        refuse(name, model, f"it stops with {_told(error)} when it reads tokens")
    near = _Nearness(backbone, own)
    for by_decoder in (False, True):
        backbone.by_decoder = by_decoder
        try:
            found = _through(backbone, rows)
        except Exception as error:
            if by_decoder:
                refuse(name, model, f"it stops with {_told(error)} when it is given vectors, a mask and a cache")
            continue
        if found is not None:
            break
    else:
        refuse(name, model, "the states behind its logits cannot be found")
    first, third, fourth, states = found
    if first.shape[-1] != own.shape[-1] or not near(first[1], own[1, 1:3]):
        refuse(name, model, "it reads vectors otherwise than the tokens they belong to")
    if not near(first[0], own[0, 0:2]):
        refuse(name, model, "it reads a padded row otherwise than the row alone")
    if not (near(third[0], own[0, 2:3]) and near(fourth[0], own[0, 3:4])):
        refuse(name, model, "it goes on from what it has read otherwise than it reads it at once")
    head = model.get_output_embeddings()
    plain = type(head) is nn.Linear and near(head(states).float(), own[0])
    if attention.shareable(model) and not _packs(model, rows[0], states):
        attention.forgo(model)
    return Verdict(plain, near(_behind_gap(backbone, rows[0]), own[0, 2:3]))


def _through(backbone: Tried, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Logits of a padded batch, of what goes on from it, and the first row's states; None where states do not agree."""
    at, last = torch.tensor([1, 2], device=rows.device), torch.tensor([0], device=rows.device)
    there = torch.tensor([[False, True, True], [True, True, True]], device=rows.device)
    padded = torch.stack([torch.cat([rows[0, 3:], rows[0, :2]]), rows[1, :3]])
    first = backbone.run(padded, there, logits_at=at, hidden=True)
    cache = first.cache
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([0, 3], device=rows.device))
    there = torch.cat([there, there[:, 2:]], 1)
    third = backbone.run(rows[:, 2:3], there, cache=cache, logits_at=last, hidden=True)
    there = torch.cat([there, there[:, 2:3]], 1)
    fourth = backbone.run(rows[:, 3:], there, cache=third.cache, logits_at=last, hidden=True)
    states = backbone.run(rows[:1], torch.ones(1, 4, dtype=torch.bool, device=rows.device)).hidden[0]
    beside = torch.cat([first.hidden[0, 1:], third.hidden[0], fourth.hidden[0]])
    if beside.shape != states.shape or not (beside - states).norm() <= 0.1 * states.norm():
        return None
    return first.logits.float(), third.logits.float(), fourth.logits.float(), states


def _behind_gap(backbone: Tried, row: Tensor) -> Tensor:
    """Logits of the third token behind the first two and many places that are masked."""
    there = torch.tensor([[True, True, *[False] * GAP, True]], device=row.device)
    cache = backbone.run(row[None, :2], there[:, :2]).cache
    rest = torch.cat([row[:1].expand(GAP, -1), row[2:3]])[None]
    return backbone.run(rest, there, cache=cache, logits_at=torch.tensor([GAP], device=row.device)).logits[0].float()


class _Nearness:
    """Whether logits differ by rounding: by far less than they would without what stands before."""

    def __init__(self, backbone: Tried, own: Tensor):
        dtype = backbone.table.dtype
        rough = dtype == torch.float32 and backbone.device.type != "cpu"  # where products may be rounded to 10 bits
        self.rounding = 16 * (1e-3 if rough else torch.finfo(dtype).eps)
        self.context = float((own[0, 2] - own[1, 0]).norm())

    def __call__(self, found: Tensor, wanted: Tensor) -> bool:
        gap = (found - wanted).norm(dim=-1)
        return bool((gap <= 0.1 * self.context + self.rounding * wanted.norm(dim=-1)).all())


def _packs(model: Any, row: Tensor, states: Tensor) -> bool:
    """Whether packed rows have the states that the model's own attention gives."""
    there = torch.ones(2, dtype=torch.bool, device=row.device)
    try:
        read = [[layers] for layers in packing.read_rows(model, [row[:2]])]
        found = packing.states(model, [row[2:]], [there], read)
    except Exception:  # whatever a model of another kind stumbles over, transformers' own way is left
        return False
    own, rounding = states[2:], torch.finfo(row.dtype).eps if row.device.type == "cpu" else 1e-2
    alone = packing.states(model, [row[2:]], [there], [[]])  # without what stands before
    return bool((found - own).norm() <= 0.1 * (alone - own).norm() + 16 * rounding * own.norm())


def window(model: Any) -> int | None:
    """Positions that the model was made for; None where it says nothing of it."""
    config = model.config.get_text_config(decoder=True)
    sizes = (getattr(config, name, None) for name in WINDOWS)
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def is_bounded(model: Any) -> bool:
    """Whether the model has a table with a row for each position of its window, and nothing for those beyond."""
    size, inputs = window(model), model.get_input_embeddings()
    if size is None:
        return False
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m is not inputs]
    tables += [buffer for buffer in model.buffers() if buffer.ndim == 2]
    return any(size <= len(table) <= size + OFFSETS for table in tables)


def refuse(name: str, model: Any, why: str) -> NoReturn:
    raise ValueError(f"backbone {name!r} ({type(model).__name__}) cannot be used here: {why}; {USABLE}")


def _told(error: Exception) -> str:
    return f"{type(error).__name__} ({' '.join(str(error).split())[:100]})"
