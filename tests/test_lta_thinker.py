"""LTA-Thinker against numbers computed with the published modules, and against its formulas restated plainly."""

import math
from dataclasses import replace

import pytest
import torch
from lta_plain import same_losses
from torch.nn import functional as F

from workbench.methods import build
from workbench.methods.lta_thinker import (
    DEGENERATE,
    LTAThinkerConfig,
    ThoughtBlock,
    alignment_loss,
    focus_loss,
    is_degenerate,
    nearest_step,
)
from workbench.tasks import load_task

IDS = torch.tensor([[1, 2, 5, 3, 4, 5, 6, 5, 7], [2, 4, 5, 1, 5, 8, 9, 0, 0]])
MASK = torch.tensor([[1] * 9, [1] * 7 + [0] * 2], dtype=torch.bool)
STEPS = torch.tensor([[2, 3, 4, 8], [2, 3, 5, 0]])  # column 0 is the question; 0 = no step
ANSWERS = torch.tensor([[3, 7], [4, 0]])
THOUGHTS = torch.tensor([[6, 7], [5, 6]])
NAMES = (
    "self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight", "self_attn.out_proj.bias",
    "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias", "norm1.weight", "norm2.weight",
)  # fmt: skip


def waves(shape: tuple[int, ...], scale: float, shift: float) -> torch.Tensor:
    """scale sin(0.7 k + shift) over the elements, computed in float64."""
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(0.7 * k + shift)).float().reshape(shape)


@pytest.fixture
def published():
    """The block, projection and embedding table of the published vectors (H = 4, F = 6, vocabulary 10)."""
    block, projection = ThoughtBlock(4, 6, eps=1e-6), torch.nn.Linear(4, 4)
    own = dict(block.named_parameters())
    assert tuple(own) == NAMES  # names and order of the published file
    with torch.no_grad():
        for c, name in enumerate(NAMES, 1):
            own[name].copy_(waves(tuple(own[name].shape), 0.3, c) + name.startswith("norm"))
        projection.weight.copy_(waves((4, 4), 0.3, 11))
        projection.bias.copy_(waves((4,), 0.3, 12))
    return block, projection, waves((10, 4), 0.5, 0.1)


def losses(published, steps):
    """(focus, alignment) of the published example, gathered from the outputs as the published code does."""
    block, projection, table = published
    outputs = projection(block(table[IDS], MASK))
    rows = torch.arange(2)
    question, candidates = outputs[rows, steps[:, 0]], outputs[rows[:, None], steps[:, 1:]]
    there = steps[:, 1:] != 0
    answer = torch.stack([table[a[a != 0]].mean(0) for a in ANSWERS])
    to_answer = F.cosine_similarity(candidates, answer[:, None], dim=-1)
    to_question = F.cosine_similarity(candidates, question[:, None], dim=-1)
    focus = focus_loss(to_question, nearest_step(to_answer, there), there).mean()
    alignment = alignment_loss(question, outputs[rows[:, None], THOUGHTS]).mean()
    return focus, alignment, to_question, to_answer


def test_block_and_projection_equal_the_published_numbers(published):
    block, projection, table = published
    torch.testing.assert_close(
        table[1], torch.tensor([0.1196247, -0.2212602, -0.4580830, -0.4794621]), atol=1e-6, rtol=0
    )
    states = block(table[IDS], MASK)
    outputs = projection(states)

    def same(row: torch.Tensor, *numbers: float) -> None:
        torch.testing.assert_close(row, torch.tensor(numbers), atol=1e-5, rtol=0)

    same(states[0, 0], 0.0514009, -0.3934589, -1.0996016, -1.0185776)
    same(states[0, 1], -1.2852010, -0.4958043, 0.1753790, 0.9068899)
    for row in (2, 5, 7):
        same(states[0, row], 1.2612967, 0.3880477, -0.3153816, -0.9641970)
    same(states[0, 8], 0.9499334, 1.0441715, 0.4854226, -0.2963994)
    same(states[1, 0], -1.2827441, -0.5118297, 0.1912415, 0.8928174)
    for row in (2, 4):
        same(states[1, row], 1.2648541, 0.3735118, -0.2994013, -0.9748781)
    same(states[1, 5], -0.4973692, -0.6979389, -1.0944724, -0.5502551)
    same(states[1, 6], -0.7331793, 0.6211492, 1.0073974, 0.6347587)
    same(outputs[0, 0], -0.1872530, -0.1579634, 0.6213876, -0.2546855)
    same(outputs[0, 2], -0.7595294, 0.5150761, -0.0746416, 0.3839035)
    same(outputs[0, 6], 0.3389459, -0.5749910, 0.8810542, -0.3269852)
    same(outputs[0, 8], -0.7539880, 0.6895650, -0.4089977, 0.8394901)
    same(outputs[1, 0], 0.4675907, -0.4899532, 0.5921603, 0.1323814)
    same(outputs[1, 2], -0.7596976, 0.5149497, -0.0742353, 0.3832642)


