"""Latent-SFT at test: the latent loop, its end, answers behind it, and the oracle; settings that cannot be."""

import dataclasses

import pytest
import torch
from latent_sft_taught import prompts, taught
from torch.nn import functional as F

from workbench.backbone import Decoding
from workbench.evidence.collect import collect
from workbench.methods import Prompt, build
from workbench.methods.latent_sft import LatentSFT, LatentSFTConfig, superposed
from workbench.methods.mixtures import mixed
from workbench.tasks import Example, Task, load_task

UNION, LAST = 2, 3  # of the default legs


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


def test_latents_are_what_a_plain_pass_makes_of_them(tiny, task):
    """Teacher-forced on the same vectors, every latent comes out again; batches are rows."""
    method = taught(tiny(), max_latents=5)
    batch = prompts(method, task)
    thoughts = method.think(batch)
    assert thoughts.mixture is not None
    for k, prompt in enumerate(batch):
        z = thoughts.vectors[k, 0][thoughts.mask[k, 0]]
        row = torch.cat([method.backbone.embed(prompt.before), z])
        logits = method.backbone.model(inputs_embeds=row[None], use_cache=False).logits[0]
        tokens, weights = superposed(logits[len(prompt.before) - 1 : -1], 10, method.unusable())
        torch.testing.assert_close(mixed(method.backbone, tokens, weights), z, atol=1e-5, rtol=1e-4)
        ends = (logits[len(prompt.before) - 1 :].argmax(-1) == prompt.after[0]).nonzero()[:, 0].tolist()
        assert len(z) == (ends[0] if ends else 5)


def biased(method: LatentSFT, prompt: Prompt, at: int) -> None:
    """Let the end mark win at the `at`-th step (0: at once), by a hook on the logits of single positions."""
    calls = []

    def hook(_, given, out):
        calls.append(out.logits.shape)
        if len(calls) == at + 1:
            out.logits[..., int(prompt.after[0])] = 1e4
        else:
            out.logits[..., int(prompt.after[0])] = -1e4

    method.backbone.model.register_forward_hook(hook)


@pytest.mark.parametrize("at", [0, 2, 9])
def test_chains_end_at_the_mark_or_the_cap(tiny, task, at):
    """No latent at all is legal; the signal says how a chain ended."""
    method = taught(tiny(), max_latents=4)
    batch = prompts(method, task, 1)
    biased(method, batch[0], at)
    with torch.no_grad():
        thoughts = method.think(batch)
    count = int(thoughts.mask.sum())
    assert count == min(at, 4)
    if count:
        exits = thoughts.signals["exit"][thoughts.mask]
        assert exits.tolist() == [0.0] * (count - 1) + [1.0 if at < 4 else 2.0]
    said = method.remark([thoughts])
    assert said.startswith(f"{count}.0 latents per question") if at != 9 else "1 of 1 chains were cut at 4" in said


def test_the_end_mark_is_forced_whole_and_answers_alone_are_read(tiny, task):
    """A mark of several ids; the answer follows it, and no latent's word is part of the text."""
    method = taught(tiny(), marks="published", max_latents=3)
    batch = prompts(method, task, 2)
    assert method.marks == ("<think>", "</think>")
    assert torch.equal(batch[0].after, method.backbone.ids("</think>"))
    assert len(batch[0].after) > 1
    thoughts = method.think(batch)
    answers = method.answer(batch, thoughts, Decoding(4))
    for k, prompt in enumerate(batch):
        z = thoughts.vectors[k, 0][thoughts.mask[k, 0]]
        row = torch.cat([method.backbone.embed(prompt.before), z, method.backbone.embed(prompt.after)])
        written = []
        for _ in range(len(answers[k][0][0].tokens)):
            logits = method.backbone.model(inputs_embeds=row[None], use_cache=False).logits[0, -1]
            written.append(int(logits.argmax()))
            row = torch.cat([row, method.backbone.embed(torch.tensor(written[-1:]))])
        assert list(answers[k][0][0].tokens) == written


