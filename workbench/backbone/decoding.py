"""How answers are written, token by token: which one comes next, and settings that have a name.

    logits -> repetition penalty -> temperature -> softmax -> top k, top p, min p -> the token at a uniform number

Each row is decided by its own logits, its own tokens so far and its own random number: batch-mates never matter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..config import bounded, choose


@dataclass(frozen=True)
class Decoding:
    """How answers are written; the default is greedy. top_k, top_p and min_p matter when sampling only."""

    max_new_tokens: int | None = None
    """Most tokens per answer, one that reaches it is marked unfinished; null: the task's own length."""
    temperature: float = 0.0
    """0 is greedy; above 0 samples."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this share of the probability (of what top_k leaves)."""
    top_k: int | None = None
    """Sample from this many likeliest tokens (of equally likely ones the lower ids); null: from all."""
    min_p: float = 0.0
    """Sample from tokens at least this many times as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Logits of tokens the answer holds already are divided by this where positive, multiplied where negative; 1 is
    off. The prompt does not count: it is vectors, not tokens (Keskar et al. 2019)."""

    def __post_init__(self) -> None:
        bounded(self, max_new_tokens=(1, math.inf), temperature=(0, math.inf), top_p=(1e-9, 1))
        bounded(self, top_k=(1, math.inf), min_p=(0, 1), repetition_penalty=(1e-3, 1e3))

    @property
    def whole(self) -> bool:
        """Whether no token is left out of what is sampled from."""
        return self.top_k is None and self.top_p == 1 and self.min_p == 0


# LTA-Thinker's published evaluation (arXiv 2509.12875) as its code has it in effect: for Qwen2.5 it means to sample as
# for Qwen3 but never gets there. The repetition penalty is the model's own.
PUBLISHED = {
    "qwen3": Decoding(4096, temperature=0.7, top_p=0.8, top_k=20),
    "qwen2.5": Decoding(1024, temperature=0.5, top_k=10),
    "llama": Decoding(1024, temperature=0.5, top_k=10),
}
# What else a generation config can ask for that changes the tokens, with the value at which it does not.
FOREIGN: dict[str, Any] = {
    "num_beams": 1, "typical_p": 1, "top_h": None, "epsilon_cutoff": 0, "eta_cutoff": 0, "penalty_alpha": None,
    "dola_layers": None, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1,
    "min_length": 0, "min_new_tokens": 0, "guidance_scale": 1, "exponential_decay_length_penalty": None,
    "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None, "sequence_bias": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "stop_strings": None,
}  # fmt: skip


def named(name: str, family: str, config: Any) -> Decoding:
    """The decoding called `name`.

    "greedy"; "model", what the model's generation `config` asks for; "published", LTA-Thinker's evaluation of the
    backbone's `family`. ValueError, one sentence, for another name and where `own` or `published` raise it.
    """
    known = {"greedy": Decoding, "model": lambda: own(config), "published": lambda: published(family, config)}
    return choose("decoding", name, known)()


def published(family: str, config: Any) -> Decoding:
    """LTA-Thinker's evaluation of a `family` (a key of `PUBLISHED`), with the model's own repetition penalty."""
    if family not in PUBLISHED:
        raise ValueError(
            f"there is no published decoding for a backbone of family {family!r}, only for {', '.join(PUBLISHED)}; "
            "use greedy or model"
        )
    return replace(PUBLISHED[family], repetition_penalty=config.repetition_penalty or 1.0)


def own(config: Any) -> Decoding:
    """What a transformers GenerationConfig asks for; what it leaves open is as transformers fills it in.

    Its `max_length` counts the prompt too and is not used. ValueError for settings that are not implemented here.
    """
    odd = [name for name, off in FOREIGN.items() if getattr(config, name, None) not in (None, off)]
    if odd:
        raise ValueError(
            f"the model's own decoding sets {odd[0]}={getattr(config, odd[0])!r}, which is not implemented here; use "
            "greedy or published, or give the settings yourself"
        )
    penalty = config.repetition_penalty or 1.0
    if not config.do_sample:
        return Decoding(config.max_new_tokens, repetition_penalty=penalty)
    top_k = 50 if config.top_k is None else config.top_k or None  # 0 is off
    return Decoding(
        config.max_new_tokens,
        temperature=1.0 if config.temperature is None else config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=top_k,
        min_p=config.min_p or 0.0,
        repetition_penalty=penalty,
    )


