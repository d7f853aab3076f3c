"""Damaged files and odd arguments, by the thousand: each is answered with one sentence or with a right result.

Seeded; WORKBENCH_FUZZ=100 tries a hundred times as many, see `make fuzz`.
"""

import json
import os
import random
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
import yaml
from fuzzing import DEEP, ROWS, TIMES, damaged, kind, lines_of, sound, told, variants
from lta_parity import published_file
from safetensors.torch import save_file

from workbench import bench, figures, projection, runs
from workbench.__main__ import main
from workbench.backbone import Backbone
from workbench.checks.official import export_official, import_official
from workbench.experiments import report
from workbench.files import from_json, from_yaml, quoted, read_json, read_jsonl, shown
from workbench.methods import build
from workbench.methods.lta_thinker import LTAThinkerConfig
from workbench.tasks.prompts import load_pack
from workbench.widgets.selections import read_selections

# ------------------------------------------------------------------------------------------------------ text formats


@pytest.mark.parametrize("text", [*DEEP, "9" * 5000, "[1e999]", '{"a": 1, "a": 2}', '"\\ud800"', "", "nul", "[1,"])
def test_json_that_is_none_is_refused_in_a_few_words(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not JSON \(.{5,200}\); give a JSON file$"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text("{}\n" + (text or "x") + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: not JSON \(.{5,200}\); each line must"):
        read_jsonl(tmp_path / "a.jsonl")


def test_json_of_any_editor_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, NaN, "\\ud83d\\ude00"]}')
    (first, second, third, fourth) = read_json(tmp_path / "a.json")["a"]
    assert (first, second, fourth) == (1, 2.5, "😀")
    assert third != third
    (tmp_path / "b.json").write_bytes('{"a": "ü"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"b\.json is not UTF-8 text; save it as UTF-8, or give a JSON file$"):
        read_json(tmp_path / "b.json")


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}\n" for k in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 3000, "- " * 3000 + "x", BOMB, MERGES, "&a [*a]", "&a {x: *a}", "x: " + "9" * 5000, "x: 1\nx: 2"),
        *("x: 2001-99-99", "x: [", "\tx: 1", "\x01", "? [a]\n: b", "!!python/object:os.system {}", "*x", "a: b: c"),
    ],
    ids=kind,
)
def test_yaml_that_is_none_is_refused_in_a_few_words(text):
    with pytest.raises(ValueError, match=r"^[^\n]{5,300}$"):
        from_yaml(text)


def test_yaml_may_use_aliases_and_byte_order_marks():
    assert from_yaml("\ufeffa: &x [1, 2]\nb: *x\nc: {<<: {d: 1}, e: 2}\n") == {
        "a": [1, 2], "b": [1, 2], "c": {"d": 1, "e": 2}
    }  # fmt: skip
    assert from_yaml("") is None


@pytest.mark.parametrize(
    "value", ["x" * 5000, ["x"] * 5000, 10**5000, "\0" * 5000, {"a": "\n" * 5000}, "\ud800"], ids=kind
)
def test_a_sentence_repeats_little_of_what_was_given(value):
    assert len(quoted(value)) <= 410
    assert quoted(value).isprintable()
    if isinstance(value, str):
        assert shown(value).isprintable()
    assert (quoted("short"), shown(Path("a/b"))) == ("'short'", "a/b")


def test_random_text_is_a_value_or_a_sentence():
    rng = random.Random(0)
    signs = '{}[]:,"&*!|>%@`-?# \n\t0123456789eE.+~<=aé\\u/' + string.ascii_letters
    for _ in range(400 * TIMES):
        text = "".join(rng.choice(signs) for _ in range(rng.randrange(40)))
        sound(lambda text=text: from_json(text), text)
        sound(lambda text=text: from_yaml(text), text)


# ---------------------------------------------------------------------------------------------------- figures of runs


