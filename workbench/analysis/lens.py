"""Thoughts as words, with the live model: what its output head reads in them, and the words that lie nearest to them.

    logit lens   softmax(head(final norm(thought)))         what the thought would be written as
    nearest      cosine(thought, embedding of each word)    what it would have to be to be that word

`collect(..., readout=k)` keeps the k first of both in the store. What needs whole distributions (divergences, how far
thoughts cover the worked steps, several ways at once) is computed here from a store and the backbone.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from .diagnostics import (
    bootstrap,
    compression_rate,
    match_steps,
    nearest_tokens,
    parallelism,
    top_tokens,
    vocabulary_entropy,
    vocabulary_js,
    vocabulary_kl,
)
from .diagnostics.inputs import Stores, by_name

if TYPE_CHECKING:
    from ..backbone import Backbone
    from ..tasks import Task

VOCABULARY = {  # divergence: meaning
    "vocabulary_kl": "KL(first || second) of the words read in a thought, thought by thought of the same question",
    "vocabulary_js": "Jensen-Shannon divergence of the same: at most log 2",
}
PARALLELISM = {  # statistic: (unit, meaning)
    "n_eff": ("paths", "explicit paths that the thoughts cover about equally well: 1 to the number of paths"),
    "n_eff_share": ("share", "n_eff / number of paths: near 1 = the thoughts tell none from another"),
    "n_eff_naive": ("paths", "n_eff with the parts of each path assigned to thoughts at random"),
    "n_eff_ratio": ("ratio", "n_eff / n_eff_naive: 1 = no more parallel than by chance"),
    "runner_up": ("ratio", "second largest weight of a path / the largest: our reading of the Top-2 score"),
}


def words(backbone: "Backbone", vectors: np.ndarray, mask: np.ndarray, k: int) -> dict[str, np.ndarray]:
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
        for rows, block in backbone.log_probabilities(x):
            probabilities = np.exp(block)
            ids[rows], values[rows] = top_tokens(probabilities, k)
            entropy[rows] = vocabulary_entropy(probabilities)
        found["lens_id"][mask], found["lens_probability"][mask] = ids, values
        found["signal_lens_entropy"][mask], found["signal_lens_mass"][mask] = entropy, values.sum(axis=1)
        found["near_id"][mask], found["near_cosine"][mask] = nearest_tokens(
            x, backbone.inputs().float().cpu().numpy(), k
        )
    for name in ("lens", "near"):
        seen, place = np.unique(found[f"{name}_id"], return_inverse=True)
        texts = np.array([backbone.tokenizer.decode([i]) if i >= 0 else "" for i in seen.tolist()], dtype=object)
        found[f"{name}_token"] = texts[place.reshape(shape)]
    return found


def vocabulary_table(
    backbone: "Backbone", stores: Mapping[Any, xr.Dataset], *, path: int = 0, level: float = 0.95, seed: int = 0
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


def _between(backbone: "Backbone", p: np.ndarray, q: np.ndarray) -> dict[tuple[str, bool], np.ndarray]:
    """(divergence, whether first || second) -> its value for each pair of vectors [n, feature]."""
    kinds = {
        ("vocabulary_kl", True): lambda a, b: vocabulary_kl(a, b),
        ("vocabulary_kl", False): lambda a, b: vocabulary_kl(b, a),
        ("vocabulary_js", True): vocabulary_js,
    }
    found = {kind: np.empty(len(p)) for kind in kinds}
    for (rows, a), (_, b) in zip(backbone.log_probabilities(p), backbone.log_probabilities(q), strict=True):
        for kind, divergence in kinds.items():
            found[kind][rows] = [divergence(x, y) for x, y in zip(a, b, strict=True)]
    return found


# ------------------------------------------------------------------------------- thoughts beside explicit reasoning


def compression_table(
    backbone: "Backbone",
    stores: Stores,
    ks: Sequence[int] = (1, 3, 10, 30, 100),
    *,
    path: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Latent-SFT's ECR@K of the thoughts of a store, or of several by name, beside the worked steps that it holds.

    Columns: store, k, value (mean over questions of `diagnostics.compression_rate`; worked steps themselves have 1),
    low, high (bootstrap over questions), most (what covering every token would give), n. `figures.response` draws it.
    Words are read in thoughts by the output head of `backbone`; mixtures of words say themselves which. Questions
    without steps or without thoughts are left out; ValueError where fewer than two remain.
    """
    rows = []
    for name, store in by_name(stores).items():
        if "step_text" not in store:
            raise ValueError(f"store {name!r} holds no worked steps: collect it on a task whose examples have some")
        steps = store["step_text"].transpose("example", "reasoning").values
        rates, most = [], []
        for i, p in _distributions(backbone, store, path):
            written = _tokens(backbone, [str(step) for step in steps[i]])
            if len(written):
                rates.append(list(compression_rate(p, written, ks).values()))
                most.append(len(written) / len(p))
        if len(rates) < 2:
            raise ValueError(f"{len(rates)} questions of {name!r} with thoughts and worked steps: give at least 2")
        for k, values in zip(ks, np.array(rates).T, strict=True):
            found = bootstrap(_mean, values, level=level, seed=seed)
            rows.append((name, k, found.value, found.low, found.high, float(np.mean(most)), len(values)))
    return pd.DataFrame(rows, columns=pd.Index(["store", "k", "value", "low", "high", "most", "n"]))


