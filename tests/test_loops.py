"""Latent loops against a plain restatement: one row at a time, no cache, everything computed again for each thought."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.backbone import Backbone
from workbench.backbone.checkpointing import checkpointed
from workbench.methods.base import Prompt
from workbench.methods.loops import LATENT, UNLABELLED, Made, State, fill, unroll
from workbench.tasks import Example

FAMILIES = ("qwen3", "llama", "gpt2")
L, U = LATENT, UNLABELLED


def mean_word(backbone: Backbone) -> Callable[[State], Made]:
    """Half the state, half the expected embedding: both inputs of a step matter, and the table is in its gradient."""

    def step(state: State) -> Made:
        expected = state.logits.softmax(-1) @ backbone.table
        return Made(0.5 * state.hidden + 0.5 * expected, signals={"peak": state.logits.amax(-1)})

    return step


def plain_states(backbone: Backbone, embeds: Tensor, **given: Any) -> SimpleNamespace:
    """Last state and logits of one row [position, feature], by one full pass without a cache."""
    out = backbone.model(inputs_embeds=embeds[None], output_hidden_states=True, use_cache=False, **given)
    return SimpleNamespace(hidden=out.hidden_states[-1][0], logits=out.logits[0])


def plain_fill(backbone: Backbone, row: Tensor, step: Callable[[State], Made]) -> Tensor:
    """The inputs of one row, each latent place from a full pass over all before it."""
    embeds, number = backbone.embed(row[:1]), 0
    for token in row[1:]:
        if token == LATENT:
            found = plain_states(backbone, embeds)
            rows = torch.tensor([0])
            new = step(State(found.hidden[-1:], found.logits[-1:], rows, torch.tensor([number]))).vector
            number += 1
        else:
            new = backbone.embed(token[None])
        embeds = torch.cat([embeds, new])
    return embeds


ROWS = [  # latent places alone, in a run, interleaved, at the end; a row without any
    torch.tensor([7, 8, L, 9, L, L, 10, 11]),
    torch.tensor([5, 6, 20, 21, L, 6, 11]),
    torch.tensor([30, 31, 32]),
    torch.tensor([12, L, L, L]),
]
LABELS = [
    torch.tensor([U, U, U, 9, U, U, 10, 11]),
    torch.tensor([U, 6, U, U, 3, 6, 11]),
    torch.tensor([U, U, 32]),
    torch.tensor([U, U, U, 17]),
]


def plain_loss(backbone: Backbone, step: Callable[[State], Made]) -> Tensor:
    losses = []
    for row, labels in zip(ROWS, LABELS, strict=True):
        logits = plain_states(backbone, plain_fill(backbone, row, step)).logits
        losses.append(F.cross_entropy(logits[:-1], labels[1:], ignore_index=U))
    return torch.stack(losses)


def gradients(backbone: Backbone, loss: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in backbone.model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


# ---------------------------------------------------------------------------------------------------------------- fill


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_filled_rows_have_the_loss_and_gradients_of_plain_passes(tiny, family, attention):
    backbone = tiny(family)
    backbone.model.requires_grad_(True).set_attn_implementation(attention)
    step = mean_word(backbone)
    filled = fill(backbone, ROWS, step, labels=LABELS)
    expected = plain_loss(backbone, step)
    torch.testing.assert_close(filled.losses(), expected, atol=1e-5, rtol=1e-5)
    for line, mask, row in zip(filled.embeds, filled.mask, ROWS, strict=True):
        torch.testing.assert_close(line[mask], plain_fill(backbone, row, step), atol=1e-5, rtol=1e-5)
    ours, theirs = gradients(backbone, filled.losses().mean()), gradients(backbone, expected.mean())
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


def test_gradients_run_through_the_chain(tiny):
    """Cut the chain, and the loss stays while the gradient is another: both thoughts and their keys carry it."""
    backbone = tiny()
    backbone.model.requires_grad_(True)
    step = mean_word(backbone)
    whole, cut = (
        fill(backbone, ROWS, chosen, labels=LABELS).losses().mean()
        for chosen in (step, lambda state: Made(step(state).vector.detach()))
    )
    torch.testing.assert_close(whole, cut)
    one, other = gradients(backbone, whole), gradients(backbone, cut)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (one[name] - other[name]).norm() > 0.05 * one[name].norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_mates_and_padding_change_no_filled_row(tiny, family):
    backbone = tiny(family)
    step = mean_word(backbone)
    together = fill(backbone, ROWS, step, labels=LABELS)
    for k, (row, labels) in enumerate(zip(ROWS, LABELS, strict=True)):
        alone = fill(backbone, [row], step, labels=[labels])
        torch.testing.assert_close(alone.losses()[0], together.losses()[k], atol=1e-5, rtol=1e-5)
        ours, theirs = together.embeds[k][together.mask[k]], alone.embeds[0][alone.mask[0]]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_first_thoughts_share_a_column_and_passes_are_few(tiny, monkeypatch):
    backbone, widths = tiny(), []
    run = Backbone.run
    monkeypatch.setattr(
        Backbone,
        "run",
        lambda self, embeds, *given, **more: (widths.append(embeds.shape[1]), run(self, embeds, *given, **more))[1],
    )
    rows = [torch.tensor([*range(10, 10 + n), L, L, L, 40, 41]) for n in (3, 9, 6)]
    filled = fill(backbone, rows, mean_word(backbone), labels=[torch.where(row == 41, row, U) for row in rows])
    assert widths == [9, 1, 1, 3]  # the prefix, two thoughts, and the third with all that follows
    assert filled.latent.nonzero()[:, 1].unique().tolist() == [9, 10, 11]
    assert filled.columns.tolist() == [12]
    assert filled.logits is not None
    assert filled.logits.shape == (3, 1, len(backbone.table))


def test_without_labels_nothing_is_read_behind_the_last_thought(tiny):
    filled = fill(tiny(), ROWS[:2], mean_word(tiny()))
    assert filled.logits is None
    with pytest.raises(ValueError, match="filled without labels"):
        filled.losses()


def test_no_table_row_is_read_for_a_latent_place(tiny):
    """The id that stands at a latent place in the padded rows is looked up and thrown away."""
    backbone = tiny("llama")  # whose output head is another table
    backbone.model.requires_grad_(True)
    loss = fill(backbone, ROWS, lambda state: Made(state.hidden), labels=LABELS).losses().sum()
    table = torch.autograd.grad(loss, backbone.table)[0].abs().sum(1)
    read = {int(token) for row in ROWS for token in row if token >= 0}
    assert {int(row) for row in table.nonzero()} <= read
    assert table[9] > 0


def test_a_step_is_told_rows_and_numbers(tiny):
    told = []

    def step(state: State) -> Made:
        told.append((state.rows.tolist(), state.number.tolist()))
        return Made(state.hidden)

    fill(tiny(), ROWS, step)
    assert told == [([0, 1, 3], [0, 0, 0]), ([0, 3], [1, 1]), ([0, 3], [2, 2])]  # a pass for each, not for each place


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_may_say_who_reads_whom(tiny, family):
    """Causal attention spelled out is causal; another one differs, and is what one pass over the filled row gives."""
    backbone = tiny(family)
    step = mean_word(backbone)
    causal = [torch.ones(len(row), len(row), dtype=torch.bool).tril() for row in ROWS]
    filled = fill(backbone, ROWS, step, labels=LABELS)
    spelled = fill(backbone, ROWS, step, labels=LABELS, reads=causal)
    torch.testing.assert_close(spelled.losses(), filled.losses(), atol=1e-5, rtol=1e-5)
    blind = [square.clone() for square in causal]
    blind[0][6:, :2] = False
    positions = [torch.arange(len(row)) for row in ROWS]
    positions[0][6:] -= 2
    own = fill(backbone, ROWS, step, labels=LABELS, reads=blind, positions=positions)
    assert (own.losses()[0] - filled.losses()[0]).abs() > 1e-3
    torch.testing.assert_close(own.losses()[1:], filled.losses()[1:], atol=1e-5, rtol=1e-5)
    embeds = own.embeds[0][own.mask[0]]
    mask = torch.zeros(1, 1, *blind[0].shape).masked_fill(~blind[0], torch.finfo(torch.float32).min)
    logits = plain_states(backbone, embeds, attention_mask=mask, position_ids=positions[0][None]).logits
    expected = F.cross_entropy(logits[:-1], LABELS[0][1:], ignore_index=U)
    torch.testing.assert_close(own.losses()[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient_of_a_chain(tiny, family):
    backbone = tiny(family).double()
    backbone.model.requires_grad_(True)

    def step(state: State) -> Made:
        return Made(state.hidden + state.logits.softmax(-1).to(backbone.table.dtype) @ backbone.table)

    plain = gradients(backbone, fill(backbone, ROWS, step, labels=LABELS).losses().mean())
    with checkpointed(backbone.model):
        found = gradients(backbone, fill(backbone, ROWS, step, labels=LABELS).losses().mean())
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("row", "labels"),
    [(torch.tensor([L, 5]), torch.tensor([U, U])), (torch.tensor([4, 5]), torch.tensor([4, U]))],
)
def test_nothing_can_be_made_or_predicted_before_the_first_token(tiny, row, labels):
    with pytest.raises(ValueError, match="row 1 is empty or begins with a latent or labelled place"):
        fill(tiny(), [torch.tensor([4, 5]), row], mean_word(tiny()), labels=[torch.tensor([U, U]), labels])


# -------------------------------------------------------------------------------------------------------------- unroll


def prompts(*lengths: int) -> list[Prompt]:
    none = torch.zeros(0, dtype=torch.long)
    return [Prompt(Example(f"e{n}", "q", (), "1"), torch.arange(6, 6 + n), none, none, none, (), none) for n in lengths]


@pytest.mark.parametrize("family", FAMILIES)
def test_thoughts_are_those_of_plain_passes_and_of_filled_rows(tiny, family):
    backbone = tiny(family)
    step, given = mean_word(backbone), prompts(5, 9, 7)
    thoughts = unroll(backbone, given, step, 4)
    assert thoughts.vectors.shape == (3, 1, 4, backbone.width)
    assert thoughts.mask.all()
    for k, p in enumerate(given):
        row = torch.cat([p.before, torch.full((4,), L)])
        torch.testing.assert_close(thoughts.vectors[k, 0], plain_fill(backbone, row, step)[-4:], atol=1e-5, rtol=1e-5)
    filled = fill(backbone, [torch.cat([p.before, torch.full((4,), L)]) for p in given], step)
    torch.testing.assert_close(filled.embeds[:, -4:], thoughts.vectors[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_stops_by_its_own_rule_whatever_its_batch_mates_do(tiny, family):
    backbone, given, limits = tiny(family), prompts(5, 9, 7, 6), torch.tensor([2, 0, 4, 9])
    step = mean_word(backbone)

    def stop(state: State, made: Made) -> Tensor:
        return state.number >= limits[state.rows]

    thoughts = unroll(backbone, given, step, 5, stop)
    assert thoughts.vectors.shape[2] == 5
    assert thoughts.mask[:, 0].sum(1).tolist() == [2, 0, 4, 5]
    assert (thoughts.vectors[~thoughts.mask] == 0).all()
    assert thoughts.signals["peak"].isnan().equal(~thoughts.mask)
    for k, (p, limit) in enumerate(zip(given, limits.tolist(), strict=True)):
        alone = unroll(backbone, [p], step, min(limit, 5))
        torch.testing.assert_close(alone.vectors[0, 0], thoughts.vectors[k, 0, : min(limit, 5)], atol=1e-5, rtol=1e-5)


def test_when_all_end_at_once_there_are_no_thoughts_but_their_signals_have_names(tiny):
    thoughts = unroll(tiny(), prompts(5, 3), mean_word(tiny()), 5, lambda state, _: state.rows >= 0)
    assert thoughts.vectors.shape[:3] == (2, 1, 0)
    assert thoughts.signals["peak"].shape == (2, 1, 0)
    assert unroll(tiny(), prompts(5), mean_word(tiny()), 0).mask.shape == (1, 1, 0)


def test_paths_go_their_own_ways_from_one_read(tiny):
    backbone = tiny()

    def step(state: State) -> Made:
        token = 10 + state.rows  # rows are a question's paths, one after the other
        return Made(backbone.embed(token), token, mixture=(token[:, None], torch.ones(len(token), 1)))

    thoughts = unroll(backbone, prompts(5, 8), step, 3, paths=2)
    assert thoughts.tokens is not None
    assert thoughts.tokens[:, :, 0].tolist() == [[10, 11], [12, 13]]
    assert thoughts.mixture is not None
    assert thoughts.mixture.tokens.shape == (2, 2, 3, 1)
    torch.testing.assert_close(thoughts.vectors, backbone.embed(thoughts.tokens))


def test_the_question_keeps_no_graph_for_a_frozen_backbone(tiny):
    backbone = tiny()
    scale = torch.ones((), requires_grad=True)

    def step(state: State) -> Made:
        return Made(scale * state.hidden)

    assert unroll(backbone, prompts(4), step, 3).vectors.requires_grad
    with torch.no_grad():
        assert not unroll(backbone, prompts(4), step, 3).vectors.requires_grad
    backbone.model.requires_grad_(True)
    thoughts = unroll(backbone, prompts(4), lambda state: Made(state.hidden), 2).vectors
    assert torch.autograd.grad(thoughts.sum(), backbone.table)[0].abs().sum() > 0