def test_metrics(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    for case in variants(ROWS, 60, "metrics", lines_of):
        path.write_bytes(case)
        table = sound(lambda: runs.read_metrics(tmp_path), case)
        assert table is None or table.empty or table["step"].is_monotonic_increasing
        told(["figures", "--runs", str(tmp_path), "--out", str(tmp_path / "out"), "--formats=[]"], capsys, case)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"step": "2", "loss": 1.0}, "'step' must be a whole number, it is '2'"),
        ({"step": True, "loss": 1.0}, "'step' must be a whole number, it is True"),
        ({"step": 1, "loss": 1.0}, "'step' is 1, it must be over 1"),
        ({"step": 2, "loss": "low"}, "'loss' must be a number, it is 'low'"),
        ({"step": 2, "loss": float("inf")}, "'loss' is inf"),
        ({"step": 2, "warnings": "x"}, "'warnings' must be a list of sentences"),
        ({"loss": 1.0}, "lacks 'step'"),
    ],
)
def test_a_row_of_metrics_is_named(row, complaint, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"metrics.jsonl, line 2: {complaint}"):
        runs.read_metrics(tmp_path)


def test_tables_that_no_run_wrote_are_not_drawn():
    table = pd.DataFrame(ROWS)
    for column in ("step", "loss", "loss_focus"):
        for odd in ("x", [1], float("inf"), True, {}):
            with pytest.raises(ValueError, match=f"^{column} of this run holds what are no finite numbers"):
                figures.loss_curves(table.astype({column: object}).assign(**{column: [1, 2, odd, 4]}))
    with pytest.raises(ValueError, match="a row of this run has no step"):
        figures.loss_curves(table.assign(step=[1, None, 3, 4]), window=2)


def test_sidecars(tmp_path, capsys):
    figure = figures.loss_curves(pd.DataFrame(ROWS))
    paths = figures.save(figure, "it", tmp_path, {"run": "r"}, formats=[])
    value = json.loads(paths[-1].read_text())
    value["figure"]["layout"].pop("template", None)
    for case in variants(value, 60, "sidecar"):
        paths[-1].write_bytes(case)
        sound(lambda: figures.redraw(paths[-1]), case)
        argv = ["figures", "--from", str(paths[-1]), "--out", str(tmp_path / "out"), "--formats=[]"]
        if told(argv, capsys, case) == 0:
            assert read_json(tmp_path / "out" / "it.json")["source"] == read_json(paths[-1])["source"]


@pytest.mark.parametrize("missing", ["figure", "source"])
def test_a_sidecar_without_a_part_is_none(missing, tmp_path, capsys):
    (path,) = figures.save(go.Figure(), "it", tmp_path, formats=[])
    value = json.loads(path.read_text())
    del value[missing]
    path.write_text(json.dumps(value))
    argv = ["figures", "--from", str(path), "--out", str(tmp_path / "out")]
    assert main(argv) == 2
    assert "is no sidecar of a figure" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- run folders


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory) -> Path:
    """The folder of an untrained run: config.yaml and weights, small enough to damage hundreds of times."""
    folder = tmp_path_factory.mktemp("run")
    method = build("soft-prompt", Backbone.load(str(tiny_folder())))
    method.training_step, method.stage = 3, 0
    runs.save_weights(method, folder)
    runs.write_config(folder, runs.describe_method(method) | {"task": "arith", "data": None, "training": {"epochs": 2}})
    return folder


def test_settings_of_a_run(run, tmp_path, capsys):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    path = tmp_path / "config.yaml"
    for k, case in enumerate(
        variants(settings, 60, "settings", lambda value: yaml.safe_dump(value, allow_unicode=True).encode())
    ):
        path.write_bytes(case)
        config = sound(lambda: runs.read_config(tmp_path), case)
        assert config is None or isinstance(config["task"], str)
        if k % 6 == 0:  # a dry run takes longer
            told(["train", "--config", str(path), "--dry-run", "true", "--training.examples=4"], capsys, case)


def test_weights(run, tmp_path, tiny_folder):
    backbone = Backbone.load(str(tiny_folder()))
    good = (run / "weights.safetensors").read_bytes()
    rng = random.Random("weights")
    path = tmp_path / "weights.safetensors"
    for _ in range(60 * TIMES):
        case = damaged(good[:900], rng) + good[900:]
        path.write_bytes(case)
        method = sound(lambda: runs.load_method(path, backbone), case[:900])
        assert method is None or all(bool(p.isfinite().all()) for p in method.parameters())