def uniforms(seeds: Sequence[int], draws: int, length: int) -> Float[Tensor, "answer token"]:
    """The random numbers of every answer, from a generator of its own."""
    rows = [
        torch.rand(length, generator=torch.Generator().manual_seed((seed * 1_000_003 + draw) % 2**63))
        for seed in seeds
        for draw in range(draws)
    ]
    return torch.stack(rows)


def pick(
    logits: Float[Tensor, "row vocabulary"],
    decoding: Decoding,
    chance: Float[Tensor, "row"] | None,
    written: Int[Tensor, "row token"],
) -> Int[Tensor, "row"]:
    """The next token behind those `written` (-1: none): the likeliest, or the one at `chance` of the distribution.

    Tokens stand in falling order of probability where the tail is cut off, and as in the vocabulary where it is not.
    """
    if decoding.repetition_penalty != 1 and written.shape[1]:
        size, penalty = logits.shape[-1], decoding.repetition_penalty
        known = torch.zeros(len(logits), size + 1, dtype=torch.bool, device=logits.device)
        known = known.scatter(-1, torch.where(written < 0, size, written), True)[:, :size]
        logits = torch.where(known, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
    if chance is None:
        return logits.argmax(-1)
    probability = (logits / decoding.temperature).softmax(-1)
    if decoding.whole:
        total = probability.cumsum(-1)
        # above 0, where words of probability 0 end
        target = (chance[:, None] * total[:, -1:]).clamp(min=torch.finfo(total.dtype).tiny)
        return torch.searchsorted(total, target)[:, 0]
    probability, tokens = likeliest(probability, decoding)
    kept, total = nucleus(probability, decoding), probability.cumsum(-1)
    target = chance[:, None] * total.gather(-1, kept - 1)
    return tokens.gather(-1, torch.searchsorted(total, target).clamp(max=kept - 1))[:, 0]


def likeliest(
    probability: Float[Tensor, "row vocabulary"], limits: Decoding
) -> tuple[Float[Tensor, "row token"], Int[Tensor, "row token"]]:
    """The top_k likeliest tokens (all without top_k), the likeliest first, of equally likely ones the lower id first.

    Their probabilities in float32, and their ids. With top_k no others are sorted.
    """
    probability, size = probability.float(), probability.shape[-1]
    if limits.top_k is None or limits.top_k >= size:
        return probability.sort(descending=True, stable=True)
    # `topk` of floats takes any of those that tie, and logits in bfloat16 often do. The bits of a float that is not
    # negative rise as it does, so one whole number holds both: how likely, then how low the id.
    keys = probability.view(torch.int32).long() << 32 | torch.arange(size - 1, -1, -1, device=probability.device)
    tokens = keys.topk(limits.top_k).indices
    return probability.gather(-1, tokens), tokens


def nucleus(probability: Float[Tensor, "row token"], decoding: Decoding) -> Int[Tensor, "row 1"]:
    """How many of the likeliest tokens top_k, then top_p, then min_p leave, each on what the one before leaves.

    probability: of the likeliest tokens, in falling order: at least top_k of them, all without top_k.
    """
    total = probability.cumsum(-1)
    most = min(decoding.top_k or probability.shape[-1], probability.shape[-1])
    mass = decoding.top_p if decoding.top_k is None else decoding.top_p * total[:, most - 1 : most]
    # Each rule keeps a beginning of the sorted tokens, and always the first one: the shortest beginning is left.
    kept = ((total - probability) < mass).long().sum(-1, keepdim=True).clamp(max=most)
    if decoding.min_p:
        likely = probability >= decoding.min_p * probability[:, :1]
        kept = kept.minimum(likely.long().sum(-1, keepdim=True))
    return kept