def test_losses_and_gradients_equal_the_published_numbers(published):
    block, projection, _ = published
    focus, alignment, to_question, to_answer = losses(published, STEPS)
    expected = [[-0.3454592, 0.1536726, -0.3635004], [0.1686713, -0.0318115]]
    torch.testing.assert_close(to_answer[0], torch.tensor(expected[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(to_answer[1, :2], torch.tensor(expected[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(to_question[0], torch.tensor([0.7008457, -0.7057679, 0.9274560]), atol=1e-5, rtol=0)
    torch.testing.assert_close(to_question[1, :2], torch.tensor([-0.1097030, -0.5100289]), atol=1e-5, rtol=0)
    assert focus.item() == pytest.approx(8.2245064, abs=1e-5)
    assert alignment.item() == pytest.approx(0.2184743, abs=1e-5)
    for loss, norms in ((focus, (6.8623419, 0.1245412)), (alignment, (0.5722057, 0.0351434))):
        found = torch.autograd.grad(loss, [projection.weight, block.linear1.weight], retain_graph=True)
        assert [g.norm().item() for g in found] == pytest.approx(norms, rel=1e-4)


def test_the_published_edge_cases(published):
    _, projection, _ = published
    focus, _, to_question, _ = losses(published, torch.tensor([[2, 5, 7], [2, 4, 0]]))
    assert focus.item() == pytest.approx(math.log(2) / 2, abs=1e-6)
    gradient = torch.autograd.grad(focus, [projection.weight])[0]
    assert gradient.norm() < 1e-5
    assert is_degenerate(to_question, torch.tensor([[True, True], [True, False]]))
    assert losses(published, torch.tensor([[2, 3, 4, 8], [2, 0, 0, 0]]))[0].item() == pytest.approx(8.7647667, abs=1e-5)


def test_keeping_rows_computes_the_same_rows(published):
    block, _, table = published
    whole = block(table[IDS], MASK)
    keep = torch.tensor([[8, 1, 1], [3, 0, 6]])
    torch.testing.assert_close(block(table[IDS], MASK, keep), torch.stack([whole[0, keep[0]], whole[1, keep[1]]]))


@pytest.fixture
def prompts(tiny):
    task = load_task("arith-shift")
    method = build("lta-thinker", tiny())
    return [method.render(e, task) for e in task.examples("train", 12) if len(e.steps) != 2][:6]


@pytest.mark.parametrize("output_scale", [None, 1.0])
def test_losses_and_gradients_equal_the_formulas(tiny, prompts, output_scale):
    config = LTAThinkerConfig(thoughts=3, alignment_weight=0.3, focus_weight=0.2, output_scale=output_scale)
    same_losses(build("lta-thinker", tiny(), config), prompts)


def test_the_reference_preset_has_a_constant_focus_loss_and_says_so(tiny, prompts):
    method = build("lta-thinker", tiny(), replace(LTAThinkerConfig.reference(), projection_dtype="float32"))
    losses = method.loss(prompts)
    assert losses.parts["focus"].item() == pytest.approx(losses.parts["focus_log_steps"].item(), abs=1e-5)
    assert losses.warnings[DEGENERATE]
    gradient = torch.autograd.grad(losses.parts["focus"], [method.projection.weight], retain_graph=True)[0]
    assert gradient.norm() < 1e-4
    aligned = torch.autograd.grad(losses.parts["alignment"], [method.projection.weight])[0]
    assert aligned.norm() > 1e-3


def test_the_corrected_focus_loss_has_a_gradient_and_no_warning(tiny, prompts):
    method = build("lta-thinker", tiny())
    losses = method.loss(prompts)
    assert not losses.warnings[DEGENERATE]
    assert torch.autograd.grad(losses.parts["focus"], [method.projection.weight])[0].norm() > 1e-3


def test_only_the_leaky_generator_sees_gold_steps(tiny, prompts):
    other = [replace(p, steps=tuple(step.flip(0) + 1 for step in p.steps)) for p in prompts]
    for context, same in (("question", True), ("leaky", False)):
        method = build("lta-thinker", tiny(), LTAThinkerConfig(context=context, focus_weight=0.0))
        assert torch.equal(method.think(prompts).vectors, method.think(other).vectors)  # never at test time
        assert (method.loss(prompts).total == method.loss(other).total) == same


def test_slots_are_distinct_or_published_token_rows(tiny, prompts):
    backbone = tiny()
    thoughts = build("lta-thinker", backbone).think(prompts).vectors[:, 0]
    assert (thoughts[:, 0] - thoughts[:, 1]).abs().max() > 0.1
    config = LTAThinkerConfig(slots="token-ids", input_norm="none", output_scale=None, thoughts=2)
    method = build("lta-thinker", backbone, config)
    last = torch.arange(len(backbone.table))[-2:]  # this vocabulary is of no published family
    row = backbone.embed(torch.cat([prompts[0].question, method.turn_end, last]))[None]
    outputs = method.projection(method.block(row, torch.ones(row.shape[:2], dtype=torch.bool)))
    torch.testing.assert_close(method.think(prompts[:1]).vectors[0, 0], outputs[0, -2:])


def test_output_scale_sets_the_thoughts_rms(tiny, prompts):
    backbone = tiny()
    vectors = build("lta-thinker", backbone, LTAThinkerConfig(output_scale=2.0)).think(prompts).vectors
    wanted = 2 * backbone.table.square().mean().sqrt()
    torch.testing.assert_close(vectors.square().mean(-1).sqrt(), wanted.expand(vectors.shape[:-1]))
