"""`workbench check lt-tuning` on other weights, shapes and parts than those of the published numbers.

What a file expects is restated here plainly: every thought reads the whole row again, without a cache, in float64.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.__main__ import main

MODELS = {
    # fewer keys than queries, three layers
    "grouped": {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2},
    # heads wider than the states, biases, one layer, a word other than the first ends
    "biased": {
        "hidden_size": 10, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "attention_bias": True, "mlp_bias": True, "vocab_size": 23,
    },
    # four layers, and a rotation of another base
    "deep": {
        "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
        "vocab_size": 83, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    },
}  # fmt: skip


@dataclass
class Thinker:
    """The method as a case wants it."""

    model: Any
    adapter: dict[str, Tensor]
    mark: int
    mode: int = 2
    layer: int = -1
    alpha: float = 0.6
    top_p: float = 0.9
    temperature: float = 1.0
    use_adapter: int = 0

    def given(self) -> dict[str, Tensor]:
        """The case's settings as tensors."""
        whole = {"mode": self.mode, "layer": self.layer, "adapter": self.use_adapter}
        real = {"alpha": self.alpha, "top_p": self.top_p, "temperature": self.temperature}
        return {k: torch.tensor(v) for k, v in whole.items()} | {
            k: torch.tensor(v, dtype=torch.float64) for k, v in real.items()
        }

    def read(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at every place, and the states that thoughts are made of."""
        out = self.model(inputs_embeds=inputs[None], use_cache=False, output_hidden_states=True)
        return out.logits[0], out.hidden_states[self.layer][0]

    def thought(self, inputs: Tensor) -> Tensor:
        """What follows these inputs if the mark does."""
        logits, states = self.read(inputs)
        z = states[-1]
        if self.mode == 2:
            table = self.model.get_input_embeddings().weight
            z = mixed(z, logits[-1], table, self.mark, self.alpha, self.top_p, self.temperature)
        if self.use_adapter:
            a = self.adapter
            inner = F.gelu(z @ a["down.weight"].T + a["down.bias"])
            z = inner @ a["up.weight"].T + a["up.bias"]
            z = (z - z.mean()) / (z.var(unbiased=False) + 1e-5).sqrt() * a["norm.weight"] + a["norm.bias"]
        return z

    def inputs(self, ids: list[int]) -> Tensor:
        """A row's inputs, its thoughts made one after the other."""
        found = torch.zeros(0, self.model.config.hidden_size, dtype=torch.float64)
        for word in ids:
            word_row = self.model.get_input_embeddings().weight[word]
            found = torch.cat([found, (self.thought(found) if word == self.mark else word_row)[None]])
        return found


def mixed(
    state: Tensor, logits: Tensor, table: Tensor, mark: int, alpha: float, top_p: float, temperature: float
) -> Tensor:
    """alpha state + (1 - alpha) mean word; the word that crosses top_p is dropped, the likeliest stays."""
    words = [word for word in range(len(logits)) if word != mark]
    p = (logits[words] / temperature).softmax(0)
    kept, mass = [], 0.0
    for place in p.argsort(descending=True).tolist():
        mass += p[place].item()
        assert abs(mass - top_p) > 1e-5, "a limit that hangs on rounding"
        if kept and mass > top_p:
            break
        kept.append(place)
    word = sum(p[place] * table[words[place]] for place in kept) / sum(p[place] for place in kept)
    return alpha * state + (1 - alpha) * word


# ------------------------------------------------------------------------------------------------------------ the parts


def fusion(generator: torch.Generator, mark: int, rows: int, vocabulary: int, width: int, **numbers) -> dict:
    """R rows of their own sizes."""
    hidden, probe = torch.randn(2, rows, width, generator=generator, dtype=torch.float64).unbind()
    logits = 2 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
    table = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    for tensor in (hidden, logits, table):
        tensor.requires_grad_()
    vectors = torch.stack([mixed(h, row, table, mark, **numbers) for h, row in zip(hidden, logits, strict=True)])
    grads = torch.autograd.grad((vectors * probe).sum(), [hidden, logits, table], allow_unused=True)
    found = {"hidden": hidden, "logits": logits, "embedding": table, "probe": probe, "expected.vectors": vectors}
    for name, tensor, grad in zip(("hidden", "logits", "embedding"), (hidden, logits, table), grads, strict=True):
        found[f"expected.grad.{name}"] = torch.zeros_like(tensor) if grad is None else grad
    return found | {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}


def positions(
    generator: torch.Generator, mark: int, length: int, asked: int, vocabulary: int, threshold: float
) -> dict:
    ids = torch.randint(vocabulary - 1, (length,), generator=generator)
    logits = 3 * torch.randn(length, vocabulary, generator=generator)
    probability = [logits[t - 1].softmax(0)[ids[t]].item() for t in range(asked, length)]
    places = [asked + k for k, p in enumerate(probability) if p < threshold]

    def with_marks(count: int) -> list[int]:
        return [w for t, word in enumerate(ids.tolist()) for w in [mark] * (count * (t in places)) + [word]]

    labels = [-100] * asked + with_marks(1)[asked:]
    return {
        "ids": ids, "logits": logits, "question_length": torch.tensor(asked),
        "threshold": torch.tensor(threshold, dtype=torch.float64), "expected.probability": torch.tensor(probability),
        "expected.candidates": torch.tensor(places, dtype=torch.long), "expected.once": torch.tensor(with_marks(1)),
        "expected.twice": torch.tensor(with_marks(2)), "expected.labels_once": torch.tensor(labels),
    }  # fmt: skip


def loss(thinker: Thinker, rows: list[tuple[list[int], list[int]]]) -> dict:
    """Rows (question, reply), padded so that their first marks share a column."""
    starts = [(asked + reply).index(thinker.mark) if thinker.mark in reply else 0 for asked, reply in rows]
    left = [max(starts) - start if thinker.mark in reply else 0 for start, (_, reply) in zip(starts, rows, strict=True)]
    width = max(pad + len(asked + reply) for pad, (asked, reply) in zip(left, rows, strict=True)) + 1
    shape, d, vocabulary = (len(rows), width), thinker.model.config.hidden_size, thinker.model.config.vocab_size
    ids, mask, places = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    labels, total, count = torch.full(shape, -100), torch.zeros((), dtype=torch.float64), 0
    inputs, logits = torch.zeros(*shape, d), torch.zeros(*shape, vocabulary)
    for k, (pad, (asked, reply)) in enumerate(zip(left, rows, strict=True)):
        row, own = asked + reply, slice(pad, pad + len(asked + reply))
        read = thinker.inputs(row)
        found, _ = thinker.read(read)
        total = total + F.cross_entropy(found[len(asked) - 1 : -1], torch.tensor(reply), reduction="sum")
        count += len(reply)
        ids[k, own], mask[k, own], places[k, own] = torch.tensor(row), 1, torch.arange(len(row))
        labels[k, own] = torch.tensor([-100] * len(asked) + reply)
        inputs[k, own], logits[k, own] = read.detach().float(), found.detach().float()
    weights = dict(thinker.model.named_parameters())
    if thinker.use_adapter:
        weights |= {f"adapter.{name}": weight for name, weight in thinker.adapter.items()}
    grads = torch.autograd.grad(total / count, list(weights.values()), allow_unused=True)
    found = {
        "input_ids": ids, "attention_mask": mask, "position_ids": places, "labels": labels, **thinker.given(),
        "expected.loss": total / count, "expected.inputs": inputs, "expected.logits": logits,
    }  # fmt: skip
    for (name, weight), grad in zip(weights.items(), grads, strict=True):
        found[f"expected.grad.{name}"] = torch.zeros_like(weight) if grad is None else grad
    return found


@torch.no_grad()
def decode(thinker: Thinker, prompt: list[int], most: int, end: int, forbid: bool = False) -> dict:
    inputs, tokens = thinker.inputs(prompt), []
    while len(tokens) < most:
        logits = thinker.read(inputs)[0][-1].clone()
        if forbid:
            logits[thinker.mark] = -torch.inf
        first, second = logits.topk(2).values.tolist()
        assert first - second > 2e-4, "a choice that hangs on rounding"
        word = int(logits.argmax())
        if word == end:
            break
        table = thinker.model.get_input_embeddings().weight
        inputs = torch.cat([inputs, (thinker.thought(inputs) if word == thinker.mark else table[word])[None]])
        tokens.append(word)
    return {
        "prompt_ids": torch.tensor(prompt), **thinker.given(), "forbid_thinking": torch.tensor(int(forbid)),
        "max_new_tokens": torch.tensor(most), "end_id": torch.tensor(end),
        "expected.tokens": torch.tensor(tokens, dtype=torch.long), "expected.inputs": inputs[len(prompt) :],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- the file


def made(kind: str, seed: int = 0) -> tuple[Any, dict[str, Tensor], dict, int]:
    """A model of float32 numbers in float64, an adapter, its config and the mark."""
    config = {
        "model_type": "llama", "vocab_size": 61, "intermediate_size": 20, "max_position_embeddings": 64,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "eos_token_id": 0, "bos_token_id": None, **MODELS[kind],
    }  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape) + ("norm" in name))
        model.get_output_embeddings().weight[-1] *= 3  # so that the mark is written
    width, hidden = config["hidden_size"], 7
    sizes = {
        "down.weight": (hidden, width), "down.bias": (hidden,), "up.weight": (width, hidden), "up.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    adapter = {key: (0.5 * torch.randn(size)).double().requires_grad_() for key, size in sizes.items()}
    return model.eval().double(), adapter, config, config["vocab_size"] - 1


def written(path: Path, cases: dict[str, dict], shared: dict[str, Tensor], config: dict) -> Path:
    tensors = {f"{case}.{name}": value for case, values in cases.items() for name, value in values.items()} | shared
    settings = ("alpha", "top_p", "temperature", "threshold")  # these stay float64

    def narrow(name: str, value: Tensor) -> Tensor:
        real = value.is_floating_point() and name.rpartition(".")[2] not in settings
        return (value.float() if real else value).detach().contiguous().clone()

    save_file({name: narrow(name, value) for name, value in tensors.items()}, path, {
        "kind": "lt-tuning", "config": json.dumps(config),
    })  # fmt: skip
    return path


def shared(model: Any, adapter: dict[str, Tensor], mark: int) -> dict[str, Tensor]:
    weights = {} if model is None else {f"model.{name}": value for name, value in model.named_parameters()}
    return weights | {f"adapter.{name}": value for name, value in adapter.items()} | {"thinking_id": torch.tensor(mark)}


def expect_passed(path: Path, count: int, capsys) -> None:
    assert main(["check", "lt-tuning", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert len(found["max_abs"]) == count


def expected_of(cases: dict[str, dict]) -> int:
    return sum(name.startswith("expected.") for values in cases.values() for name in values)


@pytest.mark.parametrize("name", MODELS)
def test_other_models_rows_and_answers(name, tmp_path, capsys):
    """Fewer keys than queries, biases, other depths; one row, many, no mark, marks in a row, first and last."""
    model, adapter, config, mark = made(name)
    depth, end = config["num_hidden_layers"], 3
    generator = torch.Generator().manual_seed(1)

    def words(count: int) -> list[int]:
        return torch.randint(1, mark, (count,), generator=generator).tolist()

    rows = [
        (words(4), [mark, mark, mark, *words(3)]), (words(1), words(6)), (words(7), [*words(2), mark, *words(1), mark]),
        (words(2), [*words(1), mark, mark, *words(4), mark, *words(2)]), (words(3), [mark]),
    ]  # fmt: skip
    thinkers = [
        Thinker(model, adapter, mark, 1, -1), Thinker(model, adapter, mark, 2, -2, 0.3, 0.75, 1.7, 1),
        Thinker(model, adapter, mark, 2, -depth - 1, 0.9, 0.95, 0.6),
        Thinker(model, adapter, mark, 1, -2, use_adapter=1),
    ]  # fmt: skip
    cases = {f"loss.{k}": loss(one, rows) for k, one in enumerate(thinkers)}
    cases["loss.4"] = loss(thinkers[1], rows[3:4])  # a batch of one
    cases["loss.5"] = loss(thinkers[0], rows[1:2])  # without a mark
    for k, one in enumerate(2 * thinkers):
        cases[f"decode.{k}"] = decode(one, words(5), 6, end)
    answers = torch.cat([cases[f"decode.{k}"]["expected.tokens"] for k in range(8)])
    assert (answers == mark).sum() > 3
    assert (answers != mark).sum() > 3
    cases["decode.8"] = decode(thinkers[1], words(3), 6, end, forbid=True)
    said = next(k for k in range(8) if cases[f"decode.{k}"]["expected.tokens"][0] != mark)
    asked, first = cases[f"decode.{said}"]["prompt_ids"].tolist(), int(cases[f"decode.{said}"]["expected.tokens"][0])
    cases["decode.9"] = decode((2 * thinkers)[said], asked, 6, first)  # ends at once
    assert len(cases["decode.9"]["expected.tokens"]) == 0
    path = written(tmp_path / "file.safetensors", cases, shared(model, adapter, mark), config)
    expect_passed(path, expected_of(cases), capsys)


def test_other_sizes_of_fusion_and_places(tmp_path, capsys):
    """Cases without a model: each has its own numbers of rows, words and features; numbers of cases may leave gaps."""
    generator, mark = torch.Generator().manual_seed(2), 30
    cases = {
        "fusion.0": fusion(generator, mark, 1, 31, 3, alpha=0.2, top_p=0.5, temperature=2.5),
        "fusion.3": fusion(generator, mark, 9, 31, 40, alpha=1.0, top_p=0.01, temperature=1.0),
        "fusion.11": fusion(generator, mark, 5, 50, 7, alpha=0.0, top_p=0.97, temperature=0.4),
        "positions.0": positions(generator, mark, 12, 11, 31, 1.0),
        "positions.2": positions(generator, mark, 30, 1, 31, 0.05),
        "positions.10": positions(generator, mark, 8, 3, 31, 0.0),
    }
    assert len(cases["positions.10"]["expected.candidates"]) == 0
    path = written(tmp_path / "file.safetensors", cases, shared(None, {}, mark), {})
    expect_passed(path, expected_of(cases), capsys)


def test_a_file_without_an_adapter(tmp_path, capsys):
    model, _, config, mark = made("grouped", seed=3)
    one = Thinker(model, {}, mark, 2, -2)
    cases = {"decode.7": decode(one, [4, 8, 15], 9, 1), "loss.2": loss(one, [([5, 6], [mark, 7, 8])])}
    path = written(tmp_path / "file.safetensors", cases, shared(model, {}, mark), config)
    expect_passed(path, expected_of(cases), capsys)
