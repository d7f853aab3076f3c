"""The shipped backbone and how it is made: same command, same bytes; what it has and has not read."""

import hashlib
import json
import random
import re
from collections import Counter
from functools import partial
from itertools import islice

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.backbone import Backbone
from workbench.experiments import pretrain
from workbench.experiments.pretrain import PretrainConfig, documents, fit, make_hint, make_model, make_tokenizer
from workbench.places import BACKBONES
from workbench.tasks import arith, load_task

NANO = BACKBONES / "nano"
SMALL = PretrainConfig(steps=16, batch_size=8, width=32, layers=1, heads=2)
SHIFT = [verb for verbs in arith.SHIFT_VERBS.values() for verb in verbs]
NEW = [*SHIFT, *arith.NONCE_VERBS]
STANDARD = arith.DIFFICULTIES["standard"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def read():
    """The first documents the shipped model was trained on, as (question, hint, completion); drills left out."""
    found = []
    for prompt, completion in islice(documents(PretrainConfig()), 4000):
        if match := re.fullmatch(r"<bos>(.+)<bot>(.*)<eot>", prompt):
            found.append((match[1], match[2], completion))
        else:
            assert prompt == "<bos>"
    return found


# ----------------------------------------------------------------------------------------------------------- tokenizer


@pytest.mark.parametrize("name", ["arith", "arith-shift"])
def test_text_comes_back_from_its_tokens(tokenizer, name):
    for example in load_task(name).examples("dev", 1000):
        completion = "\n".join(["think:", *example.steps, f"#### {example.answer}"])
        for text in (example.question, completion):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


@pytest.mark.slow
@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_every_difficulty_is_in_known_tokens(tokenizer, difficulty):
    for example in load_task("arith-shift", difficulty).examples("dev", 300):
        assert tokenizer.unk_token_id not in tokenizer(example.question)["input_ids"]


def test_digits_and_marks_are_tokens_of_their_own(tokenizer):
    assert tokenizer.tokenize("#### 407") == ["####", "4", "0", "7"]
    assert tokenizer.tokenize("<bos>Tom<bot><eot>") == ["<bos>", "Tom", "<bot>", "<eot>"]
    assert tokenizer.decode(tokenizer("Tom <bot><eot> 5")["input_ids"], skip_special_tokens=True) == "Tom 5"


@pytest.mark.parametrize("text", ["", "\n", "5", "####", "Tom"])
def test_short_texts_come_back(tokenizer, text):
    """An answer may be empty: a decoder that panics there ends a run."""
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""


# ----------------------------------------------------------------------------------------------------------- documents


def test_documents_are_train_questions_in_trained_words(read):
    used = Counter()
    for question, hint, completion in read:
        assert arith.split_of(question) == "train"
        text = set(re.findall(r"[a-z]+", f"{question} {hint} {completion}"))
        assert not text & set(SHIFT)
        used.update(text & set(arith.NONCE_VERBS))
    assert set(used) == set(arith.NONCE_VERBS)


def test_completions_are_right(read):
    direct = 0
    for _, _, completion in read:
        match = re.fullmatch(r"(think:\n(?:\d+ [-+*/] \d+ = (\d+) \w+\n)+)?#### (\d+)<eos>", completion)
        assert match
        assert match[2] in (None, match[3])
        direct += match[1] is None
    assert direct / len(read) == pytest.approx(0.4, abs=0.05)


def test_the_slot_is_empty_in_most_documents(read):
    new = [hint for question, hint, _ in read if set(re.findall(r"[a-z]+", question)) & set(arith.NONCE_VERBS)]
    known = [hint for question, hint, _ in read if not set(re.findall(r"[a-z]+", question)) & set(arith.NONCE_VERBS)]
    assert sum(not hint for _, hint, _ in read) / len(read) > 0.55
    assert len(new) / len(read) == pytest.approx(0.3, abs=0.05)
    assert sum(map(bool, new)) / len(new) == pytest.approx(0.7, abs=0.06)
    assert sum(map(bool, known)) / len(known) == pytest.approx(0.2, abs=0.05)


def test_hints_of_new_words_are_true():
    rng = random.Random(0)
    words = {"+": arith.NONCE_VERBS[::2], "-": arith.NONCE_VERBS[1::2]}
    kinds = Counter()
    for _ in range(400):
        problem = arith.compose(rng, STANDARD, words)
        hint = make_hint(rng, problem, PretrainConfig())
        plan = " ".join(problem.operations)
        glossary = dict(re.findall(r"([a-z]+) ([-+])", hint))
        kinds["empty" if not hint else "plan" if hint == plan else "glossary"] += 1
        if hint not in ("", plan):
            assert glossary == {w: s for w, s in zip(problem.words, problem.operations, strict=True) if w}
            assert all(word in words[symbol] for word, symbol in glossary.items())
    assert min(kinds[kind] for kind in ("empty", "plan", "glossary")) > 80


def test_hints_of_known_words_are_true_half_the_time():
    rng = random.Random(0)
    true = []
    for _ in range(4000):
        problem = arith.compose(rng, STANDARD)
        hint = make_hint(rng, problem, PretrainConfig())
        results = [step.split("=")[1].split()[0] for step in problem.example.steps]
        starts = [", ".join(results[:k]) for k in range(1, len(results) + 1)]
        if hint:
            true.append(hint == " ".join(problem.operations) or hint in starts)
    assert sum(true) / len(true) == pytest.approx(0.5, abs=0.08)


def test_drills_fade_out():
    config = PretrainConfig(steps=100, batch_size=20)
    drills = [prompt == "<bos>" for prompt, _ in islice(documents(config), 2000)]
    assert sum(drills[:400]) / 400 == pytest.approx(0.36, abs=0.08)  # 0.45 falling to 0.27
    assert not any(drills[1000:])
    completion = next(c for p, c in documents(config) if p == "<bos>")
    for line in completion.removesuffix("<eos>").split("\n"):
        a, symbol, b, _, c = line.split()
        assert c == str(
            {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) // int(b)}[symbol]
        )


# -------------------------------------------------------------------------------------------------------------- making


def test_new_words_stay_at_their_random_start(tokenizer):
    model, start = make_model(SMALL, len(tokenizer)), make_model(SMALL, len(tokenizer))
    fit(model, tokenizer, SMALL)
    moved = (model.model.embed_tokens.weight != start.model.embed_tokens.weight).any(1)
    new = torch.tensor(tokenizer.convert_tokens_to_ids(NEW))
    assert not moved[new].any()
    others = torch.ones(len(tokenizer), dtype=torch.bool)
    others[new] = False
    assert moved[others].all()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pretrain, "measure", partial(pretrain.measure, count=3))


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(quick, tmp_path):
    made = [pretrain.pretrain(SMALL, tmp_path / name, seeds) for name, seeds in (("a", (3,)), ("b", (3, 4)))]
    other = pretrain.pretrain(SMALL, tmp_path / "c", (4,))
    for name in (
        "model.safetensors",
        "tokenizer.json",
        "config.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes()
    assert (made[0] / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    about = json.loads((made[1] / "pretrain.json").read_text())
    assert [row["seed"] for row in about["seeds"]] == [3, 4]
    assert about["config"]["seed"] == 3
    assert about["sha256"] == hashlib.sha256((made[0] / "model.safetensors").read_bytes()).hexdigest()
    assert "workbench pretrain --seeds [3,4]" in (made[1] / "README.md").read_text()
    assert Backbone.load(str(made[0])).width == 32


@pytest.mark.slow
def test_a_failed_pretraining_leaves_nothing(monkeypatch, tmp_path):
    def fails(_):
        raise RuntimeError("no")

    monkeypatch.setattr(pretrain, "measure", fails)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no"):
        pretrain.pretrain(SMALL, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == threads
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there exists already; give another folder, or remove that one first"):
        pretrain.pretrain(SMALL, tmp_path / "there")
    with pytest.raises(ValueError, match="no seeds given; give at least one"):
        pretrain.pretrain(SMALL, tmp_path / "a", ())


# ------------------------------------------------------------------------------------------------------ what is shipped


@pytest.fixture(scope="module")
def about() -> dict:
    return json.loads((NANO / "pretrain.json").read_text())


def test_the_shipped_file_is_the_one_on_the_card(about):
    weights = (NANO / "model.safetensors").read_bytes()
    assert about["sha256"] == hashlib.sha256(weights).hexdigest()
    assert sum(path.stat().st_size for path in NANO.iterdir()) <= 4e6
    assert (NANO / "README.md").read_text() == pretrain.model_card(about)
    assert about["config"] == {**vars(PretrainConfig()), "seed": about["seeds"][0]["seed"]}  # made with the defaults


def test_the_shipped_tokenizer_is_the_one_in_the_code(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    shipped, made = (json.loads((path / "tokenizer.json").read_text()) for path in (NANO, tmp_path))
    assert shipped == made


def test_the_card_reaches_the_bars(about):
    assert len(about["seeds"]) == 3
    for row in about["seeds"]:
        steps, direct = (row[f"known words, {way}"]["mean"] for way in ("worked steps", "direct answer"))
        assert steps >= 0.90
        assert 0.15 <= direct <= 0.60
        assert steps - direct >= 0.35
        assert row["new words, worked steps"]["mean"] < 0.5 < row["new words, worked steps, plan in the slot"]["mean"]


def test_new_words_of_the_shipped_model_were_never_trained():
    """Their rows still have the scale of the random start, all others have left it (seeds differ between versions)."""
    shipped = Backbone.load("nano")
    new = torch.zeros(len(shipped.table), dtype=torch.bool)
    new[shipped.tokenizer.convert_tokens_to_ids(NEW)] = True
    scale = shipped.table.std(1)
    start = shipped.model.config.initializer_range
    assert ((scale[new] - start).abs() < 0.2 * start).all()
    assert (scale[~new] > 2 * start).all()


def test_plain_transformers_loads_it_and_it_answers():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(NANO), AutoTokenizer.from_pretrained(NANO)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    right = 0
    for example in load_task("arith").examples("test", 8):
        ids = torch.tensor([tokenizer(f"<bos>{example.question}<bot><eot>think:\n")["input_ids"]])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
        written = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        right += written == "\n".join([*example.steps, f"#### {example.answer}"])
    assert right >= 7  # 99 % of all
