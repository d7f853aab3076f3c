"""LTM as a method: what it writes, what it learns from, its tasks, its costs beside each other, and what it says."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.__main__ import main
from workbench.backbone import Backbone, Decoding
from workbench.backbone.generation import generate
from workbench.evidence.collect import collect
from workbench.methods import Prompt, Thoughts, build
from workbench.methods.base import prepared
from workbench.methods.ltm import LTM, LTMConfig
from workbench.methods.ltm.bounds import costs, same_noise, table
from workbench.methods.ltm.inference import Loop, begun, infer, rates
from workbench.methods.ltm.method import EVIDENCE
from workbench.runs import load_method
from workbench.tasks import Task, load_task
from workbench.tasks.toy import toy_of
from workbench.training.loop import TrainConfig, train

SMALL = LTMConfig(tokenizer="letters", width=16, heads=2, window=3, latents=4, length=16, steps=2, test_steps=3)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.load("nano", weights=False)


def method_of(backbone: Backbone, seed: int = 1, **options) -> LTM:
    """With weights so large that thoughts and words matter."""
    method = build("ltm", backbone, replace(SMALL, **options), seed=seed).eval()
    assert isinstance(method, LTM)
    with torch.no_grad():
        for p in method.decoder.parameters():
            p.mul_(8 if p.ndim == 2 else 1)
    return method


@pytest.fixture
def toy() -> Task:
    return load_task("toy")


# ----------------------------------------------------------------------------------------------------------- writing


def greedy(method: LTM, before: list[int], z: torch.Tensor, count: int) -> list[int]:
    """Word by word, everything read again each time."""
    ids = list(before)
    for _ in range(count):
        reading = method.decoder.read(method.decoder.embedding(torch.tensor([ids])))
        word = int(method.decoder.logits(method.decoder.states(reading, z[None])[0, -1]).argmax())
        if word in method.backbone.stops:
            break
        ids.append(word)
    return ids[len(before) :]


@torch.no_grad()
def test_written_with_a_cache_as_without(backbone):
    method = method_of(backbone, latents=4)
    rows = [[52, 3, 9, 4, 1, 7], [52], [52, 8, 8]]  # shorter and longer than the window, padded on the left
    z = 3 * torch.randn(6, 4, 16, generator=torch.Generator().manual_seed(0))
    words = [method.backbone.embed(torch.tensor(row)) for row in rows]
    pairs = generate(method.reader(z[::2]), words, Decoding(12), batch_size=2)
    for row, own, (found,) in zip(rows, z[::2], pairs, strict=True):
        assert list(found.tokens) == greedy(method, row, own, 12)
    asked = {"draws": 3, "seeds": [4, 5, 6]}
    drawn = [
        generate(method.reader(z[::2]), words, Decoding(6, temperature=1.0), **asked, batch_size=n) for n in (1, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len({one.tokens for row in drawn[0] for one in row}) > 3


def test_thoughts_change_what_is_written_and_missing_ones_are_zeros(backbone, toy):
    method = method_of(backbone)
    prompts = prepared(method, toy, toy.examples("dev", 6))
    thoughts = method.think(prompts)
    assert thoughts.vectors.shape == (6, 1, 4, 16)
    assert set(thoughts.signals) == {"kl", "log_var"}
    z = method.latents(thoughts.each(lambda value: value[:, :, :2]))
    assert z is not None
    assert torch.equal(z[:, :2], thoughts.vectors[:, 0, :2])
    assert (z[:, 2:] == 0).all()
    large = replace(thoughts, vectors=20 * thoughts.vectors)
    written = [
        [one.text for ((one,),) in method.answer(prompts, t, Decoding(8))] for t in (large, method.think(prompts))
    ]
    assert written[0] != written[1]


def test_replanning_goes_on_from_its_own_words(backbone, toy):
    method = method_of(backbone, replan_every=3)
    prompts = prepared(method, toy, toy.examples("dev", 3))
    thoughts = method.think(prompts)
    found = method.answer(prompts, thoughts, Decoding(7))
    assert found == method.answer(prompts, thoughts, Decoding(7))
    alone = method.answer(prompts[1:2], thoughts.each(lambda value: value[1:2]), Decoding(7))
    assert alone[0][0][0].text == found[1][0][0].text
    method.config = replace(method.config, replan_every=0)
    plain = method.answer(prompts, thoughts, Decoding(7))
    assert all(a[0][0].tokens[:3] == b[0][0].tokens[:3] for a, b in zip(found, plain, strict=True))


def test_thoughts_from_the_prior_hang_on_nothing(backbone, toy):
    method = method_of(backbone, from_prior=True, z_scale=2.0)
    prompts = prepared(method, toy, toy.examples("dev", 200))
    vectors = method.think(prompts).vectors
    assert vectors.std().item() == pytest.approx(2.0, rel=0.03)


def test_paths_are_inferred_anew(backbone, toy):
    method = method_of(backbone)
    prompts = prepared(method, toy, toy.examples("dev", 2))
    vectors = method.think(prompts, paths=2).vectors
    assert not torch.equal(vectors[:, 0], vectors[:, 1])
    assert torch.equal(vectors[:, :1], method.think(prompts).vectors)


# ---------------------------------------------------------------------------------------------------- learning from it


def test_the_two_slow_gradients_are_what_they_say(backbone, toy):
    """trajectory: the mean over steps and tokens of the likelihood's; final: that at the sample that was drawn."""
    method = method_of(backbone, steps=3)
    prompts = prepared(method, toy, toy.examples("train", 4), learned=True)
    text, seen = method.whole(prompts), []
    noise = method.noise(prompts, "training 0")

    def likelihood(z):
        seen.append(z.detach().clone())
        return method._nll(text, z)

    q = infer(likelihood, begun(noise, -5.0), noise, method.config.training_loop(0)).posterior
    last = q.at(noise())
    wanted = {
        "trajectory": torch.stack([method._nll(text, z).sum() for z in seen]).mean() / text.counts,
        "final": method._nll(text, last).sum() / text.counts,
    }
    for kind, value in wanted.items():
        method.config = replace(method.config, slow_grad=kind)
        method.zero_grad()
        loss = method.loss(prompts).total
        loss.backward()
        torch.testing.assert_close(loss, value, rtol=1e-4, atol=1e-5)
        for p, g in zip(method.parameters(), torch.autograd.grad(value, list(method.parameters())), strict=True):
            torch.testing.assert_close(p.grad, g, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["trajectory", "final"])
