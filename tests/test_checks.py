"""`workbench check`: a method's arithmetic beside numbers of its public code, and files that are not such."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.__main__ import main
from workbench.checks.parts import Parity

FILE = Path(__file__).parent / "data" / "lt_tuning.safetensors"
ALL = 115  # expected tensors of the file


def content(*parts: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the file: what all cases share, and these parts or cases."""
    with safe_open(FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    cases = ("fusion.", "positions.", "loss.", "decode.")
    kept = {name: t for name, t in tensors.items() if not name.startswith(cases) or name.startswith(parts)}
    return kept, about


def checked(
    tensors: dict[str, Tensor], about: dict[str, str], folder: Path, capsys, *more: str
) -> tuple[int, str, str]:
    path = folder / "file.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about)
    code = main(["check", "lt-tuning", str(path), *more])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_published_numbers_are_ours(capsys):
    assert main(["check", "lt-tuning", str(FILE), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["passed"]
    assert found["tolerance"] == 2e-5
    assert len(found["max_abs"]) == ALL
    assert max(found["max_abs"].values()) < 2e-5
    with safe_open(FILE, "pt") as file:
        assert set(found["max_abs"]) == {name for name in file.keys() if ".expected." in name}  # noqa: SIM118


def test_a_line_for_each_tensor(tmp_path, capsys):
    code, out, err = checked(*content("fusion.1.", "positions.2."), tmp_path, capsys)
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert names == sorted(names)
    assert len(names) == 4 + 5
    assert "max_abs.fusion.1.expected.grad.hidden" in names


@pytest.mark.parametrize("name", ["fusion.0.expected.vectors", "positions.1.expected.once", "decode.1.expected.inputs"])
def test_a_planted_number_is_found(name, tmp_path, capsys):
    tensors, about = content(name[: name.index("expected")])
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] += 1 if not tensors[name].is_floating_point() else 1e-3
    code, out, err = checked(tensors, about, tmp_path, capsys, "--json")
    found = json.loads(out)
    assert code == 1
    assert not found["passed"]
    assert [n for n, value in found["max_abs"].items() if value > 1e-4] == [name]
    assert len(err.splitlines()) == 1
    assert f"most of all {name}, which is off by" in err


def test_a_list_of_another_length_is_wrong(tmp_path, capsys):
    tensors, about = content("decode.0.")
    tensors["decode.0.expected.tokens"] = tensors["decode.0.expected.tokens"][:-1]
    code, out, err = checked(tensors, about, tmp_path, capsys, "--json")
    assert code == 1
    assert json.loads(out)["max_abs"]["decode.0.expected.tokens"] is None
    assert "which has another shape" in err


Change = Callable[[dict[str, Tensor]], object]


def dropped(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def to(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: tensors.update({name: change(tensors[name])})


FAULTS: dict[str, tuple[str, Change]] = {  # what stderr says: the part that is there, what is done to it
    "lacks the tensor 'fusion.0.alpha'": ("fusion.0.", dropped("fusion.0.alpha")),
    "lacks the tensor 'thinking_id'": ("fusion.0.", dropped("thinking_id")),
    "model.layers.1.mlp.up_proj.weight (24, 12) is there on one side": (
        "decode.0.", dropped("model.model.layers.1.mlp.up_proj.weight"),
    ),
    "model.norm.weight (11,) is there on one side": ("decode.0.", to("model.model.norm.weight", lambda t: t[1:])),
    "'model.lm_head.weight' is torch.float64; give torch.float32": (
        "decode.0.", to("model.lm_head.weight", lambda t: t.double()),
    ),
    "'model.lm_head.weight' holds numbers that are not finite": (
        "decode.0.", to("model.lm_head.weight", lambda t: t / 0),
    ),
    "lacks the tensor 'adapter.up.bias'": ("loss.2.", dropped("adapter.up.bias")),
    "'adapter.up.bias' has shape (11,), needed is (12,)": ("loss.2.", to("adapter.up.bias", lambda t: t[1:])),
    "'fusion.0.logits' has shape (3, 37), needed is (4, V)": ("fusion.0.", to("fusion.0.logits", lambda t: t[1:])),
    "'fusion.0.hidden' has shape (48,), needed is (R, d)": ("fusion.0.", to("fusion.0.hidden", lambda t: t.view(-1))),
    "'fusion.0.hidden' is torch.float16": ("fusion.0.", to("fusion.0.hidden", lambda t: t.half())),
    "'positions.0.ids' is torch.float32; give whole numbers": (
        "positions.0.", to("positions.0.ids", lambda t: t.float()),
    ),
    "'positions.0.ids' holds 99; give numbers from 0 to 36": (
        "positions.0.", to("positions.0.ids", lambda t: t * 0 + 99),
    ),
    "'positions.0.expected.once' is torch.float32": (
        "positions.0.", to("positions.0.expected.once", lambda t: t.float()),
    ),
    "'fusion.0.expected.vectors' is torch.int64": ("fusion.0.", to("fusion.0.expected.vectors", lambda t: t.long())),
    "'fusion.0.expected.vectors' is torch.float16; give torch.float32": (
        "fusion.0.", to("fusion.0.expected.vectors", lambda t: t.half()),
    ),
    "'fusion.0.alpha' is torch.float16; give one torch.float64": (
        "fusion.0.", to("fusion.0.alpha", lambda t: t.half()),
    ),
    "lacks the tensor 'fusion.0.expected.grad.logits'": ("fusion.0.", dropped("fusion.0.expected.grad.logits")),
    "lacks the tensor 'loss.0.expected.grad.lm_head.weight'": (
        "loss.0.", dropped("loss.0.expected.grad.lm_head.weight"),
    ),
    "lacks the tensor 'decode.0.end_id'": ("decode.0.", dropped("decode.0.end_id")),
    "lacks the tensor 'decode.2.forbid_thinking'": ("decode.2.", dropped("decode.2.forbid_thinking")),
    "'decode.0.prompt_ids' is empty": ("decode.0.", to("decode.0.prompt_ids", lambda t: t[:0])),
    "thinking_id is 40, no row of fusion.0.embedding": ("fusion.0.", to("thinking_id", lambda t: t * 0 + 40)),
    "'decode.0.mode' holds 7": ("decode.0.", to("decode.0.mode", lambda t: t * 0 + 7)),
    "'decode.0.layer' holds -4; give numbers from -3 to -1": ("decode.0.", to("decode.0.layer", lambda t: t * 0 - 4)),
    "'decode.0.end_id' holds 37; give numbers from 0 to 36": ("decode.0.", to("decode.0.end_id", lambda t: t * 0 + 37)),
    "thinking_id is 37, no word of the config's vocab_size 37": ("decode.0.", to("thinking_id", lambda t: t * 0 + 37)),
    "'loss.0.labels' is not -100 on a question": ("loss.0.", to("loss.0.labels", lambda t: t.clamp(max=3))),
    "'loss.0.position_ids' does not count": ("loss.0.", to("loss.0.position_ids", lambda t: t + 1)),
    "has the part 'gamma'; known are fusion, positions, loss, decode": (
        "fusion.0.", lambda tensors: tensors.update({"gamma.0.expected.x": torch.zeros(1)}),
    ),
    "expects 'fusion.0.expected.others', which is not known": (
        "fusion.0.", lambda tensors: tensors.update({"fusion.0.expected.others": torch.zeros(1)}),
    ),
    "expects nothing": ("nothing", lambda tensors: None),
}  # fmt: skip


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_file_of_another_layout_is_one_sentence(sentence, tmp_path, capsys):
    part, change = FAULTS[sentence]
    tensors, about = content(part)
    change(tensors)
    code, out, err = checked(tensors, about, tmp_path, capsys)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "ltm"}, "is of kind 'ltm'; give one of kind 'lt-tuning'"),
        ({"kind": "x" * 5000}, "is of kind 'xxxxxxx"),
        ({"config": "{"}, "is not JSON"),
        ({"config": "[1]"}, "is no JSON object"),
        ({"config": '{"model_type": "llama", "vocab_size": 37, "hidden_size": -3}'}, "no causal language model"),
        ({"config": '{"model_type": "no such model", "vocab_size": 37}'}, "no causal language model"),
        ({"config": '{"model_type": "llama", "vocab_size": 1000000000000}'}, "do not fit its config"),
        ({"config": '{"model_type": "llama"}'}, "no word of the config's vocab_size None"),
    ],
)
def test_other_metadata_is_one_sentence(change, sentence, tmp_path, capsys):
    tensors, about = content("decode.0.")
    code, out, err = checked(tensors, about | change, tmp_path, capsys)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert len(err) < 500


