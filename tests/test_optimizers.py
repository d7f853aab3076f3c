"""Muon: the formula, its precision by what a device has units for, and the bits of torch's own in bfloat16."""

import pytest
import torch
from torch import nn

from workbench import TrainConfig
from workbench.bench.optimizers import WAYS, optimizing
from workbench.bench.training import Shape
from workbench.training.optimizers import Muon, make_optimizers, orthogonal, quick_precision


def weights(count=3):
    """A wide, a tall and a square matrix, and gradients for a few steps."""
    chance = torch.Generator().manual_seed(0)
    shapes = ((6, 20), (20, 6), (8, 8))
    starts = [torch.randn(shape, generator=chance) for shape in shapes]
    return starts, [[torch.randn(shape, generator=chance) for shape in shapes] for _ in range(count)]


def stepped(make, starts, grads):
    parameters = [nn.Parameter(start.clone()) for start in starts]
    optimizer = make(parameters)
    for step in grads:
        for parameter, grad in zip(parameters, step, strict=True):
            parameter.grad = grad.clone().to(parameter.dtype)
        optimizer.step()
    return [p.detach() for p in parameters]


def test_in_bfloat16_it_is_torchs_to_the_bit():
    starts, grads = weights()
    ours = stepped(lambda p: Muon(p, 0.02, 0.1, "bfloat16"), starts, grads)
    theirs = stepped(lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.1), starts, grads)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_in_float32_it_is_the_formula():
    """Restated in float64: momentum 0.95 by Nesterov, x <- a x + (b g + c g^2) x five times with g = x x^T."""
    starts, grads = weights()
    ours = stepped(lambda p: Muon(p, 0.02, 0.1, "float32"), starts, grads)
    for place, start in enumerate(starts):
        weight, kept = start.double(), torch.zeros_like(start).double()
        for step in grads:
            grad = step[place].double()
            kept = 0.95 * kept + 0.05 * grad
            x = 0.05 * grad + 0.95 * kept
            x = x / x.norm()
            for _ in range(5):
                gram = x @ x.T
                x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
            weight = weight * (1 - 0.02 * 0.1) - 0.02 * max(1, start.shape[0] / start.shape[1]) ** 0.5 * x
        torch.testing.assert_close(ours[place].double(), weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_update_is_nearly_orthogonal_whatever_the_precision(precision):
    matrix = weights()[0][0]
    found = orthogonal(matrix, precision).float()
    values = torch.linalg.svdvals(found)
    assert found.shape == matrix.shape
    assert 0.65 < values.min() <= values.max() < 1.25
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    share = (left.T @ found @ right.T).diagonal().square().sum() / found.square().sum()
    assert share > 1 - (1e-6 if precision == torch.float32 else 1e-3)  # the singular vectors are the matrix's


@pytest.mark.parametrize(
    ("known", "precision"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_precision_goes_by_what_the_processor_has(monkeypatch, known, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert quick_precision(torch.device("cpu")) == precision
    starts, grads = weights(1)
    chosen = stepped(lambda p: Muon(p, 0.02, 0.0, "auto"), starts, grads)
    named = stepped(lambda p: Muon(p, 0.02, 0.0, str(precision).removeprefix("torch.")), starts, grads)
    assert all(torch.equal(one, other) for one, other in zip(chosen, named, strict=True))


def test_the_precision_is_a_setting_of_training(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert make_optimizers(nn.Linear(2, 3), TrainConfig(muon_precision="bfloat16"))[0].precision == "bfloat16"
    with pytest.raises(ValueError, match="muon_precision"):
        TrainConfig(muon_precision="float16")  # pyright: ignore[reportArgumentType]


def test_how_fast_adamw_forgets_is_a_setting_of_training():
    for optimizer, place in (("muon", 1), ("adamw", 0)):
        config = TrainConfig(optimizer=optimizer, adamw_beta2=0.95)
        assert make_optimizers(Paced(2, 3), config)[place].defaults["betas"] == (0.9, 0.95)
    with pytest.raises(ValueError, match=r"adamw_beta2 is 1.0; give a number from 0 to 0.9999"):
        TrainConfig(adamw_beta2=1.0)


class Paced(nn.Linear):
    """As much of a method as optimisers look at."""

    def pace(self, name: str) -> float:
        return 1.0


def test_steps_of_all_optimizers_are_timed(tiny, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    found = optimizing(tiny(), Shape(constant=4, question=8, target=6), repeats=1, timer="cpu")
    assert list(found["rungs"]) == list(WAYS)
    assert found["taken"] == "float32"
    assert found["over_adamw"] == found["rungs"]["muon float32"]["median"] / found["rungs"]["adamw"]["median"]
