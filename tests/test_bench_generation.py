"""The benchmark of writing answers: what it returns, on the smallest sizes. No time is judged."""

import math

import pytest
import torch

from workbench.bench.generation import collecting, generation, queueing, writing_thoughts
from workbench.bench.machine import copy_rate, description, matrix_rate

CPU = torch.device("cpu")


def checked(rungs: dict[str, dict[str, float]]) -> None:
    for row in rungs.values():
        assert 0 < row["low"] <= row["median"] <= row["high"]


def test_writing_is_compared_with_separate_calls_and_with_the_floor(tiny):
    backbone = tiny()
    found = generation(backbone, prompt=6, answer=4, draws=3, repeats=2, rate=1e9)
    checked(found["rungs"])
    assert list(found["rungs"]) == ["separate", "together", "shared"]
    rung = found["rungs"]["shared"]
    assert found["speedup_draws3"] == found["rungs"]["separate"]["median"] / rung["median"]
    weights = sum(p.numel() for p in backbone.model.parameters())  # tied: the table is read as the head
    per_token = 2 * 2 * 1 * 16  # layers, keys and values, heads of these, width
    assert found["weight_bytes"] == 4 * weights
    assert found["cache_bytes_per_token"] == 4 * per_token
    floor = 3 * 4 * (weights + per_token * (6 + 3 * 2)) / found["copy_rate"]
    assert rung["floor"] == pytest.approx(floor)
    assert found["rungs"]["separate"]["floor"] == pytest.approx(
        3 * 4 * (3 * weights + per_token * 3 * (6 + 2)) / found["copy_rate"]
    )
    assert rung["over_floor"] * rung["floor"] == pytest.approx(rung["median"] - found["prefill"]["median"])


def test_a_queue_is_compared_with_batches(tiny):
    found = queueing(tiny(), questions=4, prompt=3, answer=4, batch_size=2, repeats=1, timer="cpu")
    checked(found["rungs"])
    assert found["speedup_queue"] == found["rungs"]["queue"]["speedup"]


def test_collecting_is_compared_with_writing_alone(tiny):
    found = collecting(tiny(), count=3, batch_size=2, repeats=1)
    checked(found["rungs"])
    assert found["over_generate"] == found["rungs"]["collect"]["median"] / found["rungs"]["generate"]["median"]


def test_answers_with_thoughts_are_compared_with_plain_ones(tiny):
    found = writing_thoughts(tiny(), questions=3, prompt=4, answer=6, every=2, repeats=1)
    checked(found["rungs"])
    assert list(found["rungs"]) == ["plain", "ready", "thoughts"]
    assert found["over_plain"] == found["rungs"]["thoughts"]["median"] / found["rungs"]["plain"]["median"]


def test_a_machine_has_rates_and_a_name():
    for rate in (
        matrix_rate(CPU, torch.float32, (8, 16, 4)),
        matrix_rate(CPU, torch.bfloat16, (8, 8, 8)),
        copy_rate(CPU, 4096),
    ):
        assert rate > 0
        assert math.isfinite(rate)
    told = description(CPU)
    assert told["device"] == "cpu"
    assert told["name"]
    assert told["cores"] >= 1
    assert (told["threads"], told["torch"]) == (torch.get_num_threads(), torch.__version__)
