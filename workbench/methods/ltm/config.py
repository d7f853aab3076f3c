"""The settings of LTM: the corrected algorithm at a small size, the paper's, and the released code's."""

from dataclasses import dataclass, replace
from typing import Literal

from ...config import SEEDS, allowed, bounded
from .inference import CLAMP, Loop, rates

FALLING = 32  # steps from which on rates fall within the loop, unless told


@dataclass(frozen=True)
class LTMConfig:
    """A small model of texts of some 128 tokens, learned by the corrected algorithm."""

    tokenizer: Literal["backbone", "bytes", "letters"] = "backbone"
    """What words are: those of the backbone's tokenizer, bytes, or the 52 letters."""
    width: int = 128
    """Features of a state, and of a latent vector."""
    layers: int = 2
    """Layers of the decoder."""
    heads: int = 4
    """Attention heads."""
    window: int = 32
    """Places that self-attention sees, its own included. Layers x (window - 1) should be shorter than a text, or
    thoughts carry nothing that the text does not show."""
    latents: int = 8
    """Latent vectors over all layers; 0: none, the same model without thoughts (autoregressive)."""
    length: int = 128
    """Tokens of a text that the latents' places are spread over."""
    latent_pos: Literal["spread", "reference", "none"] = "spread"
    """Where the latents' keys turn as in RoPE: evenly over the text, as in the released code, or nowhere."""
    init: Literal["residual", "reference"] = "residual"
    """Which weights start smaller: what writes into the residual stream, or (as released) `up` in place of `down`."""
    inference: Literal["vb", "map", "langevin", "amortised", "semi-amortised"] = "vb"
    """How thoughts are found: a Gaussian fitted to each text, the likeliest point, samples by Langevin, an encoder's
    Gaussian (a VAE), or that one improved by `refining` steps."""
    steps: int = 16
    """Steps of the fast loop while training."""
    rate: float = 0.3125
    """Its learning rate at the first step of training."""
    rate_end: float | None = None
    """The same `rate_steps` training steps later; null: as at the first."""
    rate_steps: int = 60000
    """Training steps over which the rate goes to rate_end."""
    schedule: Literal["auto", "constant", "cosine"] = "auto"
    """Rates within the loop: constant, falling as a cosine to a tenth, or (auto) falling from 32 steps on."""
    test_steps: int = 64
    """Steps of the fast loop at test."""
    test_rate: float = 0.34
    """Its first learning rate at test."""
    log_var: float = -5.0
    """Where log-variances start."""
    noise: Literal["fresh", "shared"] = "fresh"
    """A new noise for each step, or (as released) one for all, which makes the bound none."""
    noises: int = 1
    """Noises that the gradient of a step is a mean over."""
    inner_decay: float = 0.0
    """Decoupled weight decay of the fast loop (0.01 as released, by accident)."""
    clamp: bool = True
    """Whether log-variances are kept within [-12, 4]."""
    slow_grad: Literal["final", "trajectory"] = "trajectory"
    """What weights learn from, where thoughts are found step by step (vb and map): a sample of the posterior that was
    found, or all steps on the way. The first needs a hold and a ramp of the KL, or thoughts are never used."""
    kl_hold: int = 0
    """Training steps in which the fast loop does not count the KL."""
    kl_ramp: int = 0
    """Training steps behind them over which it comes to count in full."""
    langevin_size: float = 0.01
    """Step size of Langevin."""
    langevin_clip: float = 1000.0
    """Largest norm of a text's gradient there."""
    encoder_layers: int = 2
    """Layers of the encoder, where there is one."""
    refining: int = 4
    """Steps of the fast loop behind it (semi-amortised)."""
    refining_rate: float = 0.05
    """Their learning rate."""
    thought: Literal["mean", "sample"] = "mean"
    """What stands in a store and is answered with: the posterior's mean, or a sample."""
    z_scale: float = 1.0
    """Factor of thoughts that come from the prior."""
    from_prior: bool = False
    """Thoughts at test are drawn from the prior: nothing is inferred."""
    replan_every: int = 0
    """Words after which thoughts are inferred anew from all that is written, beginning with the old ones; 0: never."""
    demonstrations: int = 0
    """Worked examples of the training split before each question."""
    seed: int = 0
    """Seed of all noise."""

    def __post_init__(self) -> None:
        allowed(self)
        bounded(self, width=(2, 2**16), layers=(1, 512), heads=(1, 512), window=(1, 2**24), latents=(0, 2**16))
        bounded(self, length=(1, 2**24), steps=(0, 1e5), test_steps=(0, 1e5), refining=(0, 1e5), noises=(1, 1024))
        positive = ("rate", "rate_end", "test_rate", "langevin_size", "langevin_clip", "refining_rate")
        bounded(self, **dict.fromkeys(positive, (1e-9, 1e6)), log_var=(-12, 4), inner_decay=(0, 1), z_scale=(0, 1e3))
        bounded(self, kl_hold=(0, 1e9), kl_ramp=(0, 1e9), rate_steps=(1, 1e9), encoder_layers=(1, 512), seed=SEEDS)
        bounded(self, replan_every=(0, 1e9), demonstrations=(0, 64))

    def training_loop(self, step: int) -> Loop:
        """The fast loop of a training step, counted from 0."""
        end = self.rate if self.rate_end is None else self.rate_end
        rate = self.rate + (end - self.rate) * min(1.0, step / self.rate_steps)
        return self.loop(self.steps, rate, self.kl_weight(step))

    def test_loop(self) -> Loop:
        """The fast loop at test."""
        return self.loop(self.test_steps, self.test_rate)

    def loop(self, steps: int, rate: float, kl_weight: float = 1.0) -> Loop:
        falling = self.schedule == "cosine" or (self.schedule == "auto" and steps >= FALLING)
        return Loop(
            rates(steps, rate, "cosine" if falling else "constant"), kl_weight, self.inner_decay,
            self.noise == "shared", self.inference == "map", CLAMP if self.clamp else None, self.noises,
        )  # fmt: skip

    def kl_weight(self, step: int) -> float:
        """How much the KL counts in the fast loop of a training step, counted from 0."""
        if step < self.kl_hold:
            return 0.0
        return min(1.0, (step - self.kl_hold) / self.kl_ramp) if self.kl_ramp else 1.0

    @classmethod
    def paper(cls) -> "LTMConfig":
        """LTM-M as the paper describes it: fresh noise, rates 0.30 to 0.34 over training, the final gradient."""
        return cls(
            width=512, layers=6, heads=8, window=256, latents=24, length=1024, rate=0.30, rate_end=0.34, test_steps=16,
            slow_grad="final", clamp=False,
        )  # fmt: skip

    @classmethod
    def reference_code(cls) -> "LTMConfig":
        """What the released code does, at its own size: one noise, cosine rates, decay, the trajectory's gradient."""
        return cls(
            width=768, layers=12, heads=12, window=256, latents=96, length=1024, latent_pos="reference",
            init="reference", rate=0.34, test_steps=16, schedule="cosine", noise="shared", inner_decay=0.01,
            clamp=False,
        )  # fmt: skip

    @classmethod
    def toy(cls) -> "LTMConfig":
        """For the task `toy`: its window sees less than a block, so that the key can come from thoughts alone."""
        return cls(
            tokenizer="letters", width=64, window=5, latents=4, length=36, slow_grad="final", kl_hold=100, kl_ramp=300,
        )  # fmt: skip


PRESETS = {
    "text": LTMConfig(),
    "bytes": LTMConfig(tokenizer="bytes"),
    "toy": LTMConfig.toy(),
    "paper": LTMConfig.paper(),
    "paper-s": replace(LTMConfig.paper(), layers=3),
    "paper-l": replace(LTMConfig.paper(), layers=12, steps=64, test_steps=64),
    "reference-code": LTMConfig.reference_code(),
    "autoregressive": LTMConfig(latents=0),
}