def test_a_prompt_that_holds_the_end_mark_is_a_prompt(tiny, task):
    method = taught(tiny("qwen3", True))
    end = method.backbone.marks[1]
    example = Example("x", f"what does {end} mean? 2 + 3", ("2 + 3 = 5",), "5")
    prompt = method.render(example, task)
    assert int((prompt.before == prompt.after[0]).sum()) == 0  # as text it is other ids
    losses = method.loss([prompt], UNION)
    assert torch.isfinite(losses.total)


def test_padding_that_is_the_end_of_text_hides_no_end_of_text(tiny, task):
    """Lengths say what is there, not ids: the same losses whatever the tokenizer calls padding."""
    one, other = taught(tiny(), words="all"), taught(tiny(), words="all")
    other.backbone.tokenizer.pad_token = other.backbone.tokenizer.eos_token
    for leg in (UNION, LAST):
        losses = [method.eval().loss(prompts(method, task), leg).total for method in (one, other)]
        assert torch.equal(*losses)
    assert int(prompts(other, task)[0].target[-1]) == other.backbone.tokenizer.pad_token_id


def test_the_oracle_never_passes_for_thinking(tiny, task):
    """It says so in its store, and thinking is the same whatever the steps are."""
    method = taught(tiny(), max_latents=3)
    examples = task.examples("dev", 3)
    store = collect(method, task, examples, change="oracle")
    assert store.attrs["changed"] == "oracle"
    counts = store["mask"].sum("step").values[:, 0].tolist()
    lengths = [sum(len(step) for step in method.render(e, task).steps) for e in examples]
    assert counts == [-(-length // 2) for length in lengths]
    assert "mixture_token" in store
    assert collect(method, task, examples).attrs["changed"] == ""
    with pytest.raises(ValueError, match="'cot' has no oracle"):
        collect(build("cot", tiny()), task, examples, change="oracle")


def test_a_model_fine_tuned_on_chains_writes_them(tiny, task):
    method = build("latent-sft", tiny(), dataclasses.replace(LatentSFTConfig.cot(), lora_rank=0), seed=1).eval()
    store = collect(method, task, task.examples("dev", 3))
    assert store.sizes["step"] == 0
    batch = [method.render(e, task) for e in task.examples("train", 3)]
    total = method.loss(batch).total
    rows = [torch.cat([p.before, *p.steps, p.after, p.target]) for p in batch]
    losses = []
    for prompt, row in zip(batch, rows, strict=True):
        logits = method.backbone.model(input_ids=row[None]).logits[0]
        at = len(prompt.before)
        losses.append(F.cross_entropy(logits[at - 1 : -1], row[at:], reduction="none"))
    torch.testing.assert_close(total, torch.cat(losses).mean())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ratio": 0}, "ratio is 0"),
        ({"encoder": False}, "encoder is false, but encoder_share"),
        ({"labels": "x"}, "labels are given and there is an encoder"),
        ({"encoder_share": 0.0, "decoder_share": 0.0, "union_share": 0.0, "latent_share": 0.0}, "are all 0"),
        (
            {"thought": "hidden", "labels": "x", "encoder": False, "encoder_share": 0.0, "union_share": 0.0},
            "not states",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LatentSFTConfig(**options)


def test_reference_latents_of_other_chains_stand_behind_their_pieces(tiny, task):
    method = taught(tiny(), ratio=2)
    batch = prompts(method, task, 2)
    gold = [list(torch.cat(p.steps).split(2)) for p in batch]
    for own, wanted in zip(method.encoded_pieces(batch, gold), method.encoded(batch), strict=True):
        assert torch.equal(own["weights"], wanted["weights"])
    chain = torch.cat(batch[0].steps)
    uneven = [chain[:1], chain[1:6], chain[6:]]
    (own,) = method.encoded_pieces(batch[:1], [uneven])
    alone = method.encoded_pieces(batch[:1], [[chain[:1], chain[1:6]]])[0]
    assert len(own["weights"]) == 3
    torch.testing.assert_close(own["weights"][:2], alone["weights"])
