"""Latent-SFT's superpositions: which words and how heavy, what of a vector is learned, divergence and noise."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.backbone import Backbone
from workbench.methods.latent_sft import divergence, divergences, noised, superposed
from workbench.methods.mixtures import mixed


def wide(tiny, family: str = "qwen3") -> Backbone:
    backbone = tiny(family)
    backbone.model.double()
    return backbone


def test_a_superposition_of_all_words_is_the_expected_word(tiny):
    backbone = wide(tiny)
    logits = torch.randn(3, len(backbone.table), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens, weights = superposed(logits, None)
    torch.testing.assert_close(mixed(backbone, tokens, weights), logits.softmax(-1) @ backbone.table)
    tokens, weights = superposed(logits, 4)
    chosen = torch.full_like(logits, -torch.inf).scatter(1, tokens, logits.gather(1, tokens))
    torch.testing.assert_close(mixed(backbone, tokens, weights), chosen.softmax(-1) @ backbone.table)
    sharp = 1e4 * F.one_hot(torch.tensor([7]), len(backbone.table)).double()
    assert torch.equal(mixed(backbone, *superposed(sharp, 10)), backbone.table[7:8])


def test_gradients_run_through_weights_not_through_embeddings(tiny):
    backbone = wide(tiny)
    backbone.model.requires_grad_(True)
    logits = torch.randn(3, len(backbone.table), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    tokens, weights = superposed(logits, 4)
    mixed(backbone, tokens, weights).square().sum().backward()
    assert backbone.table.grad is None
    assert logits.grad is not None
    reached = logits.grad.abs() > 1e-12
    assert torch.equal(reached, torch.zeros_like(reached).scatter(1, tokens, True))


def test_divergence_is_that_of_the_whole_vocabulary():
    logits, tokens = torch.tensor([[2.0, 1, 0, -1, 0.5]]).double(), torch.tensor([[0, 1, 4]])
    weights = torch.tensor([[0.6, 0.3, 0.1]]).double()
    assert divergence(logits, tokens, weights).item() == pytest.approx(0.12649, abs=5e-6)
    torch.testing.assert_close(divergence(logits, tokens, 0.9 * weights), divergence(logits, tokens, weights))
    everything, order = logits.softmax(-1), torch.arange(5)[None]
    assert divergence(logits, order, everything).item() == pytest.approx(0, abs=1e-12)


def test_divergences_in_pieces_are_the_same():
    chance = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(6, 11).double()
    states = torch.randn(7, 6, dtype=torch.float64, generator=chance)
    tokens, weights = superposed(torch.randn(7, 11, dtype=torch.float64, generator=chance), 3)
    found = []
    for piece in (2**26, 4 * 11 * 2):
        own = states.clone().requires_grad_()
        head.zero_grad()
        values = divergences(own, tokens, weights, head, piece)
        values.square().sum().backward()
        found.append((values.detach(), own.grad, head.weight.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(found[0][0], divergence(head(states), tokens, weights).detach())


def gumbels(rows: int, columns: int) -> Tensor:
    return (
        -torch.empty(rows, columns, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(0)).log()
    )


def test_noise_has_its_published_mean():
    """E[q_1] of two labels, without the clip and with it (measured from the formula)."""
    for heavy, clipped in ((0.9, 0.775), (0.5, 0.38)):
        weights = torch.tensor([heavy, *[(1 - heavy) / 9] * 9]).double()
        found = noised(weights.expand(100_000, -1), None, gumbels(100_000, 10))[:, 0].mean().item()
        assert found == pytest.approx(clipped, abs=0.01)
        torch.testing.assert_close(noised(weights[None], None, gumbels(1, 10), scale=0.0)[0], weights)


def test_noise_never_makes_the_end_the_heaviest_word():
    weights, tokens = torch.tensor([0.5, 0.3, 0.2]).double().expand(2000, -1), torch.tensor([3, 8, 5]).expand(2000, -1)
    free = noised(weights, tokens, gumbels(2000, 3))
    assert (free.argmax(1) == 1).any()
    capped = noised(weights, tokens, gumbels(2000, 3), end=8)
    assert not (capped.argmax(1) == 1).any()
    same = free.argmax(1) != 1
    torch.testing.assert_close(capped[same], free[same], atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(capped.sum(1), torch.ones(2000).double())
