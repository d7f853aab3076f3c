"""LTA-Thinker against numbers of the published code: `workbench check lta-parity` on parity files."""

import json

import lta_parity
import pytest
import torch
from lta_parity import expectations, published_file, random_case
from safetensors.torch import save_file

from workbench.__main__ import main
from workbench.checks.lta_parity import NO_STEPS, TOLERANCE, read_tensors
from workbench.checks.lta_parity import lta_parity as parity

# ------------------------------------------------------------------------------------------------------- parity: passes


def whole_file(seed=0, **options):
    case = random_case(seed, **options)
    return case | expectations(case)


def test_the_published_example_passes(capsys):
    assert main(["check", "lta-parity", str(lta_parity.FILE)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    weights = ("projection.weight", "in_proj_weight", "linear1.weight")
    gradients = [f"grad_{loss}.{weight}" for loss in ("focus", "align") for weight in weights]
    expected = [f"max_abs.{name}" for name in ("Z", "U", "L_focus", "L_align", *gradients)]
    assert [line.split()[0] for line in out.splitlines()] == expected
    assert main(["check", "lta-parity", str(lta_parity.FILE), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert found["notes"] == []
    assert len(found["max_abs"]) == 10
    assert max(found["max_abs"].values()) < 2e-6


def test_the_shipped_file_is_what_its_program_writes():
    shipped, made = read_tensors(lta_parity.FILE), published_file()
    assert shipped.keys() == made.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(shipped[name], tensor, atol=2e-6, rtol=0)


CASES = [
    {}, {"width": 4}, {"width": 96, "batch": 5, "steps": 7}, {"width": 320, "batch": 2}, {"steps": 1}, {"batch": 1},
    {"stepless": 1}, {"eps": 1e-5}, {"eps": 0.1}, {"width": 128, "sharpness": 5.0}, {"sharpness": 0.02},
]  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_files_not_seen_before_pass(seed, options):
    found = parity(whole_file(seed, **options))
    assert found.complaint is None
    assert len(found.max_abs) == 10
    assert max(found.max_abs.values()) < TOLERANCE / 2


def test_one_token_for_question_and_steps_gives_log_s_and_no_gradient():
    case = random_case(5, batch=2)
    for example in range(2):
        case["ids"][example, case["question_and_steps"][example]] = 7
    case["ids"][:, 0] = 1  # where a step that is not there points
    file = case | expectations(case)
    counts = (case["question_and_steps"][:, 1:] != 0).sum(1)
    assert file["L_focus"].item() == pytest.approx(counts.log().mean().item(), abs=1e-6)
    assert file["grad_focus.projection.weight"].abs().max() < 1e-5
    assert parity(file).complaint is None


@pytest.mark.parametrize("indices", [torch.uint8, torch.int16, torch.int32, torch.uint32])
@pytest.mark.parametrize("mask", [torch.bool, torch.int64, torch.float16])
def test_dtypes_make_no_difference(indices, mask):
    file = whole_file(3)
    file["thought_index"][:, :2] = 0
    for name in ("ids", "thought_index", "question_and_steps", "answer_ids"):
        file[name] = file[name].to(indices)
    file["mask"] = file["mask"].to(mask)
    file = {name: t.double() if t.is_floating_point() else t for name, t in file.items()}
    assert parity(file).complaint is None


def test_bfloat16_weights_are_computed_with_in_float32():
    case = random_case(4)
    case["embedding"], case["projection.weight"] = case["embedding"].bfloat16(), case["projection.weight"].bfloat16()
    assert parity(case | expectations(case)).complaint is None


def test_padding_may_hold_anything():
    file = whole_file(6)
    padding = ~file["mask"]
    assert padding.any()
    file["ids"][padding] = -100
    for name in ("Z", "U"):
        file[name][padding] = torch.nan
    assert parity(file).complaint is None


def test_names_may_be_longer_and_optional_gradients_are_compared():
    file = whole_file(7)
    for loss in ("focus", "align"):
        file[f"grad_{loss}.self_attn.in_proj_weight"] = file.pop(f"grad_{loss}.in_proj_weight")
        name = f"grad_{loss}.linear1.weight"
        file[f"grad_{loss}.TransformerBlock.linear1.weight"] = file.pop(name)
    file["L_focus"] = file["L_focus"][None]
    file["grad_align.norm1.weight"] = torch.full_like(file["TransformerBlock.norm1.weight"], 9.0)
    file["seed"] = torch.tensor(7)
    found = parity(file)
    assert set(found.wrong) == {"grad_align.norm1.weight"}
    assert "grad_focus.self_attn.in_proj_weight" in found.max_abs
    assert "grad_align.TransformerBlock.linear1.weight" in found.max_abs
    assert found.notes[-1] == "not read: seed"


def test_the_check_leaves_file_and_random_numbers_alone():
    file = whole_file(8)
    before, state = {name: t.clone() for name, t in file.items()}, torch.random.get_rng_state()
    parity(file)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(file[name], t) for name, t in before.items())


def without_focus(file):
    return {name: t for name, t in file.items() if not name.startswith(("L_focus", "grad_focus"))}


def test_a_batch_without_any_step_is_said():
    file = whole_file(9, stepless=3)
    assert file["L_focus"].item() == pytest.approx(torch.tensor(4.0).log().item())
    assert NO_STEPS in parity(file).notes
    assert parity(file).complaint is None
    file = without_focus(file)
    file["question_and_steps"] = file["question_and_steps"][:, :1]
    found = parity(file)
    assert found.complaint is None
    assert set(found.max_abs) == {"Z", "U", "L_align", *(name for name in file if name.startswith("grad_align"))}
    assert NO_STEPS in found.notes


# -------------------------------------------------------------------------------------------------------- parity: fails


@pytest.mark.parametrize(
    "name", ["Z", "U", "L_focus", "L_align", "grad_focus.in_proj_weight", "grad_align.linear1.weight"]
)
def test_a_planted_error_fails(name, tmp_path, capsys):
    file = whole_file(10)
    file[name].view(-1)[0] += 3e-5
    save_file(file, tmp_path / "file.safetensors")
    assert main(["check", "lta-parity", str(tmp_path / "file.safetensors"), "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert not found["passed"]
    assert [key for key, value in found["max_abs"].items() if value > TOLERANCE] == [name]
    assert f"1 of 10 tensors differ by more than 1e-05, most of all {name}, which is off by 3.0e-05; " in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["TransformerBlock.self_attn.out_proj.bias", "TransformerBlock.norm2.weight", "projection.weight", "eps"]
)
def test_other_weights_fail(name):
    file = whole_file(11, eps=1e-5)
    file[name] = file[name] * 1.5 + 0.1
    assert {"Z", "U"} & set(parity(file).wrong)


def fault(name, change):
    return lambda file: file | {name: change(file[name])}


def poked(where, value):
    def change(tensor):
        tensor = tensor.clone()
        tensor[where] = value
        return tensor

    return change


FAULTS = {
    "the file lacks tensor 'mask'; a parity file needs embedding, ids": lambda f: {k: f[k] for k in f if k != "mask"},
    "lacks tensor 'L_focus'": without_focus,
    r"lacks tensor 'TransformerBlock\.norm2\.weight'": lambda f: {k: f[k] for k in f if "norm2" not in k},
    r"lacks tensor 'TransformerBlock\.linear1\.weight'": lambda f: {k: f[k] for k in f if "linear1" not in k},
    r"lacks tensor 'grad_align\.projection\.weight'": lambda f: {
        k: f[k] for k in f if k != "grad_align.projection.weight"
    },
    r"tensor 'mask' has shape \(3, \d+\), needed is \(3, \d+\); give": fault("mask", lambda t: t[:, 1:]),
    r"tensor 'thought_index' has shape \(3, 3\), needed is \(3, 4\)": fault("thought_index", lambda t: t[:, 1:]),
    r"tensor 'ids' has shape \(3,\), needed is \(B, L\)": fault("ids", lambda t: t[:, 0]),
    r"tensor 'embedding' has shape \(50,\), needed is \(V, H\)": fault("embedding", lambda t: t[:, 0]),
    r"tensor 'projection\.weight' has shape \(12, 11\), needed is \(12, 12\)": fault(
        "projection.weight", lambda t: t[:, 1:]
    ),
    r"tensor 'Z' has shape \(3, \d+, 11\)": fault("Z", lambda t: t[..., 1:]),
    r"tensor 'L_align' has shape \(2,\), needed is \(\)": fault("L_align", lambda t: t.repeat(2)),
    r"'grad_focus\.linear1\.weight' has shape \(12, 25\)": fault("grad_focus.linear1.weight", lambda t: t.T),
    r"tensor 'ids' is torch\.float32; give indices": fault("ids", lambda t: t.float()),
    "tensor 'ids' points to 50, needed is 0 to 49": fault("ids", poked((0, 0), 50)),
    r"tensor 'question_and_steps' points to -1, needed is 0 to \d+": fault("question_and_steps", poked((1, 1), -1)),
    "tensor 'thought_index' points to 98": fault("thought_index", poked((0, 3), 99)),
    "tensor 'thought_index' has a row without thoughts": fault("thought_index", lambda t: t[:, [0, 1, 2, 2]]),
    "tensor 'answer_ids' points to 51": fault("answer_ids", poked((0, 0), 51)),
    "tensor 'answer_ids' has only padding where": fault("answer_ids", lambda t: t * 0),
    "tensor 'mask' holds values other than 0 and 1": fault("mask", lambda t: t * 2),
    "tensor 'mask' has an example without": fault("mask", poked(1, 0)),
    "tensor 'embedding' holds numbers that are not finite": fault("embedding", poked((0, 0), torch.inf)),
    "tensor 'U' holds numbers that are not finite": fault("U", poked((0, 0, 0), torch.nan)),
    "'question_and_steps' has no columns": lambda f: (
        without_focus(f) | {"question_and_steps": f["question_and_steps"][:, :0]}
    ),
    "'L_focus' is there, but 'question_and_steps' has no column for": fault("question_and_steps", lambda t: t[:, :1]),
    "has both '.*in_proj_weight' and '.*in_proj_weight'": lambda f: (
        f | {"grad_align.self_attn.in_proj_weight": f["grad_align.in_proj_weight"]}
    ),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_malformed_file_is_named(sentence):
    with pytest.raises(ValueError, match=sentence):
        parity(FAULTS[sentence](whole_file(12)))


def test_a_malformed_file_exits_with_two(tmp_path, capsys):
    path = tmp_path / "file.safetensors"
    save_file({"ids": torch.zeros(1, 2)}, path)
    for given, sentence in (
        (path, "workbench: the file lacks tensor 'embedding'"),
        (tmp_path / "nowhere", "workbench: no file at "),
        (__file__, f"workbench: {__file__} is not a safetensors file ("),
    ):
        assert main(["check", "lta-parity", str(given)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(sentence)
        assert len(err.splitlines()) == 1
