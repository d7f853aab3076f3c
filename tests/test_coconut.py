"""Coconut: the published stage table, losses and gradients of plain passes, the copy that is trained, its controls."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn import functional as F

from workbench.backbone import Backbone, Decoding
from workbench.methods import Prompt, build
from workbench.methods.base import Stage
from workbench.methods.coconut import Coconut, CoconutConfig, planned
from workbench.methods.loops import LATENT, UNLABELLED
from workbench.tasks import Task, load_task

FAMILIES = ("qwen3", "llama", "gpt2")


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


def coconut(backbone: Backbone, **options) -> Coconut:
    method = build("coconut", backbone, CoconutConfig(**options), seed=1).eval()
    assert isinstance(method, Coconut)
    return method


def prompts(method: Coconut, task: Task, count: int = 4) -> list[Prompt]:
    """Examples of one to three steps."""
    found = [method.render(example, task) for example in task.examples("train", 24)]
    found = sorted(found, key=lambda p: len(p.steps), reverse=True)
    return found[:: len(found) // count][:count]


# ---------------------------------------------------------------------------------------------------- the curriculum


@pytest.mark.parametrize(
    ("stage", "thoughts", "three", "five"),
    [(0, 0, 0, 0), (1, 2, 1, 1), (2, 4, 2, 2), (3, 6, 3, 3), (4, 6, 3, 5), (9, 6, 3, 5)],
)
def test_the_published_stage_table(stage, thoughts, three, five):
    """c = 2, at most stage 3: thoughts, and how many steps of a three-step and a five-step example are gone."""
    config = CoconutConfig(thoughts_per_step=2, max_stage=3)
    assert planned(config, stage, 3) == (three, thoughts)
    assert planned(config, stage, 5) == (five, thoughts)
    assert planned(config, stage, 2) == (min(stage, 2), thoughts)  # a short one has as many thoughts
    assert planned(replace(config, feedback="none"), stage, 5) == (five, 0)


def test_unpadded_the_last_stage_counts_gold_steps():
    config = CoconutConfig(thoughts_per_step=2, max_stage=3, pad_to_max=False)
    assert [planned(config, stage, 2) for stage in (1, 3, 4)] == [(1, 2), (2, 6), (2, 4)]
    assert planned(config, 4, 5) == (5, 6)


def test_published_epochs_per_stage():
    """ProsQA: 5 of 50 for each of stages 0 to 6, 15 for the last; GSM8K from a trained model: 3, 3, 3 and 13 of 22."""
    shares = [round(50 * stage.share, 9) for stage in stages(CoconutConfig.prosqa())]
    assert shares == [5] * 7 + [15]
    assert [round(22 * stage.share, 9) for stage in stages(CoconutConfig.gsm8k())] == [3, 3, 3, 13]
    assert stages(CoconutConfig.reference())[0].fresh == "epoch"
    assert stages(CoconutConfig(curriculum=False)) == (Stage("all replaced", 1.0, "stage"),)


def stages(config: CoconutConfig) -> tuple[Stage, ...]:
    method = object.__new__(Coconut)
    torch.nn.Module.__init__(method)
    method.config = config
    return method.stages()


def test_a_row_is_question_thoughts_and_what_is_left(tiny, task):
    method = coconut(tiny())
    prompt = prompts(method, task)[0]
    assert len(prompt.steps) == 3
    decode = method.backbone.tokenizer.decode
    for removed, thoughts in ((0, 0), (1, 2), (3, 6)):
        row, labels = method.row(prompt, removed, thoughts)
        left = torch.cat([*prompt.steps[removed:], prompt.target[sum(map(len, prompt.steps)) :]])
        assert row.tolist() == [*prompt.before, *[LATENT] * thoughts, *prompt.after, *left]
        assert labels.tolist() == [UNLABELLED] * (len(row) - len(left)) + left.tolist()
        assert decode(left).endswith(f"#### {prompt.example.answer} <eos>")
    assert decode(prompt.before).endswith("<bot>")
    assert decode(prompt.after).startswith("<eot>")


def test_random_stages_are_even_and_hang_on_nothing_but_example_and_epoch(tiny, task):
    method = coconut(tiny(), uniform_prob=1.0)
    prompt = next(p for p in prompts(method, task) if len(p.steps) == 2)
    given = [replace(prompt, example=replace(prompt.example, id=f"{k}")) for k in range(3000)]
    drawn = [method._planned(p, 0)[1] for p in given]
    assert chisquare([drawn.count(stage) for stage in range(3)]).pvalue > 0.01
    assert [method._planned(p, 0)[1] for p in reversed(given)] == drawn[::-1]
    method.begin_epoch(0, 1)
    assert [method._planned(p, 0)[1] for p in given] != drawn
    some = coconut(tiny(), uniform_prob=0.3)
    share = sum(some._planned(p, 3)[1] != 3 for p in given) / len(given)  # stage 3 itself has three thoughts
    assert share == pytest.approx(0.3, abs=0.03)


# ------------------------------------------------------------------------------------------------ loss and gradients


def plain_losses(method: Coconut, batch: list[Prompt], plans: list[tuple[int, int]]) -> Tensor:
    """The definition: for each thought the whole row is read again, without a cache; one row at a time."""
    model, embed, losses = method.backbone.model, method.backbone.embed, []
    for p, (removed, thoughts) in zip(batch, plans, strict=True):
        row = embed(p.before)
        for _ in range(thoughts):
            states = model(inputs_embeds=row[None], output_hidden_states=True, use_cache=False).hidden_states[-1]
            row = torch.cat([row, states[0, -1:]])
        target = torch.cat([*p.steps[removed:], p.target[sum(map(len, p.steps)) :]])
        row = torch.cat([row, embed(p.after), embed(target)])
        logits = model(inputs_embeds=row[None], use_cache=False).logits[0, -len(target) - 1 : -1]
        losses.append(F.cross_entropy(logits, target))
    return torch.stack(losses)


def gradients(method: Coconut, loss: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in method.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("model", FAMILIES)
def test_loss_and_gradients_are_those_of_plain_passes_in_every_stage(tiny, task, model):
    method = coconut(tiny(model), max_stage=2, thoughts_per_step=2)
    batch = prompts(method, task, 3)
    for stage in range(4):
        plans = [planned(method.config, stage, len(p.steps)) for p in batch]
        ours, plain = method.loss(batch, stage).total, plain_losses(method, batch, plans).mean()
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
        theirs = gradients(method, plain)
        for name, gradient in gradients(method, ours).items():
            torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-3)


def test_a_batch_may_mix_stages(tiny, task):
    """As uniform_prob makes it: rows with no, one and several thoughts side by side."""
    method = coconut(tiny(), uniform_prob=1.0, thoughts_per_step=2)
    batch = prompts(method, task, 6)
    plans = [method._planned(p, 0) for p in batch]
    assert len({thoughts for _, thoughts in plans}) > 2
    plain = plain_losses(method, batch, plans)
    torch.testing.assert_close(method.loss(batch).total, plain.mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", FAMILIES)
def test_stage_0_is_fine_tuning_on_the_chain_of_thought(tiny, task, model):
    """The very text of the method `cot`, each token of steps and answer predicted, loss and gradients."""
    method, cot = coconut(tiny(model)), build("cot", tiny(model))
    examples, losses = task.examples("train", 4), []
    for p in (cot.render(example, task) for example in examples):
        logits = method.backbone.model(torch.cat([p.before, p.after, p.target])[None]).logits[0]
        losses.append(F.cross_entropy(logits[-len(p.target) - 1 : -1], p.target))
    batch = [method.render(example, task) for example in examples]
    plain, ours = torch.stack(losses).mean(), method.loss(batch, 0).total
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, cot.likelihood([cot.render(e, task) for e in examples], cot.think(batch)).mean())
    theirs = gradients(method, plain)
    for name, gradient in gradients(method, ours).items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-3)


def test_the_published_mean_is_over_tokens(tiny, task):
    """Long examples count more."""
    method, by_token = coconut(tiny()), coconut(tiny(), likelihood_mean="token")
    batch = prompts(method, task)
    counts = torch.tensor([len(p.target) for p in batch])
    assert len(set(counts.tolist())) > 1
    each = torch.stack([method.loss([p]).total for p in batch])
    torch.testing.assert_close(by_token.loss(batch).total, (each * counts).sum() / counts.sum(), atol=1e-5, rtol=1e-5)


# -------------------------------------------------------------------------------------------- thoughts and answers


@pytest.mark.parametrize("model", FAMILIES)
def test_answers_are_those_of_plain_passes_token_by_token(tiny, task, model):
    """In a batch, with caches; the plain way reads everything again for each thought and each token."""
    method = coconut(tiny(model), thoughts_per_step=2)
    batch = prompts(method, task, 3)
    thoughts = method.think(batch)
    assert thoughts.vectors.shape == (3, 1, 6, method.backbone.width)
    assert thoughts.signals["entropy"].shape == (3, 1, 6)
    together = method.answer(batch, thoughts, Decoding(5))
    net, embed = method.backbone.model, method.backbone.embed
    for k, p in enumerate(batch):
        alone = method.think([p])
        torch.testing.assert_close(alone.vectors[0], thoughts.vectors[k], atol=1e-5, rtol=1e-4)
        row = embed(p.before)
        with torch.no_grad():
            for _ in range(6):
                row = torch.cat(
                    [row, net(inputs_embeds=row[None], output_hidden_states=True).hidden_states[-1][0, -1:]]
                )
            torch.testing.assert_close(row[-6:], thoughts.vectors[k, 0], atol=1e-5, rtol=1e-4)
            row, written = torch.cat([row, embed(p.after)]), []
            for _ in range(5):
                token = net(inputs_embeds=row[None]).logits[0, -1].argmax()
                if int(token) in method.backbone.stops:
                    break
                written.append(int(token))
                row = torch.cat([row, embed(token[None])])
        assert list(together[k][0][0].tokens) == written
        assert method.answer([p], alone, Decoding(5))[0] == together[k]


def test_the_number_of_thoughts_is_that_of_the_stage_reached(tiny, task):
    method = coconut(tiny(), thoughts_per_step=2, max_stage=3, first_stage=1)
    batch, found = prompts(method, task, 2), []
    for stage in (None, 0, 1, 2, 3):
        method.stage = stage
        found.append(method.think(batch).vectors.shape[2])
    assert found == [6, 2, 4, 6, 6]
    assert coconut(tiny(), test_thoughts=5).think(batch).vectors.shape[2] == 5
    assert coconut(tiny(), feedback="none").think(batch, paths=2).vectors.shape[:3] == (2, 2, 0)


def test_unpadded_the_gold_steps_leak_and_padded_they_do_not(tiny, task):
    example = task.examples("train", 1)[0]
    other = replace(example, steps=(*example.steps, "1 + 1 = 2 pens"))
    assert len(example.steps) < 3
    for pad_to_max in (True, False):
        method = coconut(tiny(), pad_to_max=pad_to_max)
        one, more = (method.think([method.render(e, task)]).vectors.shape[2] for e in (example, other))
        assert (one == more) == pad_to_max
        both = method.think([method.render(e, task) for e in (example, other)])
        assert both.mask[:, 0].sum(1).tolist() == [one, more]


def test_states_may_be_scaled_to_the_table(tiny, task):
    method = coconut(tiny(), state_scale="embedding")
    thoughts = method.think(prompts(method, task)).vectors
    size = method.backbone.table.square().mean().sqrt()
    torch.testing.assert_close(thoughts.square().mean(-1).sqrt(), size.expand(thoughts.shape[:-1]))


# ----------------------------------------------------------------------------------------------------------- controls


def test_pause_thoughts_are_one_learned_vector_whether_in_one_pass_or_in_many(tiny, task):
    method = coconut(tiny(), feedback="pause")
    batch, losses = prompts(method, task), []
    for p in batch:
        row, labels = method.row(p, *planned(method.config, 2, len(p.steps)))
        embeds = torch.where((row == LATENT)[:, None], method.pause, method.backbone.embed(row.clamp(min=0)))
        logits = method.backbone.model(inputs_embeds=embeds[None]).logits[0]
        losses.append(F.cross_entropy(logits[:-1], labels[1:], ignore_index=UNLABELLED))
    torch.testing.assert_close(method.loss(batch, 2).total, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    assert (method.think(batch).vectors == method.pause).all()
    assert gradients(method, method.loss(batch, 0).total)["pause"].abs().sum() == 0  # but it has one


def test_without_thoughts_the_curriculum_stays(tiny, task):
    method = coconut(tiny(), feedback="none", marks=False)
    batch = prompts(method, task)
    decode = method.backbone.tokenizer.decode
    assert "<bot>" not in decode(batch[0].before)
    assert "<eot>" not in decode(batch[0].after)
    plain = plain_losses(method, batch, [(min(2, len(p.steps)), 0) for p in batch])
    torch.testing.assert_close(method.loss(batch, 2).total, plain.mean(), atol=1e-5, rtol=1e-5)
    assert coconut(tiny(), **vars(Coconut.presets["no-thought"])).stages() == method.stages()