def test_training_the_plain_way_learns_the_same(backbone, toy, kind, tmp_path):
    settings = {"examples": 8, "epochs": 1, "batch_size": 4, "probe_examples": 2, "optimizer": "adamw", "lr": 1e-3}
    runs = []
    for way in ({}, {"padded": True}):
        method = method_of(backbone, slow_grad=kind, steps=3)
        train(method, toy, TrainConfig(**settings, **way), tmp_path / f"{kind}{len(way)}")
        runs.append(dict(method.named_parameters()))
    for name, weight in runs[0].items():
        torch.testing.assert_close(weight, runs[1][name], rtol=1e-3, atol=2e-4, msg=name)


def test_each_step_of_training_has_its_own_noise(backbone, toy):
    method = method_of(backbone)
    prompts = prepared(method, toy, toy.examples("train", 2), learned=True)
    first = method.loss(prompts).total.detach()
    assert torch.equal(first, method.loss(prompts).total.detach())
    method.training_step = 1
    assert not torch.equal(first, method.loss(prompts).total.detach())


def test_an_encoder_is_trained_by_the_bound(backbone, toy):
    for kind in ("amortised", "semi-amortised"):
        method = method_of(backbone, inference=kind)
        prompts = prepared(method, toy, toy.examples("train", 3), learned=True)
        losses = method.loss(prompts)
        losses.total.backward()
        assert method.encoder is not None
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.parameters())
        assert set(losses.parts) == {"nll", "kl", "nelbo"}


def test_it_trains_and_says_its_floor_and_that_thoughts_are_not_read(backbone, tmp_path, capsys):
    task, method = load_task("toy", "R=2,K=1,A=4,block=4"), build("ltm", backbone, replace(SMALL, length=8, rate=0.1))
    config = TrainConfig(
        examples=16, epochs=1, batch_size=4, probe_every=2, probe_examples=8, optimizer="adamw", lr=1e-3
    )
    train(method, task, config, tmp_path / "run")
    said = capsys.readouterr().out
    assert "KL floor of 2 steps" in said
    assert "rates sum to 0.20 and log-variances have to go 5" in said
    metrics = wb.runs.read_metrics(tmp_path / "run")
    assert {"loss_nll", "loss_kl", "probe_kl", "probe_active", "probe_own", "probe_shuffled"} <= set(metrics)
    assert any("thoughts are not read" in one for row in metrics["warnings"].dropna() for one in row)
    again = load_method(tmp_path / "run")
    assert all(torch.equal(p, q) for p, q in zip(method.parameters(), again.parameters(), strict=True))


