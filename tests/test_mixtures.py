"""Mixtures of words: limits, noise, golden numbers."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from workbench.backbone import Decoding
from workbench.backbone.decoding import nucleus
from workbench.methods.mixtures import disturbed, gumbel_softmax, likely, mixed

P = torch.tensor([[0.05, 0.5, 0.3, 0.15]])  # in no order


def test_limits_hold_one_after_the_other():
    """(.5, .3, .15, .05), top_k 3, top_p .82 -> (.625, .375): top_p of what top_k leaves; jointly it would be three."""
    tokens, weights = likely(P, Decoding(1, 1.0, top_p=0.82, top_k=3), 3)
    torch.testing.assert_close(weights, torch.tensor([[0.625, 0.375, 0.0]]))
    assert tokens.tolist() == [[1, 2, 3]]
    assert likely(P, Decoding(1, 1.0, top_p=0.82), 4)[1].count_nonzero() == 3
    _, weights = likely(P, Decoding(1, 1.0, min_p=0.31), 4)  # of the largest: .155 and more stay
    torch.testing.assert_close(weights, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    _, weights = likely(P, Decoding(1, 1.0), 3)  # the n largest, renormalised
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.3, 0.15]]) / 0.95)


def test_only_the_likeliest_are_sorted_and_that_changes_nothing():
    """As plain filters over the whole vocabulary do it, in the published order."""
    p = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)
    for limits in (
        Decoding(1, 1.0, top_p=0.8, top_k=7, min_p=0.05),
        Decoding(1, 1.0, top_p=0.9),
        Decoding(1, 1.0, top_k=3),
    ):
        tokens, weights = likely(p, limits, 5)
        for row, ids, w in zip(p, tokens, weights, strict=True):
            q = row.clone()
            if limits.top_k:
                q[row.argsort(descending=True)[limits.top_k :]] = 0
                q = q / q.sum()
            order = q.argsort(descending=True)
            before = q[order].cumsum(0) - q[order]
            q[order[before >= limits.top_p]] = 0
            q = q / q.sum()
            q[q < limits.min_p * q.max()] = 0
            best = q.argsort(descending=True)[:5]
            expected = torch.zeros_like(q).index_put((best,), q[best] / q[best].sum())
            found = torch.zeros_like(q).index_put((ids,), w)
            torch.testing.assert_close(found, expected)


def test_the_heaviest_always_stays():
    assert nucleus(P.sort(descending=True).values, Decoding(1, 1.0, top_p=1e-9, min_p=1.0)).item() == 1


@pytest.mark.parametrize(
    ("temperature", "expected"), [(0.5, (0.3680, 0.2220, 0.4100)), (1.0, (0.3531, 0.2742, 0.3727))]
)
def test_gumbel_softmax_golden(temperature, expected):
    weights, noise = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.0, 1.0, 2.0]])
    torch.testing.assert_close(
        gumbel_softmax(weights, noise, temperature)[0], torch.tensor(expected), atol=5e-5, rtol=0
    )


def rngs(count: int, start: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(start + k) for k in range(count)]


@pytest.mark.parametrize(("noise", "amount"), [("gumbel", 0.5), ("dirichlet", 1.0), ("dirichlet", 1e-3)])
def test_noise_leaves_weights_that_sum_to_one_and_zeros_at_zero(noise, amount):
    weights = torch.tensor([[0.7, 0.3, 0.0]]).repeat(200, 1)
    found = disturbed(weights, noise, amount, rngs(200))
    assert (found >= 0).all()
    assert (found[:, 2] == 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(200))
    assert found[:, 0].std() > 0.1
    torch.testing.assert_close(disturbed(weights[:3], noise, amount, rngs(3)), found[:3])  # each row has its own


def test_dirichlet_noise_has_the_mean_and_variance_of_its_distribution():
    alpha, w = 3.0, torch.tensor([0.6, 0.3, 0.1])
    found = disturbed(w.repeat(20_000, 1), "dirichlet", alpha, [np.random.default_rng(k) for k in range(20_000)])
    torch.testing.assert_close(found.mean(0), w, atol=0.01, rtol=0)
    torch.testing.assert_close(found.var(0), w * (1 - w) / (alpha + 1), atol=0.005, rtol=0)
    still = disturbed(w[None], "dirichlet", 1e20, rngs(1))
    torch.testing.assert_close(still[0], w)


def test_gumbel_noise_without_temperature_draws_by_the_weights():
    w = torch.tensor([0.6, 0.3, 0.1])
    found = disturbed(w.repeat(3000, 1), "gumbel", 1e-6, rngs(3000))
    assert found.amax(-1).min() > 0.99
    assert chisquare(torch.bincount(found.argmax(-1)).numpy(), [1800, 900, 300]).pvalue > 1e-3


def test_one_word_is_its_embedding_bit_for_bit(tiny):
    backbone = tiny()
    tokens, weights = torch.tensor([[9, 4, 7]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.equal(mixed(backbone, tokens, weights)[0], backbone.table[9])