def explicit_paths(store: xr.Dataset, task: "Task", *, only_right: bool = False) -> dict[str, list[str]]:
    """Explicit ways from each question to an answer, by example id: its gold steps, then what the draws of a store (as
    of the method cot) wrote before the answer, without repetitions (blanks and case aside).

    only_right: no draws with a wrong answer. With them the paths are the readings a question allows, right and wrong.
    """
    if "step_text" not in store:
        raise ValueError("this store holds no worked steps: collect it on a task whose examples have some")
    gold = store["step_text"].transpose("example", "reasoning").values
    texts, right = (store[name].transpose("example", "path", "draw").values for name in ("text", "correct"))
    found = {}
    for i, example in enumerate(store["example"].values.tolist()):
        drawn = texts[i][right[i]] if only_right else texts[i].ravel()
        different: dict[str, str] = {}
        for text in ("\n".join(gold[i]), *(text.split(task.mark)[0] for text in drawn.tolist())):
            different.setdefault("".join(text.split()).lower(), text.strip())
        found[example] = [text for text in different.values() if text]
    return found


def parallelism_table(
    backbone: "Backbone",
    stores: Stores,
    paths: Mapping[str, Sequence[str]],
    *,
    references: Mapping[str, Sequence[np.ndarray]] | None = None,
    k: int | None = 100,
    path: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Latent-SFT's N_eff and Top-2 score of the thoughts of a store, or of several by name: how many explicit paths
    they cover at once (see `diagnostics.parallelism`, whose k this is).

    paths: different worked solutions by example id, as of `explicit_paths`; questions with fewer than two are left out.
    Columns: store, statistic (`PARALLELISM` lists them), value (mean over questions), low, high (bootstrap), paths and
    tokens (means: how many each question has, and their length, which makes for mass), n, unit, meaning. Words are read
    as in `compression_table`. ValueError where fewer than two questions remain.

    references: per example id and path the vectors [part, feature] of the path's even parts, as many as the store has
    thoughts of the question (as a method's encoder makes them); each thought then stands for the part whose vector is
    nearest ("matched", see `diagnostics.match_steps`), not for that in its own place ("positional"). Which of the two
    the paper used is open, and so is the k of its published values.
    """
    rows = []
    for name, store in by_name(stores).items():
        ids, values, sizes = store["example"].values.tolist(), [], []
        vectors = store["thought"].isel(path=path).transpose("example", "step", "feature")
        for i, p in _distributions(backbone, store, path):
            written = [_tokens(backbone, text.splitlines()) for text in paths.get(str(ids[i]), ())]
            if len(written) < 2:
                continue
            matched = None
            if references is not None:
                own = vectors[i].values[: len(p)]
                matched = [match_steps(own, parts) for parts in references[str(ids[i])]]
            found = parallelism(p, written, k=k, seed=seed + i, assignments=matched)
            share, ratio = found.n_eff / len(written), found.n_eff / found.naive
            values.append((found.n_eff, share, found.naive, ratio, found.runner_up))
            sizes.append((len(written), float(np.mean([len(one) for one in written]))))
        if len(values) < 2:
            raise ValueError(
                f"{len(values)} questions of {name!r} with thoughts and two explicit paths: give more paths, such as "
                "explicit_paths of a store of method cot with several draws"
            )
        about = (*np.mean(sizes, axis=0).tolist(), len(values))
        for (statistic, (unit, meaning)), column in zip(PARALLELISM.items(), np.array(values).T, strict=True):
            found = bootstrap(_mean, column, level=level, seed=seed)
            rows.append((name, statistic, found.value, found.low, found.high, *about, unit, meaning))
    names = ["store", "statistic", "value", "low", "high", "paths", "tokens", "n", "unit", "meaning"]
    return pd.DataFrame(rows, columns=pd.Index(names))


def _distributions(backbone: "Backbone", store: xr.Dataset, path: int) -> Iterator[tuple[int, np.ndarray]]:
    """(where it stands, the words of its thoughts [step, vocabulary]) of each example that has thoughts."""
    if store.sizes["feature"] != backbone.width:
        raise ValueError(
            f"thoughts of width {store.sizes['feature']} cannot be read by {backbone.name!r} of width "
            f"{backbone.width}: load the backbone of the store, {store.attrs['backbone']!r}"
        )
    if not 0 <= path < store.sizes["path"]:
        raise ValueError(f"path {path} of a store with {store.sizes['path']} paths: give one of those, counted from 0")
    one = store.isel(path=path).transpose("example", "step", ...)
    mask = one["mask"].values
    there = np.flatnonzero(mask.any(axis=1)).tolist()
    if "mixture_token" in store:
        tokens, weights = one["mixture_token"].values, one["mixture_weight"].values
        for i in there:
            p = np.zeros((int(mask[i].sum()), len(backbone.table)))
            step, component = np.nonzero(tokens[i][mask[i]] >= 0)
            np.add.at(p, (step, tokens[i][mask[i]][step, component]), weights[i][mask[i]][step, component])
            yield i, p / p.sum(axis=1, keepdims=True)  # weights are rounded
    else:
        vectors = one["thought"].values.astype(np.float32)
        for i in there:
            blocks = [block for _, block in backbone.log_probabilities(vectors[i][mask[i]])]
            yield i, np.exp(np.concatenate(blocks))


def _tokens(backbone: "Backbone", lines: Sequence[str]) -> np.ndarray:
    """Steps as the model learns to write them, each ended by a line break."""
    return np.concatenate(
        [backbone.plain_ids(f"{line}\n").numpy() for line in lines if line] or [np.zeros(0, np.int64)]
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