def test_what_its_texts_cost_is_one_command(backbone, tmp_path, capsys):
    task, method = load_task("toy", "R=2,K=1,A=4,block=4"), build("ltm", backbone, replace(SMALL, length=8))
    config = TrainConfig(examples=4, epochs=1, batch_size=4, probe_examples=2, optimizer="adamw", lr=1e-3)
    train(method, task, config, tmp_path / "run")
    capsys.readouterr()
    assert main(["bounds", "--run", str(tmp_path / "run"), "--count", "6", "--out", str(tmp_path / "it.csv")]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("oracle", "importance", "prefix", "prior", "zero", "bits_per_byte"))
    kept = pd.read_csv(tmp_path / "it.csv")
    assert kept.set_index("reading").loc["oracle", "n"] == 6
    method = build("soft-prompt", Backbone.load("nano"))
    train(method, load_task("arith"), replace(config, batch_size=2), tmp_path / "other")
    assert main(["bounds", "--run", str(tmp_path / "other"), "--count", "2"]) == 2
    assert "'soft-prompt' does not model whole texts" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- tasks


def test_the_toys_entropy_is_known(toy):
    kind = toy_of(None)
    assert (round(kind.entropy, 2), round(kind.without, 2)) == (8.32, 24.95)
    example = toy.examples("train", 1)[0]
    assert len(example.question) == 36
    assert example.question == 3 * example.question[:12]
    assert example.answer == 3 * example.question[:3]
    assert toy.read(example.question) == example.answer
    assert load_task("toy", "R=2,K=2,A=3,block=5").examples("dev", 1)[0].question.endswith("abc")
    with pytest.raises(ValueError, match="not described by 'Q=3'"):
        load_task("toy", "Q=3")
    with pytest.raises(ValueError, match="do not hold keys"):
        load_task("toy", "K=5,block=3")


def test_texts_are_cut_into_blocks_and_splits(tmp_path):
    (tmp_path / "a.txt").write_text("äöü" * 100 + "x" * 400, encoding="utf-8")
    (tmp_path / "b.bin").write_bytes(bytes(range(200, 256)))
    task = load_task("text", f"{tmp_path},block=10")
    parts = {split: [e.question for e in task.examples(split)] for split in ("train", "dev", "test")}
    assert all(len(one.encode()) <= 10 for own in parts.values() for one in own)
    assert "".join(parts["train"] + parts["dev"] + parts["test"]) == "äöü" * 100 + "x" * 400
    assert len(parts["train"]) == 8 * len(parts["dev"])
    assert load_task("text").examples("dev", 1)[0].question
    with pytest.raises(ValueError, match="is no size of a block"):
        load_task("text", "a.txt,block=no")
    (tmp_path / "c.txt").write_text(" ")
    with pytest.raises(ValueError, match="no text at"):
        load_task("text", str(tmp_path / "c.txt")).examples("dev")


@pytest.mark.parametrize("tokenizer", ["bytes", "letters"])
def test_tokenizers_give_back_what_they_read(backbone, tokenizer):
    own = method_of(backbone, tokenizer=tokenizer).backbone
    text = "Café,\n  #### 12 <eos>" if tokenizer == "bytes" else "ABCxyz"
    ids = own.plain_ids(text)
    assert len(ids) == len(text.encode())
    assert own.tokenizer.decode(ids) == text
    assert len(own.tokenizer) == {"bytes": 258, "letters": 54}[tokenizer]


def test_demonstrations_are_of_the_training_split_alone(backbone):
    task = load_task("arith")
    method = method_of(backbone, tokenizer="bytes", demonstrations=2)
    trained, asked = task.examples("train", 3), task.examples("test", 1)[0]

    def read(example):
        return method.backbone.tokenizer.decode(method.render(example, task).before)

    for example, shown in ((asked, trained[:2]), (trained[0], trained[1:3])):
        text = read(example)
        assert all(one.question in text and f"#### {one.answer}\n" in text for one in shown)
        assert text.count("####") == 2
        assert text.index(shown[-1].question) < text.index(example.question)
        assert f"#### {example.answer}" not in text.split(example.question)[1]
    prompt = method.render(asked, task)
    assert torch.equal(prompt.given[EVIDENCE], prompt.before)


# -------------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize("options", [{}, {"inference": "langevin"}, {"inference": "amortised"}])
def test_no_bound_is_below_the_entropy_whatever_the_weights(backbone, toy, options):
    method = method_of(backbone, **options)
    prompts = prepared(method, toy, toy.examples("dev", 12), learned=True)
    found = costs(method, prompts)
    entropy = toy_of(None).entropy
    for name in ("oracle", "importance", "prior", "zero"):
        assert found.nats[name].mean() > entropy
    assert (found.nats["importance"] < found.nats["oracle"] + 1).all()
    torch.testing.assert_close(found.nats["oracle"], found.nats["nll"] + found.nats["kl"])
    assert found.tokens.tolist() == [36.0] * 12
    assert found.behind.tolist() == [18.0] * 12
    rows = table(found).set_index("reading")
    assert rows.loc["oracle", "bits_per_byte"] == pytest.approx(rows.loc["oracle", "nats"] / 36 / math.log(2), rel=1e-4)
    assert not rows.loc["shuffled", "bound"]


