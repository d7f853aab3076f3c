"""LTM's inference where the posterior is known: variational Bayes, the likeliest point, Langevin, and the bounds."""

import math

import torch
from torch import Tensor

from workbench.methods.ltm import Gaussian, Loop, infer, langevin
from workbench.methods.ltm.bounds import mean_likelihood, weighted
from workbench.methods.ltm.inference import rates


class Linear:
    """x = A z + e, e ~ N(0, s^2): the posterior is Gaussian with precision I + A'A / s^2; A has orthogonal columns, so
    that it is diagonal. Two x, each `times` times."""

    def __init__(self, times: int = 1) -> None:
        generator = torch.Generator().manual_seed(4)
        basis, _ = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64, generator=generator))
        self.a = basis * torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
        self.x = torch.randn(2, 6, dtype=torch.float64, generator=generator).repeat(times, 1)
        self.noise = 0.5
        precision = torch.eye(4, dtype=torch.float64) + self.a.T @ self.a / self.noise**2
        self.mean = self.x @ self.a @ torch.linalg.inv(precision) / self.noise**2
        self.variance = (1 / precision.diagonal()).expand(2 * times, 4)
        spread = self.a @ self.a.T + self.noise**2 * torch.eye(6, dtype=torch.float64)
        zero = torch.zeros(6, dtype=torch.float64)
        self.evidence = -torch.distributions.MultivariateNormal(zero, spread).log_prob(self.x)

    def nll(self, z: Tensor) -> Tensor:
        rest = (self.x - z.flatten(1) @ self.a.T) / self.noise
        return 0.5 * rest.square().sum(1) + 6 * math.log(self.noise * (2 * math.pi) ** 0.5)

    def draws(self, seed: int = 5):
        generator = torch.Generator().manual_seed(seed)
        return lambda: torch.randn(len(self.x), 2, 2, dtype=torch.float64, generator=generator)

    @property
    def begin(self) -> Gaussian:
        zero = torch.zeros(len(self.x), 2, 2, dtype=torch.float64)
        return Gaussian(zero, zero - 5)


def test_variational_bayes_finds_mean_and_variance_where_they_are_known():
    world = Linear()
    loop = Loop(rates(600, 0.1, "cosine", 1e-3), samples=4)
    q = infer(world.nll, world.begin, world.draws(), loop).posterior
    torch.testing.assert_close(q.mu.flatten(1), world.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(q.log_var.flatten(1), world.variance.log(), atol=0.08, rtol=0)


def test_the_likeliest_thoughts_are_found_without_noise():
    world = Linear()
    q = infer(world.nll, world.begin, world.draws(), Loop(rates(600, 0.1, "cosine", 1e-3), point=True)).posterior
    torch.testing.assert_close(q.mu.flatten(1), world.mean, atol=1e-3, rtol=0)
    assert (q.log_var == -5).all()


def test_langevin_samples_the_posterior():
    world, kept = Linear(400), []
    size = 0.05
    langevin(world.nll, world.begin.mu, world.draws(), [size] * 120, watch=lambda k, z: kept.append(z))
    chain = torch.stack(kept[80::20]).flatten(2).view(-1, 2, 4)  # the two x take turns
    torch.testing.assert_close(chain.mean(0), world.mean[:2], atol=0.08, rtol=0)
    # a step of size s on a precision p has the variance 1 / (p (1 - s p / 2))
    exact = world.variance[:2] / (1 - size / world.variance[:2] / 2)
    torch.testing.assert_close(chain.var(0), exact, rtol=0.15, atol=0)


def test_langevin_without_noise_is_gradient_ascent():
    world = Linear()
    z, _ = langevin(world.nll, world.begin.mu, lambda: torch.zeros(2, 2, 2, dtype=torch.float64), [0.005] * 2000)
    torch.testing.assert_close(z.flatten(1), world.mean, atol=1e-3, rtol=0)
    clipped, _ = langevin(
        world.nll, world.begin.mu, lambda: torch.zeros(2, 2, 2, dtype=torch.float64), [1.0], largest=0.5
    )
    torch.testing.assert_close(clipped.flatten(1).norm(dim=1), torch.full((2,), 0.5, dtype=torch.float64))


def test_bounds_are_the_evidence_at_the_exact_posterior_and_above_it_elsewhere():
    world, draws = Linear(), Linear().draws(6)
    exact = Gaussian(world.mean.view(2, 2, 2), world.variance.log().view(2, 2, 2))
    torch.testing.assert_close(weighted(world.nll, exact, draws, 3), world.evidence)  # every draw weighs the same
    off = Gaussian(exact.mu + 0.3, exact.log_var + 0.5)
    bound = torch.stack([world.nll(off.at(draws())) for _ in range(2000)]).mean(0) + off.kl().sum(1)
    tighter = torch.stack([weighted(world.nll, off, draws, 16) for _ in range(200)]).mean(0)
    assert (bound > tighter).all()
    assert (tighter > world.evidence).all()
    nlls = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])]
    expected = [-math.log((math.exp(-1) + math.exp(-3)) / 2), 2.0]
    torch.testing.assert_close(mean_likelihood(nlls), torch.tensor(expected))
