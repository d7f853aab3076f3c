"""What a text costs beside thoughts, in nats: bounds on -ln p(x), beside each other and beside what is none.

oracle     z from q(z | x): E_q[-ln p(x | z)] + KL, by noise that the fast loop has not seen; and tighter,
           -ln mean_k p(x | z_k) p(z_k) / q(z_k)  (importance-weighted, Burda et al. 2016)
prefix     z from what stands before; the rest costs -ln mean_k p(rest | prefix, z_k)
prior      z from N(0, I): -ln mean_k p(x | z_k)
zero       z = 0: what the decoder does by itself
shuffled   another text's z: a control, and no bound
same       one noise for all steps of the fast loop and for the score, as the released code reports: no bound, for
           what a text says can be hidden where that noise happens to fall
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..base import Prompt
from .decoder import NONE
from .inference import Draws, Gaussian, Likelihood, Loop, begun, prior_log_density
from .learning import Text, found_for

if TYPE_CHECKING:
    from .method import LTM

ACTIVE = 0.01  # variance of a mean over texts from which on its dimension says something of them
SAMPLES, IMPORTANCE = 8, 16
BOUNDS = ("oracle", "importance", "prefix", "prior", "zero")


@dataclass(frozen=True)
class Costs:
    """Nats of each text by reading (above), with its parts, and what they are shares of.

    tokens, behind: targets of the whole text, and of what stands behind the prefix. bytes: of the text.
    posterior: of each text.
    """

    nats: dict[str, Float[Tensor, "example"]]
    tokens: Float[Tensor, "example"]
    behind: Float[Tensor, "example"]
    bytes: Float[Tensor, "example"]
    posterior: Gaussian | None


@torch.no_grad()
def costs(
    method: "LTM",
    prompts: Sequence[Prompt],
    *,
    loop: Loop | None = None,
    samples: int = SAMPLES,
    importance: int = IMPORTANCE,
    seed: int = 0,
    whole: bool = True,
) -> Costs:
    """All readings of the prompts' whole texts, or those of the posterior alone (not `whole`). `loop`: the fast loop,
    by default that of the method at test.

    The prefix of a question is the question; of a text by itself its first half.
    """
    text = method.whole(prompts)
    halves = [len(p.before) + len(p.after) if len(p.before) > 1 else 1 + len(p.target) // 2 for p in prompts]
    rest = method.behind(prompts, halves)
    sizes = [
        len(method.backbone.tokenizer.decode(torch.cat([p.before[1:], p.after, p.target])).encode()) for p in prompts
    ]
    nats: dict[str, Tensor] = {}
    device = text.tokens.device

    def counted(own: Text) -> Tensor:
        return (own.targets != NONE).sum(1).float()

    about = (counted(text), counted(rest), torch.tensor(sizes, device=device).float())
    if not method.config.latents:
        nats["zero"], nats["prefix"] = method._nll(text, None), method._nll(rest, None)
        return Costs(nats, *about, None)
    noise = method.noise(prompts, f"scoring {seed}")
    q = _posterior(method, text, noise, loop)
    nats["nll"] = torch.stack([method._nll(text, q.at(noise())) for _ in range(samples)]).mean(0)
    nats["kl"] = q.kl().sum(1)
    nats["oracle"] = nats["nll"] + nats["kl"]
    nats["importance"] = weighted(lambda z: method._nll(text, z), q, noise, importance)
    order = torch.arange(len(prompts), device=device).roll(1)
    nats["shuffled"] = method._nll(text, Gaussian(q.mu[order], q.log_var[order]).at(noise()))
    if not whole:
        return Costs(nats, *about, q)
    before = _posterior(
        method, method.text([_row(p)[:count] for p, count in zip(prompts, halves, strict=True)]), noise, loop
    )
    nats["prefix"] = mean_likelihood([method._nll(rest, before.at(noise())) for _ in range(samples)])
    nats["prefix by prior"] = mean_likelihood([method._nll(rest, noise()) for _ in range(samples)])
    nats["prior"] = mean_likelihood([method._nll(text, noise()) for _ in range(samples)])
    nats["zero"] = method._nll(text, None)
    return Costs(nats, *about, q)


def _row(prompt: Prompt) -> Tensor:
    return torch.cat([prompt.before, prompt.after, prompt.target])


def _posterior(method: "LTM", text: Text, noise: Draws, loop: Loop | None) -> Gaussian:
    if loop is None or method.config.inference != "vb":
        return method.fit(text, noise).posterior
    return found_for(method.decoder, text, begun(noise, method.config.log_var), noise, loop).posterior


def weighted(likelihood: Likelihood, q: Gaussian, noise: Draws, samples: int) -> Float[Tensor, "example"]:
    """The importance-weighted bound of `samples` draws from q."""
    weights = []
    for _ in range(samples):
        z = q.at(noise())
        weights.append(prior_log_density(z) - q.log_density(z) - likelihood(z))
    return math.log(samples) - torch.stack(weights).logsumexp(0)


def mean_likelihood(nlls: Sequence[Float[Tensor, "example"]]) -> Float[Tensor, "example"]:
    """-ln of the mean likelihood over draws."""
    return math.log(len(nlls)) - torch.stack([-one for one in nlls]).logsumexp(0)


@torch.no_grad()
def same_noise(
    method: "LTM", prompts: Sequence[Prompt], loop: Loop | None = None
) -> dict[str, Float[Tensor, "example"]]:
    """What the released code reports, and the same posteriors scored with noise that they have not seen.

    same: NLL + KL at the loop's own noise. fresh: the bound. kl, nll.
    """
    text, noise = method.whole(prompts), method.noise(prompts, "same noise")
    asked = method.config.test_loop() if loop is None else loop
    start = begun(noise, method.config.log_var)
    found = found_for(method.decoder, text, start, noise, replace(asked, shared=True))
    q, kl = found.posterior, found.posterior.kl().sum(1)
    assert found.eps is not None
    fresh = torch.stack([method._nll(text, q.at(noise())) for _ in range(SAMPLES)]).mean(0)
    nll = method._nll(text, q.at(found.eps))
    return {"same": nll + kl, "fresh": fresh + kl, "kl": kl, "nll": nll}


def active(q: Gaussian) -> int:
    """Latent dimensions whose means differ between texts."""
    return int((q.mu.flatten(1).var(0) > ACTIVE).sum()) if len(q.mu) > 1 else 0


def table(found: Costs):
    """A row for each reading: nats per text, per token (with the perplexity of all texts together and the mean of each
    text's own, which is another number), bits per byte, standard error over texts."""
    import pandas as pd

    rows = []
    for name, nats in found.nats.items():
        tokens = found.behind if name.startswith("prefix") else found.tokens
        count, each = len(nats), nats / tokens.clamp(min=1)
        rows.append(
            {
                "reading": name,
                "bound": name in BOUNDS,
                "nats": float(nats.mean()),
                "se": float(nats.std() / count**0.5) if count > 1 else float("nan"),
                "per_token": float(nats.sum() / tokens.sum()),
                "perplexity": float((nats.sum() / tokens.sum()).exp()),
                "mean_perplexity": float(each.exp().mean()),
                "bits_per_byte": float("nan")
                if name.startswith("prefix")
                else float(nats.sum() / found.bytes.sum() / math.log(2)),
                "n": count,
            }
        )
    return pd.DataFrame(rows)
