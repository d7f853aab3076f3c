"""The settings of LT-Tuning: the paper's, the released code's and those of the paper's controls."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from ...config import allowed, bounded

MODES = Literal["hidden", "fusion", "pause", "soft"]


@dataclass(frozen=True)
class LTTuningConfig:
    """As published for a model of 1B, with defects mended; `presets` has the other sizes, the code and the controls."""

    mode: MODES = "fusion"
    """What a thought is in the last stage and at test: the state before it (hidden), that fused with the expected next
    word (fusion), or a control: the mark's own embedding (pause, in all stages), the expected word alone (soft)."""
    alpha: float = 0.6
    """Share of the state in the fusion."""
    layer: int = -2
    """Whose state: -1 is what the output head reads, behind the final norm; -2 what the last block reads; and so on."""
    state_scale: Literal["own", "embedding"] = "own"
    """States as they are (as published), or scaled to the size of the words' inputs: a state may be so much longer than
    an embedding that alpha 0.6 is nearly all state."""
    top_p: float = 0.8
    """Mass of the nucleus whose mean word is fused."""
    nucleus: Literal["inclusive", "exclusive"] = "inclusive"
    """Whether the word that crosses top_p belongs to it, or (as published) not. The likeliest always does."""
    temperature: float = 1.0
    """Of the distribution that is averaged."""
    adapter: int = 0
    """Width of a bottleneck that thoughts pass through last; 0: none."""
    adapter_norm: bool = True
    """LayerNorm behind the bottleneck (as in the code, not in the paper)."""
    placement: Literal["confidence", "arithmetic", "random", "fixed", "none"] = "confidence"
    """Where training rows get marks: before labels below the threshold, before digits and operators of the worked
    steps, anywhere, `fixed_thoughts` of them before the reply, or nowhere (plain fine-tuning in the same stages)."""
    threshold: float = 0.7
    """Probability of a label below which a mark may stand before it."""
    threshold_fusion: float | None = None
    """The same for the last stage; null: as before it."""
    cap: int | float = 10
    """Most places of an example that get marks, or, below 1, their share of the candidates; the others are dropped at
    random."""
    cap_fusion: int | float = 16
    """The same for the last stage."""
    insert: float = 0.85
    """Chance that a place gets a mark (r)."""
    insert_fusion: float = 0.95
    """The same for the last stage."""
    again: float = 0.15
    """Chance of one more mark behind one (s)."""
    again_fusion: float = 0.2
    """The same for the last stage."""
    most: int = 2
    """Most marks at a place (k)."""
    fixed_thoughts: int = 6
    """Marks before the reply under placement=fixed."""
    plain_share: float = 0.1
    """Share of the epochs for the stage of plain chain of thought; 0 leaves it out."""
    state_share: float = 0.2
    """Share of the epochs for the stage whose thoughts are states; 0 leaves it out."""
    schedule: Literal["stage", "joint"] = "stage"
    """A warm-up and a cosine for each stage and optimisers that begin anew, or (as published) one for all."""
    warmup: float = 0.05
    """Share of a stage's steps over which the rate rises."""
    likelihood_mean: Literal["token", "example"] = "token"
    """Average the loss over all labels of a batch (as published), or per example."""
    like: str = ""
    """As whose row that of the mark starts: a word; empty: the end of text's."""
    lora_rank: int = 0
    """Rank of adapters on all linear layers, which are trained then instead of the weights; 0: all weights."""
    lora_alpha: float = 32.0
    """Adapters count alpha / rank."""
    test_thoughts: bool = True
    """Whether marks may be written at test (else their logit is -inf)."""
    forced_thoughts: int = 0
    """Thoughts before the reply at test, unasked: what collapse along a chain is measured on."""
    max_consecutive_thoughts: int = 0
    """Thoughts in a row after which the mark is forbidden once; 0: no limit. How often it was met is said."""
    seed: int = 0
    """Seed of the places."""

    def __post_init__(self) -> None:
        allowed(self)
        shares = (
            "alpha",
            "insert",
            "insert_fusion",
            "again",
            "again_fusion",
            "warmup",
            "threshold",
            "threshold_fusion",
        )
        bounded(self, **dict.fromkeys(shares, (0, 1)), top_p=(1e-9, 1), temperature=(1e-6, 1e6), layer=(-4096, -1))
        bounded(self, cap=(0, 1e6), cap_fusion=(0, 1e6), most=(1, 64), fixed_thoughts=(1, 4096), adapter=(0, 1e6))
        bounded(self, forced_thoughts=(0, 4096), max_consecutive_thoughts=(0, 1e6), lora_rank=(0, 4096))
        bounded(self, lora_alpha=(1e-6, math.inf), plain_share=(0, 0.99), state_share=(0, 0.99))
        if self.plain_share + self.state_share >= 1:
            raise ValueError(
                f"plain_share {self.plain_share:g} and state_share {self.state_share:g} leave nothing for the last "
                "stage; give shares that sum to less than 1"
            )

    @classmethod
    def paper_3b(cls) -> "LTTuningConfig":
        """The paper's settings for 3B: those for 1B."""
        return cls()

    @classmethod
    def paper_8b(cls) -> "LTTuningConfig":
        """The paper's settings for 8B, with its adapter: 1, 1 and 3 epochs."""
        return cls(layer=-1, top_p=0.9, threshold=0.6, most=4, adapter=1024, plain_share=0.2)

    @classmethod
    def reference(cls) -> "LTTuningConfig":
        """The released code's settings: one schedule, another threshold, the exclusive nucleus."""
        return cls(
            layer=-1, top_p=0.9, nucleus="exclusive", threshold=0.3, threshold_fusion=0.2, schedule="joint",
        )  # fmt: skip

    def of_last_stage(self) -> "LTTuningConfig":
        """With the last stage's own numbers under the plain names."""
        threshold = self.threshold if self.threshold_fusion is None else self.threshold_fusion
        return replace(
            self, threshold=threshold, cap=self.cap_fusion, insert=self.insert_fusion, again=self.again_fusion
        )


PRESETS = {
    "paper-1b": LTTuningConfig(),
    "paper-3b": LTTuningConfig.paper_3b(),
    "paper-8b": LTTuningConfig.paper_8b(),
    "reference": LTTuningConfig.reference(),
    # the same budget without any mark, in training or answers
    "plain": LTTuningConfig(placement="none", test_thoughts=False),
    # the ablation's controls; without states six thoughts stand before the reply, without fusion all are states
    "without-stage-2": LTTuningConfig(placement="fixed", state_share=0.0),
    "without-stage-3": LTTuningConfig(mode="hidden"),
    "without-latents": LTTuningConfig(mode="pause"),
    "latents-off": LTTuningConfig(test_thoughts=False),
}
