"""`workbench check latent-sft`: our numbers beside those of the public code, and files that are not such."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.__main__ import main
from workbench.checks import check

FILE = Path(__file__).parent / "data" / "latent_sft.safetensors"
ALL = 119  # expected tensors of the file
CASES = ("layout.", "mixture.", "noise.", "kl.", "stage1.", "stage2.", "think.")


def content(*parts: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the file: what all cases share, and these parts or cases."""
    with safe_open(FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    return {n: t for n, t in tensors.items() if not n.startswith(CASES) or n.startswith(parts)}, about


def written(tensors: dict[str, Tensor], about: dict[str, str], folder: Path) -> Path:
    path = folder / "file.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about)
    return path


def test_the_published_numbers_are_ours(capsys):
    assert main(["check", "latent-sft", str(FILE), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert found["tolerance"] == 2e-5
    assert len(found["max_abs"]) == ALL
    assert max(found["max_abs"].values()) < 2e-5


@pytest.mark.parametrize(
    "name",
    [
        "layout.0.expected.decoder_mask", "layout.1.expected.encoder_positions", "mixture.0.expected.grad.hidden",
        "noise.1.expected.weights", "kl.0.expected.kl", "stage1.0.expected.grad.compress",
        "stage2.0.expected.likelihood", "think.1.expected.tokens",
    ],
)  # fmt: skip
def test_a_planted_number_is_found(name, tmp_path):
    tensors, about = content(name[: name.index("expected")])
    value = tensors[name].clone()
    flat = value.view(-1)
    flat[0] = ~flat[0] if value.dtype == torch.bool else flat[0] + (1e-3 if value.is_floating_point() else 1)
    found = check("latent-sft", written(tensors | {name: value}, about, tmp_path))
    assert list(found.wrong) == [name]


def test_a_cap_of_none_and_a_mark_that_wins_at_once_are_counted(tmp_path):
    """No latent: nothing is expected of them but how the chain ended."""
    tensors, about = content("think.0.")
    none = {"think.0.expected.vectors": torch.zeros(0, 12), "think.0.expected.tokens": torch.zeros(0, dtype=torch.long)}
    tensors |= none | {"think.0.max_latents": torch.tensor(0), "think.0.expected.ended": torch.tensor(0)}
    assert check("latent-sft", written(tensors, about, tmp_path)).to_dict()["passed"]
    tensors, about = content("think.0.")
    first = tensors["think.0.expected.tokens"][:1]  # the word that wins at once: let it be the mark
    tensors |= none | {"think.0.end_ids": first, "think.0.expected.ended": torch.tensor(1)}
    assert check("latent-sft", written(tensors, about, tmp_path)).to_dict()["passed"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layout.0.ratio": torch.tensor(0)}, "layout.0.ratio' holds 0; give numbers from 1"),
        ({"layout.0.cot_ids": torch.zeros(0, dtype=torch.long)}, "layout.0.cot_ids' is empty"),
        ({"stage1.0.cot_ids": torch.tensor([[-1, 3, 4], [3, 4, 5]])}, "has ids behind its padding"),
        ({"stage2.0.prompt_ids": torch.full((2, 5), -1)}, "stage2.0.prompt_ids' has an empty row"),
        (
            {"noise.0.temperature": torch.tensor(0.0, dtype=torch.float64)},
            "noise.0.temperature' is 0; give a number above 0",
        ),
        ({"kl.0.tokens": torch.full((4, 6), 99)}, "kl.0.tokens' holds 99; give numbers from 0 to 33"),
        ({"think.0.end_ids": torch.zeros(0, dtype=torch.long)}, "think.0.end_ids' is empty"),
        ({"encoder.norm.weight": torch.ones(5)}, r"the weights encoder.\* in .* do not fit its config"),
        ({"compress": torch.ones(5)}, "tensor 'compress' has shape"),
        ({"stage1.0.expected.more": torch.ones(1)}, "expects 'stage1.0.expected.more', which is not known here"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(changes, sentence, tmp_path, capsys):
    tensors, about = content(*CASES)
    path = written(tensors | changes, about, tmp_path)
    with pytest.raises(ValueError, match=sentence):
        check("latent-sft", path)
    assert main(["check", "latent-sft", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_of_another_method_is_refused(tmp_path):
    tensors, about = content("kl.")
    with pytest.raises(ValueError, match="give one of kind 'latent-sft'"):
        check("latent-sft", written(tensors, about | {"kind": "lt-tuning"}, tmp_path))