def test_what_weights_say_of_themselves(run, tmp_path, tiny_folder):
    backbone = Backbone.load(str(tiny_folder()))
    method = runs.load_method(run, backbone)
    about = runs.describe_method(method) | {"training_step": 3, "stage": 0, "options": {"thoughts": 4}}
    tensors = {name: p.detach().clone() for name, p in method.named_parameters() if p.requires_grad}
    path = tmp_path / "weights.safetensors"
    for case in variants(about, 60, "about"):
        save_file(tensors, path, metadata={"workbench": case.decode("utf-8", "replace").replace("\0", "")})
        again = sound(lambda: runs.load_method(path, backbone), case)
        assert again is None or again.training_step in (3, None) or isinstance(again.training_step, int)
    for name, odd in [("thoughts", "four"), ("thoughts", [4]), ("thinks", 4), ("thoughts", None), ("thoughts", 2.5)]:
        save_file(tensors, path, metadata={"workbench": json.dumps(about | {"options": {name: odd}})})
        with pytest.raises(ValueError, match=f"describes itself wrongly .*{name}"):
            runs.load_method(path, backbone)
    bad = {name: tensor.clone().fill_(float("nan")) for name, tensor in tensors.items()}
    save_file(bad, path, metadata={"workbench": json.dumps(about)})
    with pytest.raises(ValueError, match="no finite numbers"):
        runs.load_method(path, backbone)


def test_process_files(tmp_path):
    runs.note_process(tmp_path, os.getpid())
    about = json.loads((tmp_path / "process.json").read_text())
    assert runs.running(tmp_path) == os.getpid()
    for case in variants(about, 100, "process"):
        (tmp_path / "process.json").write_bytes(case)
        assert sound(lambda: runs.running(tmp_path), case) in (None, os.getpid())


def test_names_of_snapshots(tmp_path):
    (tmp_path / "snapshots").mkdir()
    for name in ("step000002", "step²", "step", "stepx", "step-1", "step" + "9" * 200, "step000010", "step١٢"):
        (tmp_path / "snapshots" / f"{name}.safetensors").touch()
    assert runs.snapshot_steps(tmp_path) == [2, 10]


# -------------------------------------------------------------------------------------------------------- other files


def test_official_checkpoints(tmp_path, tiny_folder):
    backbone = Backbone.load(str(tiny_folder()))
    method = build("lta-thinker", backbone, LTAThinkerConfig.reference(2))
    folder = export_official(method, tmp_path / "good")
    rng = random.Random("official")
    for k in range(40 * TIMES):
        name = ("projection.bin", "TransformerBlock.bin")[k % 2]
        copy = shutil.copytree(folder, tmp_path / f"copy{k}")
        case = damaged((folder / name).read_bytes(), rng)
        (copy / name).write_bytes(case)
        found = sound(lambda copy=copy: import_official(copy, backbone, thoughts=2), case[:500])
        assert found is None or all(bool(p.float().isfinite().all()) for p in found.parameters())
        shutil.rmtree(copy)


@pytest.mark.parametrize("odd", ["nan", "sparse", "int", "name", "number", "list", "shape", "deep", "meta"])
def test_official_weights_of_another_kind_are_refused(odd, tmp_path, tiny_folder):
    backbone = Backbone.load(str(tiny_folder()))
    folder = export_official(build("lta-thinker", backbone, LTAThinkerConfig.reference(2)), tmp_path / "it")
    state: Any = torch.load(folder / "projection.bin", weights_only=True)
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    state = {
        "nan": state | {"bias": state["bias"].clone().index_fill_(0, torch.tensor(0), float("nan"))},
        "sparse": state | {"weight": state["weight"].float().to_sparse()},
        "int": state | {"bias": state["bias"].int()},
        "name": state | {"x" * 3000: state["bias"]},
        "number": state | {"bias": 3},
        "list": list(state),
        "shape": state | {"bias": state["bias"][:3]},
        "deep": deep,
        "meta": state | {"bias": state["bias"].to("meta")},
    }[odd]
    torch.save(state, folder / "projection.bin")
    with pytest.raises(ValueError, match=r"projection\.bin") as raised:
        import_official(folder, backbone, thoughts=2)
    assert len(str(raised.value)) < 600


