"""Variants of LTA-Thinker's losses: what holds the thoughts to the question, and which step is the positive one."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from lta_plain import positive as nearest
from lta_plain import same_losses

from workbench.methods import Prompt, build
from workbench.methods.lta_thinker import (
    LTAThinkerConfig,
    alignment_loss,
    cosine_alignment,
    focus_loss,
    nearest_step,
    positive_step,
    vocabulary_alignment,
)
from workbench.tasks import Example, load_task

FAMILIES = ("qwen3", "llama", "gpt2")
RULES = ("answer", "middle", "last", "random", "oracle")


@pytest.fixture
def prompts(tiny):
    task = load_task("arith-shift")
    method = build("lta-thinker", tiny())
    return [method.render(e, task) for e in task.examples("train", 20)][5:11]


def made(count: int, name: str = "e", **labels: int | str) -> Prompt:
    """A prompt of `count` steps."""
    ids = torch.tensor([1])
    return Prompt(Example(name, "q", ("a",) * count, "1", labels), ids, ids, ids, ids, (ids,) * count, ids)


# ------------------------------------------------------------------------------------------------------------ alignment


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alignment", ["feature-kl", "cosine", "vocabulary-kl", "none"])
def test_losses_and_gradients_equal_the_formulas(tiny, prompts, alignment, family):
    config = LTAThinkerConfig(thoughts=3, alignment=alignment, alignment_weight=0.7, focus_weight=0.2)
    method = build("lta-thinker", tiny(family), config)
    same_losses(method, prompts)
    assert ("alignment" in method.loss(prompts).parts) == (alignment != "none")


def test_without_alignment_the_other_losses_are_the_same(tiny, prompts):
    off = build("lta-thinker", tiny(), LTAThinkerConfig(alignment="none"), seed=2).loss(prompts)
    zero = build("lta-thinker", tiny(), LTAThinkerConfig(alignment_weight=0.0), seed=2).loss(prompts)
    assert torch.equal(off.total, zero.total)
    assert {**off.parts, "alignment": zero.parts["alignment"]} == zero.parts


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_bounds(tiny, scale):
    backbone = tiny()
    draw = torch.Generator().manual_seed(0)
    question = scale * torch.randn(50, backbone.width, generator=draw)
    thoughts = scale * torch.randn(50, 3, backbone.width, generator=draw)
    same, opposite = question[:, None].repeat(1, 3, 1), -question[:, None].repeat(1, 3, 1)

    def words(question, thoughts):
        return vocabulary_alignment(question, thoughts, backbone.read_out)

    for loss in (alignment_loss, cosine_alignment, words):
        assert loss(question, thoughts).shape == (50,)
        assert loss(question, thoughts).min() > 0
        torch.testing.assert_close(loss(question, same), torch.zeros(50), atol=1e-5, rtol=0)
        assert torch.isfinite(loss(question, opposite)).all()
    assert cosine_alignment(question, thoughts).max() < 2
    torch.testing.assert_close(cosine_alignment(question, opposite), torch.full((50,), 2.0))
    # neither the direction nor the words of a vector depend on its length, its softmax over features does
    torch.testing.assert_close(cosine_alignment(question, 3 * thoughts), cosine_alignment(question, thoughts))
    if scale == 1.0:  # a norm's epsilon is felt by very short vectors
        torch.testing.assert_close(words(question, 3 * thoughts), words(question, thoughts), atol=1e-3, rtol=1e-3)
        assert (alignment_loss(question, 3 * thoughts) - alignment_loss(question, thoughts)).abs().max() > 1


def test_a_hand_computed_vocabulary_kl():
    """Two words: the logits are the vectors."""
    question, thought = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[[0.0, 0.0], [math.log(3.0), 0.0]]])
    found = vocabulary_alignment(question, thought, lambda vectors: vectors)
    against_even = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert found.item() == pytest.approx(against_even / 2)


def test_the_logits_of_one_thought_exist_at_a_time(tiny):
    """No read-out is of more than a vector per example, and what was read out is not kept for the backward pass."""
    backbone, sizes, kept = tiny(), [], []

    def read_out(vectors):
        sizes.append(tuple(vectors.shape))
        return backbone.read_out(vectors)

    question, thoughts = (torch.randn(4, *n, 32, requires_grad=True) for n in ((), (5,)))
    vocabulary = len(backbone.table)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        loss = vocabulary_alignment(question, thoughts, read_out).sum()
    forward = len(sizes)
    loss.backward()
    assert set(sizes) == {(4, 32)}
    assert forward == 6  # the question and five thoughts
    assert len(sizes) == 11  # the thoughts again
    wide = [shape for shape in kept if shape == (4, vocabulary)]
    assert 0 < len(wide) <= 6  # of the question, once per use, and of no thought
    assert thoughts.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------------------- read_out


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_out_what_goes_into_the_final_norm_gives_the_models_logits(tiny, family):
    backbone = tiny(family)
    norm = backbone.model.transformer.ln_f if family == "gpt2" else backbone.model.model.norm
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    ids = torch.arange(10, 17)[None]
    logits = backbone.model(ids).logits
    handle.remove()
    torch.testing.assert_close(backbone.read_out(seen[0]), logits)
    torch.testing.assert_close(backbone.read_out(seen[0][0, 3]), logits[0, 3])


def test_words_are_read_out_in_float32(tiny):
    backbone = tiny()
    backbone.model.bfloat16()
    assert backbone.read_out(torch.randn(2, 32)).dtype == torch.float32


def test_a_model_without_a_known_final_norm_is_named(tiny):
    backbone = tiny()
    backbone.model.model.last = backbone.model.model._modules.pop("norm")
    with pytest.raises(ValueError, match=r"\(Qwen3ForCausalLM\) has no final norm called norm or ln_f or .*, so"):
        backbone.read_out(torch.zeros(16))


# -------------------------------------------------------------------------------------------------------- positive step


def by_hand(rule):
    """The positive step of a prompt under a rule, in other words than the package's."""
    return {
        "answer": nearest,
        "middle": lambda method, p: {1: 0, 2: 1, 3: 1}[len(p.steps)],
        "last": lambda method, p: {1: 0, 2: 1, 3: 2}[len(p.steps)],
        "oracle": lambda method, p: p.example.labels["critical_step"],
        "random": lambda method, p: positive_step(p, "random"),
    }[rule]


