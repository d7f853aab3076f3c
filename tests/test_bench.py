"""The benchmark: its ways compute the same, its floor is counted rightly, and it says what it promises. No times."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from workbench import bench as benchmarks
from workbench.__main__ import main
from workbench.bench import tables
from workbench.bench.models import eight_billion, mid_size
from workbench.bench.superpositions import PAIRS, training_latents
from workbench.bench.training import RUNGS, Rung, Shape, flops, reference_loss, training, training_thoughts
from workbench.methods import build
from workbench.methods.lta_thinker import LTAThinkerConfig

SMALL = Shape(constant=4, question=8, target=6)


def test_the_reference_shape_is_the_likelihood_of_the_library(tiny):
    method = build("lta-thinker", tiny(), LTAThinkerConfig(thoughts=3))
    prompts = SMALL.prompts(method.backbone, 5)
    ours = method.likelihood(prompts, method.think(prompts)).mean()
    for batched in (True, False):
        torch.testing.assert_close(reference_loss(method, prompts, batched), ours, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_result_has_every_rung_and_ratio(tiny):
    found = training(tiny(), SMALL, batch_size=3, repeats=1, timer="cpu")
    assert set(found["rungs"]) == {rung.name for rung in RUNGS}
    assert 0 < found["largest_difference"] < 1e-3
    for row in found["rungs"].values():
        assert row["low"] <= row["median"] <= row["high"]
        assert row["speedup"] == pytest.approx(found["rungs"]["reference"]["median"] / row["median"])
        assert row["over_floor"] == pytest.approx(row["median"] / row["floor"])
    assert found["speedup"] == found["rungs"]["constant"]["speedup"]
    method = build("lta-thinker", tiny(), LTAThinkerConfig(thoughts=4, alignment="none", focus_weight=0.0))
    for rung in RUNGS:  # the floor is one step's: of four batches the mean
        least = flops(method, SMALL.prompts(method.backbone, 12), rung, SMALL) / 4 / found["matrix_rate"]
        assert found["rungs"][rung.name]["floor"] == pytest.approx(max(least, found["bytes_floor"]))


@pytest.mark.slow
def test_each_shortcut_of_latent_sft_is_compared_with_its_plain_way(tiny):
    found = training_latents(tiny(), replace(SMALL, target=14), batch_size=3, repeats=1, timer="cpu")
    assert found["largest_difference"] < 1e-4
    assert set(found["rungs"]) == {way for pair in PAIRS.values() for way in pair}
    for name, (plain, way) in PAIRS.items():
        assert found[f"speedup_{name}"] == found["rungs"][plain]["median"] / found["rungs"][way]["median"]


def test_training_with_thoughts_is_compared_with_plain_fine_tuning(tiny):
    found = training_thoughts(tiny(), replace(SMALL, thoughts=2), batch_size=3, repeats=1, timer="cpu")
    assert list(found["rungs"]) == ["plain", "longer", "thoughts"]
    assert found["passes"] == 3
    assert found["over_plain"] == found["rungs"]["thoughts"]["median"] / found["rungs"]["plain"]["median"]
    assert found["over_longer"] == found["rungs"]["thoughts"]["median"] / found["rungs"]["longer"]["median"]


def test_the_compiled_way_is_measured_when_asked_for(tiny, monkeypatch):
    """Whether it computes the same is asked in test_packing."""
    module, within = sys.modules[training.__module__], []
    monkeypatch.setattr(module, "compiled", lambda model: nullcontext(within.append(model)))
    backbone = tiny()
    found = training(backbone, SMALL, batch_size=3, repeats=1, timer="cpu", compile=True)
    assert within == [backbone.model] * 3  # to compare gradients, to warm up, to be timed
    assert list(found["rungs"])[-1] == "compiled"
    for key in ("speedup", "over_floor"):
        assert found[f"{key}_compiled"] == found["rungs"]["compiled"][key]


def test_rungs_that_compute_something_else_are_refused(tiny, monkeypatch):
    right = reference_loss
    module = sys.modules[training.__module__]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "reference_loss", lambda *given: 1.01 * right(*given))
    backbone = tiny()
    before = backbone.prefixes
    with pytest.raises(ValueError, match=r"gradients of the rungs differ by 0\.0099 of their size"):
        training(backbone, SMALL, batch_size=3, repeats=1)
    assert (backbone.prefixes, backbone.padded, backbone.full_logits) == (before, False, False)


def test_the_floor_is_counted_by_hand(tiny):
    """Llama of 2 layers: per token and layer 2 x (q, k, v, o, gate, up, down) weights, and attention to what stands
    before."""
    backbone = tiny("llama")
    method = build("soft-prompt", backbone)
    config = backbone.model.config
    layer = [p for name, p in backbone.model.named_parameters() if ".0." in name and p.ndim == 2]
    weights = config.num_hidden_layers * sum(p.numel() for p in layer)
    (prompt,) = Shape(constant=4, question=8, target=6, thoughts=4).prompts(backbone, 1)
    before, behind = len(prompt.before), 4 + len(prompt.after) + len(prompt.target) - 1
    pair = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    head = backbone.table.numel() * len(prompt.target)
    own = 6 * sum(p.numel() for p in method.parameters() if p.requires_grad) * (len(prompt.question) + 5)
    suffix = 4 * weights * behind + pair * behind * (2 * before + 3 * behind / 2) + 4 * head + own
    read = {"off": before, "constant": before - 4, "full": 0}
    for mode, count in read.items():
        # the last `count` of the prefix look at all before them
        seen = sum(range(before - count, before)) + count / 2
        wanted = suffix + 2 * weights * count + pair * seen
        assert flops(method, [prompt], Rung("x", prefix=mode), Shape(4, 8, 6)) == pytest.approx(wanted)


def test_the_command_prints_a_table_or_json_and_writes_it(monkeypatch, tiny, tmp_path, capsys):
    part = {"speedup": 2.5, "rungs": {"reference": {"median": 0.02, "low": 0.01, "high": 0.03, "speedup": 1.0}}}
    result = {"machine": {"device": "cpu", "copy_rate": 1e9}, "training": part | {"mid_size": part}}
    monkeypatch.setattr(benchmarks, "bench", lambda *given, **named: result)
    assert main(["bench", "training", "--out", str(tmp_path / "a" / "b.json")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("device cpu, copy_rate 1e+09\n\ntraining: speedup 2.5\n  reference ")
    assert "20.0 ms [10.0, 30.0]" in said
    assert "\ntraining mid_size: speedup 2.5\n" in said
    assert said == tables(result) + "\n"
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == result
    assert main(["bench", "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert main(["bench", "all", "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path} is a folder; name a file" in capsys.readouterr().err


def test_invented_prompts_begin_alike_and_are_the_same_every_time(tiny):
    backbone = tiny()
    one, other = (SMALL.prompts(backbone, 3) for _ in range(2))
    assert all(torch.equal(a.before, b.before) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(p.before[:4], one[0].before[:4]) for p in one)
    assert len({tuple(p.before.tolist()) for p in one}) == 3


def test_random_models_have_the_shapes_they_are_named_after():
    """29 million weights, and those of Qwen/Qwen3-8B (8.19 billion, in bfloat16), not allocated here."""
    small, large = mid_size(), eight_billion(torch.device("meta"))
    assert round(sum(p.numel() for p in small.model.parameters()) / 1e6) == 29
    assert sum(p.numel() for p in large.model.parameters()) == 8_190_735_360
    assert {p.dtype for p in large.model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(small.table, mid_size().table)
    assert not torch.equal(small.table, mid_size(1).table)