def test_the_shared_noise_score_is_at_the_loops_own_noise(backbone, toy):
    method = method_of(backbone)
    prompts = prepared(method, toy, toy.examples("dev", 4), learned=True)
    found = same_noise(method, prompts, Loop(rates(30, 0.3)))
    torch.testing.assert_close(found["same"], found["nll"] + found["kl"])
    assert found["same"].mean() < found["fresh"].mean()


def test_the_twin_without_thoughts_is_one_stack(backbone, toy, tmp_path):
    method = method_of(backbone, latents=0)
    assert not any("cross" in name for name, _ in method.named_parameters())
    prompts = prepared(method, toy, toy.examples("dev", 3), learned=True)
    assert method.think(prompts).vectors.shape[2] == 0
    found = costs(method, prompts)
    assert set(found.nats) == {"zero", "prefix"}
    torch.testing.assert_close(found.nats["zero"].sum() / 108, method.loss(prompts).total.detach())
    assert method.notice() == ""


def test_its_store_is_one_like_any_others(backbone, toy):
    store = collect(method_of(backbone), toy, toy.examples("dev", 4))
    assert store.sizes["step"] == 4
    assert (store["signal_kl"].values >= 0).all()
    assert wb.describe(store) is not None
    shuffled = collect(method_of(backbone), toy, toy.examples("dev", 4), change="shuffled")
    assert shuffled.attrs["changed"] == "shuffled"


def test_prefix_likelihood_counts_what_stands_behind(backbone):
    task = load_task("arith")
    method = method_of(backbone, tokenizer="bytes")
    prompts = prepared(method, task, task.examples("train", 3), learned=True)
    thoughts = method.think(prompts)
    z = method.latents(thoughts)
    text = method.whole(prompts)
    logits = method.decoder.logits(method.decoder.states(text.read(method.decoder), z)).log_softmax(-1)
    for k, prompt in enumerate(prompts):
        first = len(prompt.before) - 1
        own = logits[k, first : first + len(prompt.target)].gather(1, prompt.target[:, None]).mean()
        torch.testing.assert_close(method.likelihood(prompts, thoughts)[k], -own, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------------- a trained model


@pytest.fixture(scope="module")
def trained(backbone) -> LTM:
    """`workbench train --method ltm --preset toy --task toy` for 1100 steps of 16 texts (AdamW, 1e-3, decay 0.1)."""
    method = load_method("tests/data/ltm_toy.safetensors", backbone)
    assert isinstance(method, LTM)
    return method


@pytest.fixture(scope="module")
def asked(trained) -> list[Prompt]:
    task = load_task("toy")
    return prepared(trained, task, task.examples("test", 16), learned=True)


@pytest.mark.slow
def test_trained_thoughts_are_worth_more_than_they_cost(trained, asked):
    """The bound lies between the entropy and what a text costs without memory, and another's thoughts do not help."""
    found, toy = costs(trained, asked, whole=False), toy_of(None)
    assert toy.entropy < found.nats["importance"].mean() < found.nats["oracle"].mean() < toy.without - 3
    assert found.nats["shuffled"].mean() > found.nats["nll"].mean() + 20
    assert found.posterior is not None
    q, task = found.posterior, load_task("toy")

    def letters(z: torch.Tensor) -> float:
        """Share of the keys' letters that are written again."""
        thoughts = Thoughts(z[:, None], torch.ones(len(z), 1, z.shape[1], dtype=torch.bool))
        texts = [one.text for ((one,),) in trained.answer(asked, thoughts, Decoding(36))]
        pairs = [(p.example.answer, task.read(text) or "?" * 9) for p, text in zip(asked, texts, strict=True)]
        return sum(a == b for gold, own in pairs for a, b in zip(gold, own, strict=True)) / (9 * len(pairs))

    assert letters(q.mu) >= 0.95
    assert letters(q.mu.roll(1, 0)) < 0.2
    assert letters(0 * q.mu) < 0.2
    assert letters(q.mu * torch.tensor([1.0, 1, 0, 0])[:, None]) < 0.5  # the lower layer's alone


def test_what_a_shared_noise_reports_can_be_below_the_entropy(trained, asked):
    """No bound can: scored with noise that the fast loop has not seen, the same posteriors cost several times that."""
    found = same_noise(trained, asked)
    assert found["same"].mean() < toy_of(None).entropy
    assert found["fresh"].mean() > toy_of(None).without


def test_shortcuts_and_the_plain_way_agree_on_a_trained_model(trained, asked):
    """The shortcuts and the plain way come to the same posterior."""
    text = trained.whole(asked[:4])
    ours, plain = (trained.fit(text, trained.noise(asked[:4], "plain"), plain=way).posterior for way in (False, True))
    torch.testing.assert_close(ours.mu, plain.mu, atol=0.02, rtol=0)