@pytest.mark.parametrize("rule", RULES)
def test_the_positive_step_is_the_one_of_its_rule(tiny, prompts, rule):
    config = LTAThinkerConfig(thoughts=2, positive=rule, focus_weight=0.5, alignment_weight=0.1)
    same_losses(build("lta-thinker", tiny(), config), prompts, by_hand(rule))


def test_the_rules_differ_where_it_matters(tiny, prompts):
    """Else the test above would pass with one rule for all."""
    method = build("lta-thinker", tiny())
    chosen = {rule: tuple(by_hand(rule)(method, p) for p in prompts) for rule in RULES}
    assert len(set(chosen.values())) == len(RULES)
    focus = {rule: method_with(tiny, rule).loss(prompts).parts["focus"].item() for rule in RULES}
    assert len(set(focus.values())) == len(RULES)


def method_with(tiny, rule):
    return build("lta-thinker", tiny(), LTAThinkerConfig(positive=rule))


@pytest.mark.parametrize("rule", RULES)
def test_a_positive_depends_on_no_batch_mate_and_similarities_on_no_rule(tiny, prompts, rule):
    method = method_with(tiny, rule)
    apart = torch.stack([method.loss([p]).parts["focus"] for p in prompts]).mean()
    torch.testing.assert_close(method.loss(prompts).parts["focus"], apart, atol=1e-5, rtol=1e-5)
    ours, usual = method.step_similarities(prompts), build("lta-thinker", tiny()).step_similarities(prompts)
    assert all(torch.equal(ours[name].nan_to_num(9), usual[name].nan_to_num(9)) for name in usual)


def test_positive_steps_by_position():
    assert [positive_step(made(count), "middle") for count in range(7)] == [0, 0, 1, 1, 2, 2, 3]
    assert [positive_step(made(count), "last") for count in range(4)] == [0, 0, 1, 2]
    assert [positive_step(made(3, critical_step=step), "oracle") for step in range(3)] == [0, 1, 2]
    assert positive_step(made(0), "oracle") == positive_step(made(0), "random") == 0


def test_a_random_positive_is_fixed_by_the_examples_id_and_fair():
    drawn = [positive_step(made(3, f"e{k}"), "random") for k in range(3000)]
    assert drawn == [positive_step(made(3, f"e{k}"), "random") for k in range(3000)]
    assert all(abs(count - 1000) < 120 for count in Counter(drawn).values())  # 4.6 standard deviations
    assert set(drawn) == {0, 1, 2}


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({}, "no label 'critical_step'"),
        ({"critical_step": -1}, "label 'critical_step' -1"),
        ({"critical_step": 2}, "label 'critical_step' 2"),
        ({"critical_step": "first"}, "label 'critical_step' 'first'"),
    ],
    ids=str,
)
def test_an_oracle_without_a_critical_step_is_one_sentence(labels, found):
    sentence = (
        f"that the label 'critical_step' names, but example 'e' of 2 steps has {found}; use a task that labels it"
    )
    with pytest.raises(ValueError, match=sentence):
        positive_step(made(2, **labels), "oracle")


def test_the_oracle_asks_for_its_label_before_training(tiny, prompts):
    blank = [replace(p, example=replace(p.example, labels={})) for p in prompts]
    with pytest.raises(ValueError, match="has no label 'critical_step'"):
        method_with(tiny, "oracle").start(0, [*prompts, *blank])
    method_with(tiny, "oracle").start(0, prompts)
    method_with(tiny, "answer").start(0, blank)
    build("lta-thinker", tiny(), LTAThinkerConfig(positive="oracle", focus_weight=0.0)).start(0, blank)


@pytest.mark.parametrize("rule", RULES)
def test_examples_without_steps_have_nothing_to_focus_on(tiny, prompts, rule):
    bare = replace(prompts[0], steps=(), example=replace(prompts[0].example, steps=(), labels={}))
    method = method_with(tiny, rule)
    assert method.loss([bare]).parts["focus"] == 0
    mixed = method.loss([bare, prompts[1]]).parts["focus"]
    torch.testing.assert_close(mixed, method.loss([prompts[1]]).parts["focus"] / 2)


def test_focus_loss_bounds():
    """From 0 to 2 / temperature + log S; only differences of cosines count."""
    draw = torch.Generator().manual_seed(0)
    cosines = torch.rand(200, 4, generator=draw) * 2 - 1
    there = torch.arange(4) < torch.randint(1, 5, (200, 1), generator=draw)
    positive = nearest_step(torch.rand(200, 4, generator=draw), there)
    assert there[torch.arange(200), positive].all()
    loss = focus_loss(cosines, positive, there, 0.5)
    assert (loss >= 0).all()
    assert (loss <= 2 / 0.5 + there.sum(1).log()).all()
    assert (loss[there.sum(1) == 1] == 0).all()
    shifted = focus_loss(cosines + 0.3, positive, there, 0.5)
    torch.testing.assert_close(loss, shifted, atol=1e-5, rtol=1e-5)
