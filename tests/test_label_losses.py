"""Losses at labels only, piece by piece, are the plain cross-entropy of all logits, and so are their gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, Qwen3Config

from workbench.backbone.label_losses import is_plain, label_losses


@pytest.mark.parametrize("piece", [1, 4 * 11 * 3, 2**26], ids=["one label", "three labels", "all"])
@pytest.mark.parametrize("bias", [True, False])
def test_losses_and_gradients_are_those_of_all_logits_at_once(piece, bias):
    torch.manual_seed(0)
    head = nn.Linear(6, 11, bias=bias, dtype=torch.float64).requires_grad_(False)
    states = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)
    labels, weights = torch.randint(11, (8,)), torch.rand(8)
    plain = F.cross_entropy(head(states).float(), labels, reduction="none")
    (wanted,) = torch.autograd.grad((plain * weights).sum(), states)
    ours = label_losses(states, labels, head, piece)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-6)
    (found,) = torch.autograd.grad((ours * weights).sum(), states)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert not torch.equal(found[0] / weights[0], found[1] / weights[1])
    with torch.no_grad():
        assert torch.equal(label_losses(states, labels, head, piece), ours.detach())


def test_no_matrix_of_all_labels_and_words_exists(monkeypatch):
    sizes = []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda *given: sizes.append((found := linear(*given)).shape) or found)
    head = nn.Linear(4, 50, bias=False).requires_grad_(False)
    states = torch.randn(40, 4, requires_grad=True)
    label_losses(states, torch.zeros(40, dtype=torch.long), head, piece=4 * 50 * 16).sum().backward()
    assert [tuple(size) for size in sizes] == [(16, 50), (16, 50), (8, 50)]


@pytest.mark.parametrize("piece", [4 * 11 * 3, 2**26], ids=["three labels", "all"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_head_that_is_trained_gets_the_gradient_of_all_logits_at_once(piece, bias):
    torch.manual_seed(0)
    head = nn.Linear(6, 11, bias=bias, dtype=torch.float64)
    labels, weights = torch.randint(11, (8,)), torch.rand(8)
    for states in (torch.randn(8, 6, dtype=torch.float64, requires_grad=True), torch.randn(8, 6, dtype=torch.float64)):
        learned = [*head.parameters(), *([states] if states.requires_grad else [])]
        plain = F.cross_entropy(head(states).float(), labels, reduction="none")
        wanted = torch.autograd.grad((plain * weights).sum(), learned)
        ours = label_losses(states, labels, head, piece)
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-6)
        found = torch.autograd.grad((ours * weights).sum(), learned)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_pieces_of_a_trained_head_keep_no_logits():
    head, kept = nn.Linear(4, 50, bias=False), []
    states = torch.randn(40, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        label_losses(states, torch.zeros(40, dtype=torch.long), head, piece=4 * 50 * 16)
    assert max(kept) <= head.weight.numel()


def test_scaled_logits_are_left_to_the_model():
    head = nn.Linear(4, 5, bias=False)
    assert is_plain(head, Qwen3Config())
    assert is_plain(head, GPT2Config())
    scaled = Qwen3Config()
    scaled.final_logit_softcapping = 30.0
    assert not is_plain(head, scaled)
    assert not is_plain(nn.Sequential(head), Qwen3Config())
