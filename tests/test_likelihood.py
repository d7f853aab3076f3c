"""Rows with attention and positions of their own: packed, padded and by the model's own logits the same likelihood.

Against one full pass of each row by itself, with the mask as transformers takes it.
"""

import pytest
import torch
from test_generation import FAMILIES
from torch import Tensor
from torch.nn import functional as F

from workbench.backbone import Backbone, packing
from workbench.backbone.likelihood import UNLABELLED, states, token_losses

U = UNLABELLED
LABELS = [torch.tensor([U, U, 9, U, 10, 11, U]), torch.tensor([U, 5, U, U]), torch.tensor([U, U, U])]
POSITIONS = [torch.tensor([0, 1, 2, 2, 3, 3, 4]), torch.tensor([0, 1, 5, 2]), torch.tensor([3, 4, 5])]


@pytest.fixture(params=FAMILIES)
def backbone(request, tiny) -> Backbone:
    found = tiny(request.param).double()
    found.model.requires_grad_(True)
    return found


def rows(backbone: Backbone) -> list[Tensor]:
    ids = [torch.arange(20 + 9 * k, 20 + 9 * k + len(own)) for k, own in enumerate(LABELS)]
    return [backbone.embed(own) for own in ids]


def reads() -> list[Tensor]:
    """Causal but for some places that few read, as the masks of compressed chains are."""
    found = [torch.ones(len(own), len(own), dtype=torch.bool).tril() for own in LABELS]
    found[0][4:, 2] = False
    found[0][5, :4] = False
    found[1][3, 1:3] = False
    return found


def alone(backbone: Backbone, row: Tensor, own: Tensor, positions: Tensor):
    mask = torch.zeros(1, 1, *own.shape, dtype=row.dtype).masked_fill(~own, torch.finfo(row.dtype).min)
    return backbone.model(
        inputs_embeds=row[None], attention_mask=mask, position_ids=positions[None], output_hidden_states=True
    )


WAYS = {"packed": {}, "padded": {"padded": True}, "full_logits": {"full_logits": True}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("own", [True, False], ids=["own", "causal"])
def test_losses_and_gradients_are_those_of_each_row_by_itself(backbone, way, own):
    backbone.padded, backbone.full_logits = (name in WAYS[way] for name in ("padded", "full_logits"))
    given = {"reads": reads(), "positions": POSITIONS} if own else {}
    causal = [torch.ones(len(one), len(one), dtype=torch.bool).tril() for one in LABELS]
    squares, places = (reads(), POSITIONS) if own else (causal, [torch.arange(len(one)) for one in LABELS])
    expected = []
    for row, square, place, labels in zip(rows(backbone), squares, places, LABELS, strict=True):
        logits = alone(backbone, row, square, place).logits[0, :-1].float()
        expected.append(F.cross_entropy(logits, labels[1:], reduction="none")[labels[1:] != U])
    found = token_losses(backbone, rows(backbone), LABELS, **given)
    assert [len(one) for one in found] == [3, 1, 0]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    learned = list(backbone.model.parameters())  # table and head among them, tied or not
    ours, theirs = (torch.autograd.grad(torch.cat(list(x)).sum(), learned) for x in (found, expected))
    assert any(bool(g.abs().sum() > 0) for g in theirs)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_states_are_those_of_each_row_by_itself_and_are_packed(backbone, monkeypatch):
    packed, padded = states(backbone, rows(backbone), reads=reads(), positions=POSITIONS), []
    for row, square, place, found in zip(rows(backbone), reads(), POSITIONS, packed, strict=True):
        expected = alone(backbone, row, square, place).hidden_states[-1][0]
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    backbone.padded = True
    monkeypatch.setattr(packing, "states", None)
    padded = states(backbone, rows(backbone), reads=reads(), positions=POSITIONS)
    torch.testing.assert_close(padded, packed, atol=1e-9, rtol=1e-9)


def test_a_head_is_applied_where_labels_are_alone(backbone):
    seen = []
    linear = F.linear

    def counted(states, weight, bias=None):
        seen.append(len(states)) if weight.shape[0] == len(backbone.table) else None
        return linear(states, weight, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "linear", counted)
        token_losses(backbone, rows(backbone), LABELS, reads=reads(), positions=POSITIONS)
    assert seen == [4]


def test_labels_must_fit_their_rows(backbone):
    with pytest.raises(ValueError, match="row 1 has 4 places and 3 labels, or one at the first"):
        token_losses(backbone, rows(backbone), [LABELS[0], LABELS[2], LABELS[2]])