def test_what_is_no_file_of_numbers_is_one_sentence(tmp_path, capsys):
    (tmp_path / "empty").write_bytes(b"")
    save_file({"a": torch.zeros(1)}, tmp_path / "bare")
    for given, sentence in (
        (tmp_path / "nowhere", "no file at "), (tmp_path, "no file at "),
        (Path(__file__), "is not a safetensors file ("),
        (tmp_path / "empty", "is not a safetensors file ("), (tmp_path / "bare", "is of kind 'None'"),
    ):  # fmt: skip
        assert main(["check", "lt-tuning", str(given)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert sentence in err
        assert len(err.splitlines()) == 1
    assert main(["check", "lta-tuning", str(FILE)]) == 2
    assert "lt-tuning" in capsys.readouterr().err


def test_a_difference_counts_against_the_size_of_what_is_expected():
    found = Parity({"a": 1e-3, "b": 1e-3, "c": None, "d": float("nan")}, scales={"a": 100.0, "b": 1.0})
    assert set(found.wrong) == {"b", "c", "d"}
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["max_abs"] == {
        "a": 1e-3,
        "b": 1e-3,
        "c": None,
        "d": None,
    }
    assert Parity({"a": 1.5e-5}).complaint is None
    assert Parity({"a": 1.5e-5}, tolerance=1e-5).complaint is not None
