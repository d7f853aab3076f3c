"""How likely labels are behind a prompt and rows of vectors: the loss that thoughts are trained with.

    mean_losses    rows behind prefixes that need no gradient, causal: a label at each of a row's last places
    token_losses   whole rows, each with its own attention and positions if it likes, labels at any places
    states         the same without labels: for an encoder, or losses of a method's own

Packed (see `packing`), behind the prefixes that a backbone has read (see `prefixes`), with losses at the labels alone
(see `label_losses`). Each has its plain way, which models of other kinds take too: rows padded on the left, prefixes
read anew, and the model's own logits at all columns where some row has a label.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from . import packing
from .attention import shareable, slides
from .label_losses import is_plain, label_losses
from .model import Backbone, pad

UNLABELLED = -100  # stands for a label where nothing is to be predicted


def mean_losses(
    backbone: Backbone,
    prefixes: Sequence[Int[Tensor, "_"]],
    rows: Sequence[Float[Tensor, "_ feature"]],
    there: Sequence[Bool[Tensor, "_"]],
    labels: Sequence[Int[Tensor, "_"]],
) -> Float[Tensor, "row"]:
    """Mean negative log-likelihood of each row's labels in nats, float32.

    Rows of vectors stand behind the prefixes, the same number behind each in turn; the last positions of a row tell
    its labels, one each. What is not `there` is not looked at. `Backbone.padded` and `Backbone.full_logits` choose the
    plain ways.
    """
    each = len(rows) // len(prefixes)
    backbone.admit(max(len(prefixes[k // each]) + len(row) for k, row in enumerate(rows)))
    packed = shareable(backbone.model) and not (backbone.padded or _own_logits(backbone))
    losses = (_packed if packed else _padded)(backbone, prefixes, rows, there, labels)
    counts = torch.tensor([len(own) for own in labels])
    owner = torch.arange(len(rows)).repeat_interleave(counts)  # made on the CPU: nothing waits for a GPU
    sums = losses.new_zeros(len(rows)).index_add(0, owner.to(losses.device), losses)
    return sums / counts.to(losses.device)


def states(
    backbone: Backbone,
    rows: Sequence[Float[Tensor, "_ feature"]],
    *,
    reads: Sequence[Bool[Tensor, "_ _"]] | None = None,
    positions: Sequence[Int[Tensor, "_"]] | None = None,
) -> tuple[Float[Tensor, "_ feature"], ...]:
    """States after the final norm of each row of vectors, by one pass over all of them.

    reads: per row who reads whom [place that reads, place that is read] (a place reads itself in any case); causal
    unless given. positions: per row, 0, 1, ... unless given.
    """
    lengths = [len(row) for row in rows]
    if shareable(backbone.model) and not backbone.padded:
        there = _everyone(rows, backbone) if reads is None else [one.to(backbone.device) for one in reads]
        places = None if positions is None else [one.to(backbone.device) for one in positions]
        return packing.states(backbone.model, rows, there, [[] for _ in rows], places).split(lengths)
    embeds, mask, places = _square(backbone, rows, reads, positions)
    found = backbone.run(embeds, mask, positions=places).hidden
    assert found is not None
    return tuple(row[:length] for row, length in zip(found, lengths, strict=True))


def token_losses(
    backbone: Backbone,
    rows: Sequence[Float[Tensor, "_ feature"]],
    labels: Sequence[Int[Tensor, "_"]],
    *,
    reads: Sequence[Bool[Tensor, "_ _"]] | None = None,
    positions: Sequence[Int[Tensor, "_"]] | None = None,
) -> tuple[Float[Tensor, "_"], ...]:
    """Negative log-likelihood of each row's labels in nats, in order, float32.

    labels: per place the id that stands there and is to be predicted by the place before it, `UNLABELLED` elsewhere.
    reads, positions: as in `states`. The output head is applied where labels are alone, and gets gradients.
    """
    for number, own in enumerate(labels):
        if len(own) != len(rows[number]) or (len(own) and own[0] != UNLABELLED):
            raise ValueError(f"row {number} has {len(rows[number])} places and {len(own)} labels, or one at the first")
    at = [(own != UNLABELLED).nonzero()[:, 0] for own in labels]
    wanted = torch.cat([own[place] for own, place in zip(labels, at, strict=True)]).to(backbone.device)
    counts = [len(place) for place in at]
    if _own_logits(backbone):
        embeds, mask, places = _square(backbone, rows, reads, positions)
        owner = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts))
        columns = torch.cat(at) - 1
        asked, which = columns.unique(return_inverse=True)
        logits = backbone.run(embeds, mask, positions=places, logits_at=asked.to(backbone.device)).logits
        assert logits is not None
        found = F.cross_entropy(logits[owner, which].float(), wanted, reduction="none")
        return found.split(counts)
    known = states(backbone, rows, reads=reads, positions=positions)
    before = [own[(place - 1).to(own.device)] for own, place in zip(known, at, strict=True)]
    return label_losses(torch.cat(before), wanted, backbone.model.get_output_embeddings()).split(counts)


def _everyone(rows: Sequence[Tensor], backbone: Backbone) -> list[Tensor]:
    return [torch.ones(len(row), dtype=torch.bool, device=backbone.device) for row in rows]


def _square(
    backbone: Backbone, rows: Sequence[Tensor], reads: Sequence[Tensor] | None, positions: Sequence[Tensor] | None
) -> tuple[Tensor, Bool[Tensor, "row 1 position key"], Int[Tensor, "row position"]]:
    """Rows padded on the right, who reads whom in them, and their positions; padding reads itself alone."""
    embeds, width = pad(rows, "right")[0], max(map(len, rows))
    mask = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    places = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        length = len(row)
        own = torch.ones(length, length, dtype=torch.bool).tril() if reads is None else reads[number].cpu()
        mask[number, :length, :length] |= own
        places[number, :length] = torch.arange(length) if positions is None else positions[number].cpu()
    return embeds, mask[:, None].to(backbone.device), places.to(backbone.device)


def _packed(
    backbone: Backbone,
    prefixes: Sequence[Tensor],
    rows: Sequence[Tensor],
    there: Sequence[Tensor],
    labels: Sequence[Tensor],
) -> Float[Tensor, "label"]:
    """Negative log-likelihood of every label of every row, one behind the other."""
    paths = len(rows) // len(prefixes)
    read = [one for one in backbone.prefixes.read(backbone, prefixes) for _ in range(paths)]
    states = packing.states(backbone.model, rows, there, read)
    ends = torch.tensor([len(row) for row in rows]).cumsum(0).tolist()
    places = torch.cat([torch.arange(end - len(own), end) for end, own in zip(ends, labels, strict=True)])
    wanted = torch.cat(list(labels)).to(states.device)
    return label_losses(states[places.to(states.device)], wanted, backbone.model.get_output_embeddings())


def _padded(
    backbone: Backbone,
    prefixes: Sequence[Tensor],
    rows: Sequence[Tensor],
    there: Sequence[Tensor],
    labels: Sequence[Tensor],
) -> Float[Tensor, "label"]:
    """The same from rows padded to one length, through the model's own attention."""
    device, paths = backbone.device, len(rows) // len(prefixes)
    # what is not there is left out: a window that slides counts places, whoever looks at them
    rows = [row if bool(own.all()) else row[own] for row, own in zip(rows, there, strict=True)]
    if slides(backbone.model) or not backbone.gaps:  # padding before a row would move its prefix away
        before = [one for one in backbone.embed_each(prefixes) for _ in range(paths)]
        rows = [torch.cat([read, row]) for read, row in zip(before, rows, strict=True)]
        cache, mask = None, pad(rows, "left")[1]
    else:
        ids, known = pad(prefixes, "left")
        known = known.to(device)
        with torch.set_grad_enabled(backbone.trains and torch.is_grad_enabled()):
            cache = backbone.run(backbone.embed(ids), known).cache
        cache.batch_repeat_interleave(paths)
        mask = torch.cat([known.repeat_interleave(paths, 0), pad(rows, "left")[1]], 1)
    embeds, counts = pad(rows, "left")[0], [len(own) for own in labels]
    owner = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)).to(device)
    columns = torch.cat([torch.arange(max(counts) - count, max(counts)) for count in counts]).to(device)
    wanted, first = torch.cat(list(labels)).to(device), embeds.shape[1] - max(counts)
    if _own_logits(backbone):
        at = torch.arange(first, embeds.shape[1], device=device)
        logits = backbone.run(embeds, mask, cache=cache, logits_at=at).logits
        assert logits is not None
        return F.cross_entropy(logits.float()[owner, columns], wanted, reduction="none")
    states = backbone.run(embeds, mask, cache=cache).hidden
    assert states is not None
    return label_losses(states[owner, first + columns], wanted, backbone.model.get_output_embeddings())


def _own_logits(backbone: Backbone) -> bool:
    """Whether the model's own logits are taken: they are asked for, or more than the output head's product."""
    if backbone.full_logits or not backbone.plain_logits:
        return True
    config = backbone.model.config.get_text_config(decoder=True)
    return not is_plain(backbone.model.get_output_embeddings(), config)
