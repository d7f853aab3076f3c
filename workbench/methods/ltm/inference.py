"""The fast loop: a Gaussian over a text's thoughts, fitted to that text while the weights rest.

    q = N(mu, exp(log_var)),  z = mu + exp(log_var / 2) eps
    minimise over (mu, log_var)   E_eps[-ln p(x | z)] + w KL(q || N(0, I))        Adam, a new eps for every step

The gradient of the KL is known, so that autograd follows the likelihood alone, down to z. Rows never meet: what is
found for a text does not depend on its batch mates, given that its noise does not (`Noise`).

What works is one coupled knob: Adam moves log_var by about a learning rate per step, so from -5 the rates must sum to
about 5, or be many and fall. `floor` says what KL a setting leaves where there is nothing to learn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam
CLAMP = (-12.0, 4.0)  # log-variances stay in here: a step too many cannot blow them up
MEAN_STD, LOG_VAR_STD = 0.01, 0.1  # of the starting points
DIMENSIONS = 4096  # that `floor` watches
FAR = 0.5  # of the sum of rates from the way that log_var has to go: more is warned about
SETTLED = 48  # steps with falling rates after which the sum does not matter

Draws = Callable[[], Tensor]  # where standard noise comes from
Likelihood = Callable[[Tensor], Tensor]  # z [example, latent, feature] -> -ln p(x | z) of each example


@dataclass(frozen=True)
class Gaussian:
    """Thoughts of texts as independent Gaussians."""

    mu: Float[Tensor, "example latent feature"]
    log_var: Float[Tensor, "example latent feature"]

    def at(self, eps: Float[Tensor, "example latent feature"]) -> Float[Tensor, "example latent feature"]:
        """The thoughts that this standard noise stands for."""
        return self.mu + (0.5 * self.log_var).exp() * eps

    def kl(self) -> Float[Tensor, "example latent"]:
        """KL from the standard normal prior, of each latent vector, in nats."""
        return 0.5 * (self.mu.square() + self.log_var.exp() - 1 - self.log_var).sum(-1)

    def log_density(self, z: Float[Tensor, "example latent feature"]) -> Float[Tensor, "example"]:
        scaled = (z - self.mu).square() * (-self.log_var).exp()
        return -0.5 * (scaled + self.log_var + math.log(2 * math.pi)).flatten(1).sum(1)


def prior_log_density(z: Float[Tensor, "example latent feature"]) -> Float[Tensor, "example"]:
    """Of thoughts under the standard normal prior."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


class Noise:
    """Standard noise of each example from a generator of its own, so that batch mates change nothing."""

    def __init__(self, seeds: Sequence[int], latents: int, width: int, like: Tensor):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.size, self.like = (latents, width), like

    def __call__(self) -> Float[Tensor, "example latent feature"]:
        drawn = [torch.randn(self.size, generator=one) for one in self.generators]
        return torch.stack(drawn).to(self.like)


def begun(noise: Draws, log_var: float) -> Gaussian:
    """Where the fast loop starts: means near 0, log-variances near `log_var`."""
    return Gaussian(MEAN_STD * noise(), log_var + LOG_VAR_STD * noise())


def rates(steps: int, rate: float, shape: str = "constant", least: float = 0.1) -> list[float]:
    """Learning rates of the steps: all the same, or falling as half a cosine to `least` of the first."""
    if shape == "constant":
        return [rate] * steps
    low = least * rate
    return [low + 0.5 * (1 + math.cos(math.pi * t / steps)) * (rate - low) for t in range(steps)]


@dataclass(frozen=True)
class Loop:
    """How the fast loop goes. `shared`: one noise for all steps (the released code's). `decay`: decoupled, of both.
    `point`: mu alone, without noise (the likeliest thoughts)."""

    rates: Sequence[float]
    kl_weight: float = 1.0
    decay: float = 0.0
    shared: bool = False
    point: bool = False
    clamp: tuple[float, float] | None = CLAMP
    samples: int = 1


@dataclass
class Found:
    """What the fast loop came to. nll: of each step and example, at that step's thoughts. eps: the last noise.
    gradients: of `learned`, summed over steps, examples and tokens (None where nothing reached one)."""

    posterior: Gaussian
    nll: Float[Tensor, "step example"]
    eps: Tensor | None
    gradients: list[Tensor | None]


class Adam:
    """Adam on one tensor, as torch's AdamW goes, in place."""

    def __init__(self, value: Tensor):
        self.mean, self.square, self.count = torch.zeros_like(value), torch.zeros_like(value), 0

    @torch.no_grad()
    def step(self, value: Tensor, gradient: Tensor, rate: float, decay: float = 0.0) -> None:
        self.count += 1
        first, second = BETAS
        if decay:
            value.mul_(1 - rate * decay)
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (self.square / (1 - second**self.count)).sqrt_().add_(EPS)
        value.addcdiv_(self.mean, size, value=-rate / (1 - first**self.count))