def test_prompt_packs(tmp_path):
    pack = {
        "verify": False,
        "tasks": {"gsm8k": {"before": "Think.", "generator": "{N} thoughts"}, "gsm8k/llama": {"hint": "h"}},
    }
    for case in variants(pack, 100, "pack", lambda value: yaml.safe_dump(value, allow_unicode=True).encode()):
        (tmp_path / "pack.yaml").write_bytes(case)
        sound(lambda: load_pack(str(tmp_path / "pack.yaml")), case)


def test_experiments(tmp_path):
    good = tmp_path / "good"
    shutil.copytree(report.Path(__file__).parents[1] / "data/experiments/variance", good)
    assert len(report.read(good).table)
    rng = random.Random("experiments")
    for name in ("result.json", "table.csv", "runs.csv"):
        kept = (good / name).read_bytes()
        shutil.rmtree(good / "figures", ignore_errors=True)  # sidecars have a test of their own
        for _ in range(20 * TIMES):
            (good / name).write_bytes(case := damaged(kept, rng))
            sound(lambda: report.read(good), case[:500])
        (good / name).write_bytes(kept)


def test_benchmarks(tmp_path):
    (path,) = (report.Path(__file__).parents[1] / "data/benchmarks").glob("*.json")
    for case in variants(json.loads(path.read_text()), 60, "bench"):
        (tmp_path / "it.json").write_bytes(case)
        found = sound(lambda: bench.load(tmp_path / "it.json"), case)
        if found is not None:
            sound(lambda found=found: bench.ratio_table({"it": found}), case)


def test_selections(tmp_path):
    points = pd.DataFrame({"store": ["a"] * 3, "example": ["x", "y", "z"], "path": 0, "step": [0, 1, 2]})
    for case in variants({"mine": points.head(2).to_dict(orient="records")}, 100, "selections"):
        (tmp_path / "it.json").write_bytes(case)
        sound(lambda: read_selections(points, tmp_path / "it.json"), case)


def test_a_damaged_cache_is_computed_again(tmp_path):
    points = np.random.default_rng(0).normal(size=(9, 2))
    np.save(tmp_path / "it.npy", points)
    good, rng = (tmp_path / "it.npy").read_bytes(), random.Random("cache")
    for _ in range(200 * TIMES):
        (tmp_path / "it.npy").write_bytes(case := damaged(good[:140], rng) + good[140:])
        found = sound(lambda: projection._cached(tmp_path / "it.npy", (9, 2)), case)
        assert found is None or (found.shape == (9, 2) and np.isfinite(found).all())
    np.savez(tmp_path / "it.npz", a=points)
    assert projection._cached(tmp_path / "it.npz", (9, 2)) is None


def test_parity_files(tmp_path, capsys):
    tensors = published_file()
    save_file(tensors, tmp_path / "it.safetensors")
    good, rng = (tmp_path / "it.safetensors").read_bytes(), random.Random("parity")
    header = 8 + int.from_bytes(good[:8], "little")
    for k in range(60 * TIMES):
        if k % 2:
            (tmp_path / "it.safetensors").write_bytes(case := damaged(good[:header], rng) + good[header:])
        else:
            case = changed_tensors(tensors, rng)
            save_file(case, tmp_path / "it.safetensors")
        told(["check", "lta-parity", str(tmp_path / "it.safetensors")], capsys, case)


def changed_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """One tensor dropped, of another dtype or shape, or with another number in it."""
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    dtypes = (torch.float16, torch.int64, torch.bool, torch.complex64, torch.uint8, torch.float8_e4m3fn, torch.uint16)
    flat = tensor.clone().flatten()
    if len(flat):
        odd = (
            rng.choice([-1, 0, 2**31 - 1, 7])
            if not tensor.is_floating_point()
            else float(rng.choice(["nan", "inf", "1e30"]))
        )
        flat[rng.randrange(len(flat))] = odd if tensor.dtype != torch.bool else False
    options = [
        None, tensor.to(rng.choice(dtypes)), tensor[None], tensor.reshape(-1), torch.zeros(0), torch.zeros(()),
        flat.reshape(tensor.shape), tensor[:0] if tensor.ndim else tensor[None, None],
    ]  # fmt: skip
    other = rng.choice(options)
    rest = {key: value for key, value in tensors.items() if key != name}
    return rest if other is None else rest | {name: other.contiguous().clone()}
