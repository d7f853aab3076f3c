"""Real questions through the real loop: 64 of GSM8K, a random Qwen3 with a byte-level tokenizer trained on their text.

Accuracy means nothing here; mechanics, lengths, parsing and sizes do.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import random_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from workbench import collect, runs, store
from workbench.analysis.diagnostics import describe
from workbench.backbone import Backbone, Decoding
from workbench.files import read_jsonl
from workbench.methods import LatentMethod, build
from workbench.tasks import Example, Task, load_task
from workbench.training.loop import TrainConfig, train

DATA = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"GSM8K's JSONL files are not at {DATA}")

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
QWEN = (  # Qwen3's template for one message, thinking switched off by an empty block
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
CAP = 24


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("gsm8k", str(DATA))


@pytest.fixture(scope="module")
def examples(task) -> list[Example]:
    return task.examples("test", 64)


@pytest.fixture(scope="module")
def backbone(task, tmp_path_factory) -> Backbone:
    def text() -> Iterator[str]:
        for example in task.examples("train", 500):
            yield "\n".join([example.question, *example.steps, f"#### {example.answer}"])

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=QWEN
    )
    folder = tmp_path_factory.mktemp("qwen")
    fast.save_pretrained(folder)
    random_model("qwen3", len(fast), fast.eos_token_id).save_pretrained(folder)
    return Backbone.load(str(folder))


@pytest.fixture(scope="module")
def method(backbone) -> LatentMethod:
    return build("lta-thinker", backbone)


@pytest.fixture(scope="module")
def run(method, task, tmp_path_factory) -> Path:
    config = TrainConfig(examples=64, epochs=1, batch_size=16, micro_batch=8, probe_examples=16)
    return train(method, task, config, tmp_path_factory.mktemp("runs") / "gsm8k")


@pytest.fixture(scope="module")
def found(run, method, task, examples) -> xr.Dataset:
    return collect(method, task, examples, decoding=Decoding(max_new_tokens=CAP))


def test_rows_are_the_chat_with_the_question_in_it(method, task, examples):
    tokenizer = method.backbone.tokenizer
    for example in examples:
        prompt = method.render(example, task)
        before, after, target = (tokenizer.decode(ids) for ids in (prompt.before, prompt.after, prompt.target))
        assert before == f"<|im_start|>user\n{task.instruction}\n{example.question}<think>"
        assert after == "</think><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        assert target == "\n".join([*example.steps, f"#### {example.answer}"]) + "<|im_end|>"
        assert tokenizer.decode(prompt.question) == example.question  # bytes: curly quotes and all come back
        assert [tokenizer.decode(ids) for ids in prompt.steps] == [step + "\n" for step in example.steps]
        assert len(prompt.before) < 1024


def test_training_runs_through(run):
    rows = read_jsonl(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(row[name]) for row in rows for name in ("loss", "loss_focus", "gradient_norm"))
    assert not any("warnings" in row for row in rows)
    assert runs.read_config(run)["data"] == str(DATA)


def test_store_holds_every_question(found, examples, task):
    assert found["example"].values.tolist() == [e.id for e in examples]
    assert found["question"].values.tolist() == [e.question for e in examples]
    assert found["gold"].values.tolist() == [e.answer for e in examples]
    assert found["label_steps"].values.tolist() == [len(e.steps) for e in examples]
    assert bool(found["mask"].all())
    for text, prediction, correct, gold in zip(
        *(found[name].values.ravel() for name in ("text", "prediction", "correct", "gold")), strict=True
    ):
        assert prediction == (task.parse(text) or "")
        assert correct == bool(prediction and task.same(prediction, gold))


def test_an_answer_that_reaches_the_cap_is_unfinished(found):
    length, finished = found["length"].values, found["finished"].values
    assert length.max() == CAP
    assert np.array_equal(finished, length < CAP)
    assert not finished.all()  # a random model rarely stops


def test_gold_steps_are_kept_beside_their_similarities(found, examples):
    most = max(len(e.steps) for e in examples)
    assert found.sizes["reasoning"] == most
    for row, example in zip(range(64), examples, strict=True):
        there = np.isfinite(found["similarity_answer"].values[row])
        assert there.tolist() == [k < len(example.steps) for k in range(most)]
        assert found["step_text"].values[row][there].tolist() == list(example.steps)
    assert float(abs(found["similarity_question"]).max()) <= 1 + 1e-5


def test_store_is_small_and_comes_back(found, tmp_path):
    path = store.save(found, tmp_path / "gsm8k.nc")
    loaded = store.load(path)
    assert loaded["thought"].dtype == np.float16
    assert loaded["thought"].nbytes == 64 * 4 * 32 * 2
    assert path.stat().st_size < 400_000  # mostly the texts and a sample of the embedding table
    texts = [text.replace("\0", "\ufffd") for text in found["text"].values.ravel()]  # random bytes may be NUL
    assert loaded["text"].values.ravel().tolist() == texts
    assert len(describe(loaded))


def test_batches_change_no_answer(run, found, method, task, examples):
    """Questions of 20 to 180 words: padded with others or alone, the answer is the same."""
    few = collect(method, task, examples[:12], decoding=Decoding(max_new_tokens=CAP), batch_size=1)
    assert few["text"].values.tolist() == found["text"].values[:12].tolist()
    np.testing.assert_allclose(few["thought"], found["thought"][:12], atol=1e-4)


def test_the_trained_method_comes_back(run, method, task, examples):
    loaded = runs.load_method(run)
    prompts = [method.render(example, task) for example in examples[:8]]
    with torch.no_grad():
        assert torch.equal(loaded.think(prompts).vectors, method.eval().think(prompts).vectors)
