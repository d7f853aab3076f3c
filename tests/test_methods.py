"""What every registered method must do, and what it takes to write one."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workbench.backbone import Backbone, Completion, Decoding
from workbench.evidence.changes import shuffled
from workbench.evidence.collect import collect
from workbench.methods import METHODS, Stage, Thoughts, build
from workbench.methods.baselines import CoT, SoftPrompt
from workbench.methods.coconut import CoconutConfig
from workbench.methods.latent_sft import LatentSFTConfig
from workbench.methods.lt_tuning import LTTuningConfig
from workbench.methods.lta_thinker import LTAThinkerConfig
from workbench.methods.ltm import LTMConfig
from workbench.methods.soft_thinking import SoftThinkingConfig
from workbench.methods.softcot import SoftCoTConfig
from workbench.methods.softcot_pp import SoftCoTPPConfig
from workbench.store import check
from workbench.tasks import load_task
from workbench.training.loop import TrainConfig, train


@pytest.fixture
def task():
    return load_task("arith-shift")


VARIANTS = {
    # references: as published but for the mean over a batch's tokens, which is no mean over examples
    "lta-thinker reference": dataclasses.replace(LTAThinkerConfig.reference(), likelihood_mean="example"),
    "lta-thinker linear": LTAThinkerConfig(generator="linear", positive="middle"),
    "lta-thinker assistant": LTAThinkerConfig(generator="assistant", positive="last"),
    "lta-thinker assistant-tokens": LTAThinkerConfig(generator="assistant", slots="token-ids", context="leaky"),
    "lta-thinker positions": LTAThinkerConfig(positions=True, heads=4, alignment="cosine"),
    "lta-thinker leaky-positions": LTAThinkerConfig(
        positions=True, context="leaky", step_vectors="turn-end", positive="random"
    ),
    "lta-thinker words": LTAThinkerConfig(alignment="vocabulary-kl", positive="oracle"),
    "lta-thinker unaligned": LTAThinkerConfig(alignment="none", slots="token-ids", slot_start=9),
    "softcot reference": dataclasses.replace(SoftCoTConfig.reference(3), likelihood_mean="example"),
    "softcot noise": SoftCoTConfig(noise=0.3),
    "softcot-pp reference": dataclasses.replace(SoftCoTPPConfig.reference(3, 3), likelihood_mean="example"),
    "soft-thinking": SoftThinkingConfig(max_thoughts=6),  # a random model seldom ends its thinking by itself
    "soft-thinking reference": dataclasses.replace(SoftThinkingConfig.reference(), max_thoughts=6),
    "soft-thinking gumbel": dataclasses.replace(SoftThinkingConfig.gumbel(), max_thoughts=6),
    "coconut reference": dataclasses.replace(CoconutConfig.reference(), likelihood_mean="example"),
    "coconut pause": CoconutConfig(feedback="pause", max_stage=1),
    "coconut any stage": CoconutConfig(uniform_prob=0.5, state_scale="embedding"),
    "lt-tuning reference": LTTuningConfig.reference(),
    "lt-tuning 8b": dataclasses.replace(LTTuningConfig.paper_8b(), adapter=8),
    "lt-tuning scaled": LTTuningConfig(state_scale="embedding", likelihood_mean="example", placement="random"),
    "lt-tuning soft": LTTuningConfig(mode="soft", placement="arithmetic", adapter=4, adapter_norm=False),
    "lt-tuning forced": LTTuningConfig(placement="fixed", state_share=0.0, forced_thoughts=3),
    "lt-tuning pause": LTTuningConfig(mode="pause", forced_thoughts=2, max_consecutive_thoughts=1),
    "lt-tuning plain": LTTuningConfig(placement="none", test_thoughts=False),
    "ltm final": LTMConfig(width=32, slow_grad="final", test_steps=16, thought="sample"),
    "ltm map": LTMConfig(width=32, inference="map", test_steps=16),
    "ltm langevin": LTMConfig(width=32, inference="langevin", test_steps=8),
    "ltm amortised": LTMConfig(width=32, inference="amortised"),
    "ltm semi-amortised": LTMConfig(width=32, inference="semi-amortised", tokenizer="bytes"),
    "ltm autoregressive": LTMConfig(width=32, latents=0),
    "latent-sft": LatentSFTConfig(max_latents=6),  # a random model seldom ends its thinking by itself
    "latent-sft full-vocabulary": dataclasses.replace(LatentSFTConfig.full_vocabulary(), max_latents=6, lora_rank=0),
    "latent-sft reference": dataclasses.replace(LatentSFTConfig.reference(), max_latents=6),
    "latent-sft hidden": LatentSFTConfig(thought="hidden", max_latents=4, loss_mean="segment", ratio=3, lora_rank=0),
    "latent-sft unmasked": LatentSFTConfig(
        induction_mask=False, supervision_mask=False, end_in_mix=False, max_latents=4, cot_share=0.1, lora_rank=0
    ),
    "latent-sft cot": LatentSFTConfig.cot(),
}


@pytest.fixture(params=sorted({*METHODS, *VARIANTS}))
def method(request, tiny):
    name = request.param.split()[0]
    return build(name, tiny(), VARIANTS.get(request.param), seed=1).eval()


@pytest.fixture
def prompts(method, task):
    return [method.render(example, task) for example in task.examples("train", 5)]


def test_thoughts_have_the_agreed_shape(method, prompts):
    thoughts = method.think(prompts, paths=2)
    assert thoughts.vectors.shape[:2] == (5, 2)
    assert thoughts.vectors.shape[-1] == method.backbone.width
    assert thoughts.mask.shape == thoughts.vectors.shape[:-1]
    assert thoughts.mask.dtype == torch.bool
    assert torch.isfinite(thoughts.vectors).all()
    assert all(signal.shape == thoughts.mask.shape for signal in thoughts.signals.values())


@pytest.mark.slow
def test_batch_mates_change_no_thought_and_no_loss(method, prompts):
    together = method.think(prompts)
    for k, prompt in enumerate(prompts):
        alone = method.think([prompt])
        count = alone.mask.shape[2]
        torch.testing.assert_close(together.vectors[k, :, :count], alone.vectors[0], atol=1e-5, rtol=1e-4)
        assert torch.equal(together.mask[k, :, :count], alone.mask[0])
        assert not together.mask[k, :, count:].any()
    if method.stages():
        whole = method.loss(prompts).total
        weights = torch.tensor([float(method.weigh([p])) for p in prompts])
        parts = torch.stack([method.loss([p]).total for p in prompts]) @ weights / weights.sum()
        torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)
        assert method.weigh(prompts) == pytest.approx(weights.sum().item())


def test_same_seed_same_thoughts(method, tiny, prompts):
    again = build(method.name, tiny(), method.config, seed=1).eval()
    assert torch.equal(method.think(prompts).vectors, again.think(prompts).vectors)


def test_gradients_reach_all_that_is_trainable_and_nothing_else(method, prompts):
    trainable = {name for name, p in method.named_parameters() if p.requires_grad}
    if not method.stages():
        assert not trainable
        return
    with torch.no_grad():  # one of an adapter's two factors starts at zero, and hides the other
        for parameter in method.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.fill_(0.01)
    reached = set()
    for stage in range(len(method.stages())):
        method.zero_grad()
        losses = method.loss(method.start(stage, prompts), stage)
        assert torch.isfinite(losses.total)
        assert all(torch.isfinite(part) for part in losses.parts.values())
        losses.total.backward()
        reached |= {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == trainable  # in all legs together
    assert any(name.startswith("backbone.") for name in reached) == method.backbone.trains


def test_what_it_sees_at_test_time_holds_no_answer(method, task, prompts):
    """Thoughts and contexts are the same for an example whose steps and answer are others."""
    example = task.examples("train", 1)[0]
    blind = dataclasses.replace(example, steps=("1 + 1 = 2",), answer="7")
    one, other = method.render(example, task), method.render(blind, task)
    assert torch.equal(method.think([one]).vectors, method.think([other]).vectors)
    assert torch.equal(one.before, other.before)
    assert torch.equal(one.after, other.after)


@pytest.mark.slow
def test_collects_a_valid_store_whatever_the_batch_size(method, task):
    examples = task.examples("dev", 6)
    asked = {"decoding": Decoding(temperature=1.0), "paths": 2, "draws": 2}
    store = collect(method, task, examples, **asked)
    check(store)
    assert store.sizes["path"] == store.sizes["draw"] == 2
    small = collect(method, task, examples, **asked, batch_size=1)
    torch.testing.assert_close(
        torch.tensor(store.thought.values), torch.tensor(small.thought.values), atol=1e-4, rtol=1e-3
    )
    assert (store.text.values == small.text.values).all()


@pytest.mark.slow
def test_nothing_to_train_is_said(tiny, task, tmp_path):
    with pytest.raises(ValueError, match="'cot' has nothing to train"):
        train(build("cot", tiny()), task, TrainConfig(), tmp_path / "run")


def test_direct_answers_and_worked_steps_differ_in_the_reply_only(tiny, task):
    example = task.examples("dev", 1)[0]
    steps, direct = (build(name, tiny()).render(example, task) for name in ("cot", "direct"))
    decode = tiny().tokenizer.decode
    assert torch.equal(steps.before, direct.before)
    assert decode(direct.after).rstrip().endswith("####")
    assert direct.target.tolist() == steps.target[-len(direct.target) :].tolist()


@pytest.mark.parametrize("written", [" 17\n#### 20\n5 eggs", "\n\n17\n9", "17 #### 20", "17"])
def test_a_direct_answer_is_the_first_behind_the_mark(tiny, task, monkeypatch, written):
    """What is written on is no part of it: neither kept nor read."""
    backbone, limits = tiny(), []
    ids = tuple(backbone.tokenizer.encode(written))

    def generate(self, rows, decoding, *, draws=1, seeds=None, step=None, layers=()):
        limits.append(decoding.max_new_tokens)
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return [[Completion(text, ids, False)] * draws for _ in rows]

    monkeypatch.setattr(Backbone, "generate", generate)
    store = collect(build("direct", backbone), replace(task, answer_tokens=512), task.examples("dev", 2))
    assert set(store["prediction"].values.flatten()) == {"17"}
    assert limits == [64]
    if "\n" in written.strip():
        assert bool(store["finished"].all())
        assert {text.strip() for text in store["text"].values.flatten()} == {"17"}
        assert int(store["length"].max()) < len(ids)
    assert build("cot", backbone).render(task.examples("dev", 1)[0], task).begun == ""


def test_a_reply_is_read_by_how_it_was_begun(task):
    assert task.read("3 + 4 = 7\n#### 7\n") == "7"
    assert task.read(" 7\n#### 8", "think: ####") == "7"
    assert task.read("\n", "####") is None
    dates = load_task("date_understanding")
    assert dates.read(" B\nC is wrong\n#### C", "#### ") == "B"


def test_shuffling_gives_every_question_anothers_thoughts():
    thoughts = [Thoughts(torch.full((1, 1, 2, 3), float(k)), torch.ones(1, 1, 2, dtype=torch.bool)) for k in range(7)]
    moved = [int(t.vectors[0, 0, 0, 0]) for t in shuffled(thoughts)]
    assert sorted(moved) == list(range(7))
    assert all(there != here for here, there in enumerate(moved))
    with pytest.raises(ValueError, match="at least two questions"):
        shuffled(thoughts[:1])


def test_a_method_written_in_a_notebook_cell_trains_and_answers_at_once(tiny, task, tmp_path):
    """Pause tokens (Goyal et al. 2024): one learned vector, repeated. The page's cell is all a new method takes."""
    readme = (Path(__file__).parents[1] / "workbench" / "methods" / "README.md").read_text(encoding="utf-8")
    cell = next(part for part in readme.split("```python")[1:] if "class Pause" in part).split("```")[0]
    notebook = {"__name__": "__main__"}
    try:
        exec(cell, notebook)
        exec(cell, notebook)  # a cell is run again and again
        method = build("pause", tiny())
        config = TrainConfig(examples=16, epochs=2, batch_size=8, probe_examples=4)
        train(method, task, config, tmp_path / "run")
        assert method.vector.abs().sum() > 0
        check(collect(method, task, task.examples("dev", 4)))
        with pytest.raises(ValueError, match="two methods are called 'pause'"):
            exec(cell, {"__name__": "elsewhere"})
    finally:
        METHODS.pop("pause", None)


def test_an_unknown_method_names_the_nearest(tiny):
    with pytest.raises(ValueError, match="did you mean 'lta-thinker'"):
        build("lta-thinkr", tiny())


def test_a_stage_is_a_share_of_the_epochs():
    assert Stage() == Stage("train", 1.0)
    assert [cls.stages(cls) for cls in (SoftPrompt, CoT)] == [(Stage(),), ()]  # type: ignore[arg-type]
