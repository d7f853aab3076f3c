"""Thoughts as words, with the live model: what its output head reads in them, and the words that lie nearest to them.

    logit lens   softmax(head(final norm(thought)))         what the thought would be written as
    nearest      cosine(thought, embedding of each word)    what it would have to be to be that word

`collect(..., readout=k)` keeps the k first of both in the store. What needs whole distributions (divergences, how far
thoughts cover the worked steps) is computed here, since a store keeps only their first words.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .backbone import Backbone
from .diagnostics import (
    bootstrap,
    compression_rate,
    nearest_tokens,
    top_tokens,
    vocabulary_entropy,
    vocabulary_js,
    vocabulary_kl,
)
from .methods import LatentMethod
from .tasks import Example, Task

_BLOCK = 2**24  # probabilities held at a time
VOCABULARY = {  # divergence: meaning
    "vocabulary_kl": "KL(first || second) of the words read in a thought, thought by thought of the same question",
    "vocabulary_js": "Jensen-Shannon divergence of the same: at most log 2",
}


@torch.no_grad()
def log_probabilities(backbone: Backbone, vectors: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks (rows, their log-probabilities [row, vocabulary] in float32) of the words read in vectors [n, feature]."""
    size = max(1, _BLOCK // len(backbone.table))
    for start in range(0, len(vectors), size):
        rows = slice(start, start + size)
        block = torch.from_numpy(vectors[rows]).to(backbone.device, backbone.table.dtype)
        yield rows, backbone.read_out(block).log_softmax(-1).cpu().numpy()


def words(backbone: Backbone, vectors: np.ndarray, mask: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """What a store keeps of thoughts [example, path, step, feature] read as words: variables by name.

    lens_id, lens_token, lens_probability and near_id, near_token, near_cosine [example, path, step, rank], the k first;
    signal_lens_entropy (nats, of the whole distribution) and signal_lens_mass (of the k first) [example, path, step].
    Where mask is false: -1, "", NaN.
    """
    if not 1 <= k <= len(backbone.table):
        raise ValueError(f"readout={k}: {backbone.name!r} has {len(backbone.table)} tokens, give 1 to that many, or 0")
    shape, x = (*mask.shape, k), vectors[mask].astype(np.float32)
    found = {name: np.full(shape, -1, dtype=np.int32) for name in ("lens_id", "near_id")}
    found |= {name: np.full(shape, np.nan, dtype=np.float32) for name in ("lens_probability", "near_cosine")}
    found |= {f"signal_lens_{name}": np.full(mask.shape, np.nan, dtype=np.float32) for name in ("entropy", "mass")}
    if len(x):
        ids, values, entropy = np.empty((len(x), k), np.int32), np.empty((len(x), k)), np.empty(len(x))
        for rows, block in log_probabilities(backbone, x):
            probabilities = np.exp(block)
            ids[rows], values[rows] = top_tokens(probabilities, k)
            entropy[rows] = vocabulary_entropy(probabilities)
        found["lens_id"][mask], found["lens_probability"][mask] = ids, values
        found["signal_lens_entropy"][mask], found["signal_lens_mass"][mask] = entropy, values.sum(axis=1)
        found["near_id"][mask], found["near_cosine"][mask] = nearest_tokens(x, backbone.table.float().cpu().numpy(), k)
    for name in ("lens", "near"):
        seen, place = np.unique(found[f"{name}_id"], return_inverse=True)
        texts = np.array([backbone.tokenizer.decode([i]) if i >= 0 else "" for i in seen.tolist()], dtype=str)
        found[f"{name}_token"] = texts[place.reshape(shape)]
    return found


def vocabulary_table(
    backbone: Backbone, stores: Mapping[Any, xr.Dataset], *, path: int = 0, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """How what is read in the thoughts of stores differs, thought by thought of the same question: the columns of
    `diagnostics.divergence_table`, which this can be joined to.

    Both directions of the KL, and the Jensen-Shannon divergence once; exact, over the whole vocabulary, by the output
    head of `backbone`. Of the questions and steps that both stores have; low and high: bootstrap over questions.
    """
    if isinstance(stores, xr.Dataset) or len(stores) < 2:
        raise ValueError("divergences are between stores: give two or more by name")
    rows = []
    for first, second in combinations(stores, 2):
        (p, q), both = _paired(stores[first], stores[second], path)
        divergences = _between(backbone, p[both], q[both])
        places = {str(k): both & (np.arange(both.shape[1]) == k) for k in range(both.shape[1])}
        for step, there in (places | {"all": both}).items():
            count = there.sum(axis=1)
            if (count > 0).sum() < 2:
                continue
            for (name, forward), values in divergences.items():
                total = np.zeros(both.shape)
                total[both] = values
                top = (total * there).sum(axis=1)[count > 0]
                found = bootstrap(_ratio, top, count[count > 0], level=level, seed=seed)
                ends = (first, second) if forward else (second, first)
                rows.append((*ends, step, name, found.value, found.low, found.high, np.nan, len(top), len(top), ""))
    names = ["first", "second", "step", "divergence", "value", "low", "high", "p", "n_first", "n_second", "note"]
    table = pd.DataFrame(rows, columns=pd.Index(names))
    return table.assign(unit="nats", meaning=[VOCABULARY[name] for name in table["divergence"]])


def _ratio(top: np.ndarray, below: np.ndarray) -> float:
    return float(top.sum() / below.sum())


def _paired(first: xr.Dataset, second: xr.Dataset, path: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The thoughts [example, step, feature] of both on the questions that both have, and where both have one."""
    known = set(second["example"].values.tolist())
    shared = [name for name in first["example"].values.tolist() if name in known]
    if not shared:
        raise ValueError("two of these stores share no example: collect the same questions")
    steps = slice(min(first.sizes["step"], second.sizes["step"]))
    one, two = (store.sel(example=shared).isel(path=path, step=steps) for store in (first, second))
    both = (one["mask"] & two["mask"]).transpose("example", "step").values
    p, q = (store["thought"].transpose("example", "step", "feature").values.astype(np.float32) for store in (one, two))
    return (p, q), both


def _between(backbone: Backbone, p: np.ndarray, q: np.ndarray) -> dict[tuple[str, bool], np.ndarray]:
    """(divergence, whether first || second) -> its value for each pair of vectors [n, feature]."""
    kinds = {
        ("vocabulary_kl", True): lambda a, b: vocabulary_kl(a, b),
        ("vocabulary_kl", False): lambda a, b: vocabulary_kl(b, a),
        ("vocabulary_js", True): vocabulary_js,
    }
    found = {kind: np.empty(len(p)) for kind in kinds}
    for (rows, a), (_, b) in zip(log_probabilities(backbone, p), log_probabilities(backbone, q), strict=True):
        for kind, divergence in kinds.items():
            found[kind][rows] = [divergence(x, y) for x, y in zip(a, b, strict=True)]
    return found


@torch.no_grad()
def compression_table(
    method: LatentMethod,
    task: Task,
    examples: Sequence[Example],
    ks: Sequence[int] = (1, 3, 10, 30, 100),
    *,
    batch_size: int = 128,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Latent-SFT's ECR@K (see `diagnostics.compression_rate`) of thoughts read by the output head, beside the worked
    steps: k, value (mean over examples), low, high (bootstrap), most (what covering every token would give), n.

    Examples without steps or without thoughts are left out. Worked steps themselves have 1.
    """
    rates, most = [], []
    for start in range(0, len(examples), batch_size):
        prompts = [method.render(example, task) for example in examples[start : start + batch_size]]
        thoughts = method.eval().think(prompts)
        for prompt, vectors, mask in zip(prompts, thoughts.vectors[:, 0], thoughts.mask[:, 0], strict=True):
            if not prompt.steps or not bool(mask.any()):
                continue
            path = torch.cat(prompt.steps).numpy()
            blocks = log_probabilities(method.backbone, vectors[mask].float().cpu().numpy())
            covered = compression_rate(np.exp(np.concatenate([block for _, block in blocks])), path, ks)
            rates.append([covered[k] for k in ks])
            most.append(len(path) / int(mask.sum()))
    if len(rates) < 2:
        raise ValueError(f"{len(rates)} examples with thoughts and worked steps: give at least 2")
    rows = []
    for k, values in zip(ks, np.array(rates).T, strict=True):
        found = bootstrap(_mean, values, level=level, seed=seed)
        rows.append((k, found.value, found.low, found.high, float(np.mean(most)), len(values)))
    return pd.DataFrame(rows, columns=pd.Index(["k", "value", "low", "high", "most", "n"]))


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
