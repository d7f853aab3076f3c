"""What a live model sees along its own answers: how sure it is of the next input, and how much it attends to thoughts.

    rows = along_answers(method, task, task.examples("test", 100))
    figures.response(diagnostics.along_table(rows), x="place", facet="quantity")

An answer is written first, then read again in one pass with attention that can be looked at.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..backbone import Completion, Decoding
from ..backbone.attention import attending
from ..methods import LatentMethod, Prompt, Thoughts
from ..tasks import Example, Task


@torch.no_grad()
def along_answers(
    method: LatentMethod, task: Task, examples: Sequence[Example], decoding: Decoding | None = None, seed: int = 0
) -> pd.DataFrame:
    """A row for each place of each answer that an input was chosen at: example, place (from 0), thought (whether the
    input chosen there is one), entropy (nats, of all that could have been), mass, share, over_share.

    mass: of the last layer's attention at that place, mean over heads, what lies on thoughts; share: what part of the
    places that are read are thoughts; over_share: mass / share, NaN without thoughts. The answer's end is a place too.
    """
    decoding = decoding or Decoding()
    decoding = replace(decoding, max_new_tokens=decoding.max_new_tokens or task.answer_tokens)
    rows = []
    method.eval()
    for example in examples:
        prompt = method.render(example, task)
        thoughts = method.think([prompt])
        answer = method.answer([prompt], thoughts, decoding, seed=seed)[0][0][0]
        vectors, latent, first = _inputs(method, prompt, thoughts, answer)
        logits, attention = _read(method, vectors)
        entropy = torch.special.entr(logits.float().softmax(-1)).sum(-1)
        read = latent.long().cumsum(0) / torch.arange(1, len(latent) + 1)  # of the places that a place reads
        mass = attention.float() @ latent.to(attention.device).float()
        last = len(latent) if answer.finished else len(latent) - 1  # the place behind the last input chose the end
        for place in range(first, last):
            share, chosen = float(read[place]), place + 1 < len(latent) and bool(latent[place + 1])
            seen = {"entropy": float(entropy[place]), "mass": float(mass[place]), "share": share}
            over = float(mass[place]) / share if share else float("nan")
            rows.append({"example": example.id, "place": place - first, "thought": chosen, **seen, "over_share": over})
    columns = ["example", "place", "thought", "entropy", "mass", "share", "over_share"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _inputs(
    method: LatentMethod, prompt: Prompt, thoughts: Thoughts, answer: Completion
) -> tuple[Float[Tensor, "place feature"], Bool[Tensor, "place"], int]:
    """All that was read, which of it are thoughts, and the place that chose the answer's first input."""
    backbone = method.backbone
    before, after = backbone.embed_each([prompt.before, prompt.after])
    own = thoughts.vectors[0, 0][thoughts.mask[0, 0]].to(before)
    pieces, latent = [before, own, after], [False] * len(before) + [True] * len(own) + [False] * len(after)
    first = len(latent) - 1
    words, within = backbone.embed(torch.tensor(answer.tokens, dtype=torch.long)), answer.thoughts
    behind = 0
    if within is not None and within.places is not None:
        there = within.mask[0, 0]
        for place, vector in zip(within.places[0, 0][there].tolist(), within.vectors[0, 0][there], strict=True):
            pieces += [words[behind:place], vector[None].to(before)]
            latent += [False] * (place - behind) + [True]
            behind = place
    pieces.append(words[behind:])
    return torch.cat(pieces), torch.tensor(latent + [False] * (len(words) - behind)), first


def _read(
    method: LatentMethod, vectors: Float[Tensor, "place feature"]
) -> tuple[Float[Tensor, "place vocabulary"], Float[Tensor, "place place"]]:
    """Logits at every place, and the last layer's attention, mean over heads."""
    model = method.backbone.model
    with attending(model, "eager"):
        out = model(inputs_embeds=vectors[None], use_cache=False, output_attentions=True)
    return out.logits[0], out.attentions[-1][0].mean(0)