def infer(
    likelihood: Likelihood,
    start: Gaussian,
    noise: Draws,
    loop: Loop,
    *,
    learned: Sequence[Tensor] = (),
    watch: Callable[[int, Gaussian], None] | None = None,
) -> Found:
    """The fast loop from `start`. `learned`: tensors whose gradient of the summed likelihood is added up on the way.

    `watch` is told of each step's Gaussian; it must copy what it keeps.
    """
    state = torch.stack([start.mu, start.log_var]).detach().clone()
    mu, log_var = state
    adam, shape = Adam(state), torch.zeros_like(state)
    total: list[Tensor | None] = [None] * len(learned)
    nlls, eps = [], None
    for number, rate in enumerate(loop.rates):
        shape.zero_()
        nll = mu.new_zeros(len(mu))
        for _ in range(loop.samples):
            if loop.point:
                eps = torch.zeros_like(mu)
            elif eps is None or not loop.shared:
                eps = noise()
            sigma = (0.5 * log_var).exp()
            value, slope, own = _slopes(likelihood, mu + sigma * eps, learned)
            nll = nll + value / loop.samples
            shape[0] += slope / loop.samples
            shape[1] += 0.5 * slope * eps * sigma / loop.samples
            for place, one in enumerate(own):
                if one is not None:
                    kept = total[place]
                    one = one / loop.samples
                    total[place] = one if kept is None else kept.add_(one)
        shape[0] += loop.kl_weight * mu
        shape[1] += 0.5 * loop.kl_weight * (log_var.exp() - 1)
        if loop.point:
            shape[1] = 0
        adam.step(state, shape, rate, loop.decay)
        if loop.clamp is not None:
            log_var.clamp_(*loop.clamp)
        nlls.append(nll)
        if watch is not None:
            watch(number, Gaussian(mu, log_var))
    return Found(Gaussian(mu, log_var), torch.stack(nlls) if nlls else mu.new_zeros(0, len(mu)), eps, total)


def _slopes(
    likelihood: Likelihood, z: Tensor, learned: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
    """-ln p of each example, its gradient by z, and that of the sum by what is learned."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = likelihood(z)
        if not value.requires_grad:  # a likelihood that does not depend on z
            return value.detach(), torch.zeros_like(z), [None] * len(learned)
        slope, *own = torch.autograd.grad(value.sum(), [z, *learned], allow_unused=True)
    return value.detach(), torch.zeros_like(z) if slope is None else slope, own


def langevin(
    likelihood: Likelihood,
    start: Float[Tensor, "example latent feature"],
    noise: Draws,
    sizes: Sequence[float],
    *,
    largest: float | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> tuple[Float[Tensor, "example latent feature"], Gaussian]:
    """Langevin sampling of p(z | x) (paper, eq. 4): z <- z + s grad(ln p(x | z) + ln p(z)) + sqrt(2 s) eps.

    Gives the last z, and a Gaussian around the second half of the chain. `largest`: norm of a text's gradient that is
    not exceeded.
    """
    z = start.clone()
    kept = [z]
    for number, size in enumerate(sizes):
        slope = _slopes(likelihood, z, ())[1] + z
        if largest is not None:
            norm = slope.flatten(1).norm(dim=1)[:, None, None]
            slope = slope * (largest / norm.clamp(min=largest))
        z = z - size * slope + math.sqrt(2 * size) * noise()
        kept = [*kept[-(len(sizes) // 2) :], z]
        if watch is not None:
            watch(number, z)
    chain = torch.stack(kept[1:] if len(kept) > 2 else kept)
    spread = chain.var(0, correction=0) if len(chain) > 1 else torch.zeros_like(z)
    return z, Gaussian(chain.mean(0), spread.clamp(min=math.exp(CLAMP[0])).log())


@dataclass(frozen=True)
class Floor:
    """KL per latent dimension that a setting leaves without any signal, in nats, and the mean log-variance."""

    kl: float
    log_var: float


def floor(loop: Loop, log_var: float, dimensions: int = DIMENSIONS) -> Floor:
    """The loop itself, on a likelihood that says nothing."""
    noise = Noise([0], dimensions, 1, torch.zeros(()))
    silent: Any = lambda z: z.new_zeros(len(z))  # noqa: E731
    found = infer(silent, begun(noise, log_var), noise, loop).posterior
    return Floor(float(found.kl().mean()), float(found.log_var.mean()))


def reaches(loop: Loop, log_var: float) -> bool:
    """Whether the rates take log_var from its start to that of the prior: they sum to that, or are many and fall."""
    falling = len(loop.rates) >= SETTLED and loop.rates[-1] < 0.5 * loop.rates[0]
    return falling or abs(sum(loop.rates) - abs(log_var)) < FAR
