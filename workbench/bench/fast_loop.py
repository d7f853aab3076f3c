"""Speed of a step of LTM's fast loop beside a plainly written one, and over the arithmetic that cannot be left out.

    floor = (2 x products with weights + 3 x attention) / matrix rate        of all behind the first self-attention

Forward, then the gradient down to the thoughts; none by weights. Tokens read the last `window` places and the latent
vectors of their layer.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..methods.ltm import Decoder, Gaussian, Loop, Noise, Shape
from ..methods.ltm.inference import begun, rates
from ..methods.ltm.learning import Text, found_for, gradients_of
from .machine import Timer, alternating, matrix_rate

STEPS = 4  # of the fast loop in what is timed


@dataclass(frozen=True)
class Batch:
    """Random texts of bytes, as many and as long as in training on text."""

    texts: int = 16
    tokens: int = 128
    width: int = 128
    layers: int = 2
    heads: int = 4
    window: int = 32
    latents: int = 8
    vocabulary: int = 258

    @property
    def shape(self) -> Shape:
        return Shape(self.vocabulary, self.width, self.layers, self.heads, self.window, self.latents, self.tokens)

    def text(self, seed: int) -> Text:
        tokens = torch.randint(
            self.vocabulary, (self.texts, self.tokens + 1), generator=torch.Generator().manual_seed(seed)
        )
        return Text(tokens[:, :-1], tokens[:, 1:], None)


def plain_steps(decoder: Decoder, text: Text, start: Gaussian, noise: Noise, loop: Loop) -> Gaussian:
    """The fast loop as one would write it down: torch's Adam, autograd through the whole bound into every weight, all
    places over all, all logits, nothing kept from one step to the next."""
    mu, log_var = (value.clone().requires_grad_() for value in (start.mu, start.log_var))
    optimizer = torch.optim.Adam([mu, log_var])
    for rate in loop.rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        decoder.zero_grad()
        q = Gaussian(mu, log_var)
        states = decoder.states(text.read(decoder, plain=True), q.at(noise()))
        (decoder.nll(states, text.targets, whole=True) + q.kl().sum(1)).sum().backward()
        optimizer.step()
    return Gaussian(mu.detach(), log_var.detach())


def flops(batch: Batch) -> float:
    """Of one step, by the formula above."""
    shape, tokens = batch.shape, batch.texts * batch.tokens
    width, inner = shape.width, shape.inner
    products = tokens * (2 * width**2 + 6 * width * inner)  # the first layer behind what is read once
    products += tokens * (shape.layers - 1) * (12 * width**2 + 6 * width * inner)
    products += batch.texts * shape.latents * 4 * width**2  # keys and values of the latents
    products += tokens * 2 * shape.vocabulary * width
    seen = (shape.layers - 1) * min(shape.window, batch.tokens) + shape.latents
    return 2.0 * products + 3.0 * tokens * 4 * seen * width


def inner_steps(
    batch: Batch | None = None, *, repeats: int = 5, seed: int = 0, timer: Timer = "wall"
) -> dict[str, Any]:
    """Seconds of a step of the fast loop.

    reference: `plain_steps`. shortcuts: as thoughts are inferred. trajectory: as they are inferred in training where
    all steps teach the weights.
    """
    batch = batch or Batch()
    torch.manual_seed(seed)
    decoder, text = Decoder(batch.shape), batch.text(seed)
    weights: list[Tensor] = list(decoder.parameters())
    loop = Loop(rates(STEPS, 0.3), clamp=None)

    def act(way: str) -> Any:
        noise = Noise(range(batch.texts), batch.latents, batch.width, decoder.embedding.weight)
        start = begun(noise, -5.0)
        if way == "reference":
            return plain_steps(decoder, text, start, noise, loop)
        if way == "shortcuts":
            return found_for(decoder, text, start, noise, loop).posterior
        return gradients_of(decoder, text, weights, start, noise, loop).posterior

    ways = ("reference", "shortcuts", "trajectory")
    found = [act(way) for way in ways]
    difference = max(float((one.mu - found[0].mu).abs().max()) for one in found)
    if not difference < 1e-2:
        raise ValueError(f"posteriors of the ways differ by {difference:.2g}, at most 0.01 is rounding")
    rungs: dict[str, Any] = alternating({way: partial(act, way) for way in ways}, repeats, torch.device("cpu"), timer)
    rate = matrix_rate(torch.device("cpu"), torch.float32, (batch.texts * batch.tokens, batch.width, batch.shape.inner))
    floor = flops(batch) / rate
    for name, row in rungs.items():
        row |= {key: row[key] / STEPS for key in ("median", "low", "high")}
        row["speedup"] = rungs["reference"]["median"] / row["median"]
        if name != "trajectory":
            row |= {"floor": floor, "over_floor": row["median"] / floor}
    return {
        "speedup": rungs["shortcuts"]["speedup"],
        "over_floor": rungs["shortcuts"]["over_floor"],
        "largest_difference": difference,
        "matrix_rate": rate,
        "batch_size": batch.texts,
        "repeats": repeats,
        "timer": timer,
        "shape": vars(batch),
        "rungs": rungs,
    }
