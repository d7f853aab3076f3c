"""The settings of Latent-SFT: its two published profiles and the controls of the paper."""

import math
from dataclasses import dataclass
from typing import Literal

from ...config import allowed, bounded

SHARES = ("cot_share", "encoder_share", "decoder_share", "union_share", "latent_share")


@dataclass(frozen=True)
class LatentSFTConfig:
    """As the newer release (ten words, noise), with defects mended; `presets` has both profiles and the controls."""

    ratio: int = 2
    """Tokens of the chain that one latent stands for (r)."""
    components: int | None = 10
    """Words in a superposition (K); null: the whole vocabulary."""
    readout: Literal["lm-head", "input-embedding"] = "lm-head"
    """What reads words in the encoder's states: the decoder's output head, or (as published) its input embeddings. One
    and the same where the two are tied."""
    temperature: float = 1.0
    """Of the softmax over the encoder's words: above 1 for a model that is so sure of its words that one alone is left
    and no gradient reaches the encoder."""
    encoder_positions: Literal["leaf", "physical"] = "leaf"
    """Whether the encoder's slots take places (physical, as published), or the text stands as if without them."""
    thought: Literal["superposition", "hidden"] = "superposition"
    """What a latent is: the mean embedding of its words, or (a control) the state that they are read in."""
    induction_mask: bool = True
    """Nobody reads a compress slot but itself; without (a control) the encoder is plainly causal."""
    supervision_mask: bool = True
    """A segment reads its latent alone, the answer no segment; without (a control) the decoder is plainly causal."""
    supervision_sink: Literal["none", "first-token"] = "none"
    """Whether a segment reads the row's first token too, on which much attention of many models rests."""
    words: Literal["usable", "all"] = "usable"
    """Which words can be mixed: not padding nor rows without a token, nor, by the encoder, the end mark's first; or (as
    published) all."""
    marks: Literal["own", "published"] = "own"
    """Marks around the latents: those of the tokenizer, where it has some, or <think> and </think> in its words."""
    loss_mean: Literal["token", "segment"] = "token"
    """Likelihood as a mean over tokens (as in the code), or over segments, the answer being one (as in the paper)."""
    kl_weight: float = 1.0
    """Weight of the divergence from the labels in the last leg."""
    likelihood_weight: float = 1.0
    """Weight of the likelihood of end mark and answer there."""
    exit_weight: float = 1.0
    """Weight of the end mark's first token among these, which is all that says when to stop."""
    noise_scale: float = 1.0
    """Gumbel noise on the labels of the last leg, drawn anew at each visit, for input and target alike; 0: none."""
    noise_temperature: float = 1.0
    """Of the softmax over noised weights."""
    cot_share: float = 0.0
    """Share of the epochs for plain fine-tuning on the chains first; shares count against each other, 0 leaves out."""
    encoder_share: float = 0.15
    """The same for the leg in which the encoder learns alone."""
    decoder_share: float = 0.15
    """The same for the decoder alone, from the encoder's labels."""
    union_share: float = 0.2
    """The same for both together."""
    latent_share: float = 0.5
    """The same for the last leg, in which the decoder learns to think by itself."""
    encoder_rate: float = 1.0
    """Learning rate of the legs in which the encoder learns over that of the others: a fast encoder forgets to tell
    words apart before the decoder has learned to read them."""
    latent_rate: float = 1.0
    """Learning rate of the last leg over that of the others."""
    encoder: bool = True
    """Whether there is an encoder. Without, labels come from the file `labels`."""
    labels: str = ""
    """A file of soft labels (`write_labels`), for legs that need no encoder."""
    lora_rank: int = 64
    """Rank of adapters on all linear layers, which are trained instead of the weights; 0: all weights but the table of
    embeddings. Adapters go on from leg to leg (published: they are merged and begun anew)."""
    lora_alpha: float = 128.0
    """Adapters count alpha / rank."""
    max_latents: int = 128
    """Latents after which the end mark is forced."""
    end_in_mix: bool = True
    """Whether the end mark's first token may be mixed into latents at test (as published)."""
    seed: int = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        allowed(self)
        bounded(self, ratio=(1, 4096), components=(1, 1e6), max_latents=(1, 1e6), lora_rank=(0, 4096))
        bounded(
            self,
            lora_alpha=(1e-6, math.inf),
            noise_scale=(0, 1e6),
            noise_temperature=(1e-6, 1e6),
            temperature=(1e-6, 1e6),
        )
        bounded(
            self,
            **dict.fromkeys(("kl_weight", "likelihood_weight", "exit_weight", "encoder_rate", "latent_rate"), (0, 1e6)),
        )
        bounded(self, **dict.fromkeys(SHARES, (0, 1e6)))
        if not any(getattr(self, name) for name in SHARES):
            raise ValueError(f"{', '.join(SHARES)} are all 0, which leaves no leg to train; give one of them a share")
        if not self.encoder and (self.encoder_share or self.union_share):
            raise ValueError(
                "encoder is false, but encoder_share or union_share is not 0; set both to 0, or have an encoder"
            )
        if self.encoder and self.labels:
            raise ValueError(
                "labels are given and there is an encoder, which makes its own; leave out labels, or set encoder to "
                "false"
            )
        if self.labels and self.thought == "hidden":
            raise ValueError("files of labels hold superpositions, not states; leave out labels, or thought=hidden")

    @classmethod
    def full_vocabulary(cls) -> "LatentSFTConfig":
        """The first release: every word in each superposition, no noise; from a model fine-tuned on the chains."""
        return cls(components=None, noise_scale=0.0, ratio=4, cot_share=0.2)

    @classmethod
    def reference(cls) -> "LatentSFTConfig":
        """The newer release as it behaves: its readout, positions, marks, and all words."""
        return cls(
            readout="input-embedding", encoder_positions="physical", words="all", marks="published",
            encoder_share=0.1, decoder_share=0.1, union_share=0.1, latent_share=0.7, latent_rate=3.0,
        )  # fmt: skip

    @classmethod
    def thinking(cls, components: int | None = 10) -> "LatentSFTConfig":
        """A model that has learned to think already, such as a published one: no encoder, nothing trained beside."""
        return cls(
            components=components, encoder=False, encoder_share=0.0, decoder_share=0.0, union_share=0.0, lora_rank=0,
            marks="published", words="all",
        )  # fmt: skip

    @classmethod
    def cot(cls) -> "LatentSFTConfig":
        """Plain fine-tuning on the chains, in the same layout: what latents are measured against."""
        return cls(
            cot_share=1.0, encoder=False, encoder_share=0.0, decoder_share=0.0, union_share=0.0, latent_share=0.0
        )


PRESETS = {
    "topk": LatentSFTConfig(),
    "full-vocabulary": LatentSFTConfig.full_vocabulary(),
    "reference": LatentSFTConfig.reference(),
    "cot": LatentSFTConfig.cot(),
    "thinking": LatentSFTConfig.thinking(),
    # the paper's controls
    "hidden": LatentSFTConfig(thought="hidden", noise_scale=0.0),
    "without-induction-mask": LatentSFTConfig(induction_mask=False),
    "without-supervision-mask": LatentSFTConfig(supervision_mask=False),
}
