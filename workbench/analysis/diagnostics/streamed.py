"""What `describe` says, of stores that are larger than memory: sums over blocks of examples.

    first pass   means, cosines and divergences of each example; variance parts, whose jackknife is the sums of each
                 tenth of the examples, added up without it: in float64
    then steps   covariances, distances to the sample (see `cloud_sums`): blocks in float32, their sums in float64

Thoughts stay as the store has them (float16); one step of one path is held at a time, and a store up to `KEPT` bytes
whole. Means, spreads, cosines, ranks and shares are exact. Neighbours are those among all examples, of a seeded sample
of `SAMPLE` examples: all pairs would cost n / SAMPLE times as much.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr

from .blocks import Thoughts, Workers, opened, working
from .cloud_sums import Clouds
from .resampling import Estimate, jackknife_groups, left_out
from .thoughts import Explained, PerExample, VariancePart, regression, shared_out
from .verdict import Thresholds, Verdict

SAMPLE = 1000  # examples whose neighbours are looked for
NOT_FINITE = "thoughts holds NaN or infinite values: mask or drop those first"


class Statistics(NamedTuple):
    """What the table of a store is made of."""

    each: PerExample
    found: dict[tuple[str, str], Estimate]  # (statistic, step): those that are no mean over examples
    parts: dict[str, VariancePart]
    verdict: Verdict


def streamed(
    store: xr.Dataset,
    path: int,
    thresholds: Thresholds,
    level: float | None,
    seed: int,
    sample: int = SAMPLE,
) -> Statistics:
    """The statistics of a store that has thoughts on this path, without all of them in memory."""
    with working() as workers:
        return _streamed(store, opened(store, path), thresholds, level, seed, sample, workers)


def _streamed(
    store: xr.Dataset,
    thoughts: Thoughts,
    thresholds: Thresholds,
    level: float | None,
    seed: int,
    sample: int,
    workers: Workers,
) -> Statistics:
    n, present = len(thoughts.mask), thoughts.mask[:, thoughts.path]
    count = present.sum(axis=0)
    steps = np.flatnonzero(count >= 2).tolist()
    group = jackknife_groups(n, seed)
    each, pieces, means = _of_examples(thoughts, group, workers)
    if not steps:
        raise ValueError(f"{n} examples without a step that two of them have: give at least 2 examples")
    parts = pieces.parts()
    whole = {(f"variance_{k}", "all"): p.share for k, p in parts.items() if k != "total" and p.freedom}
    enough = level is not None and n >= 2 * (group.max() + 1)
    lefts = [pieces.without(g).parts() for g in range(group.max() + 1)] if enough else []
    left = [{key: part[key[0].removeprefix("variance_")].share for key in whole} for part in lefts]
    found = left_out(whole, left, level)

    reference = store["reference"].transpose("reference", "feature").values if "reference" in store else None
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(present.any(axis=1)))[:sample]
    clouds = Clouds(thoughts, means, each, np.sort(drawn), workers)
    values = clouds.statistics(steps, reference)
    found = {key: Estimate(value, np.nan, np.nan) for key, value in values.items()} | found
    return Statistics(each, found, parts, clouds.verdict(steps, values, thresholds))


# ------------------------------------------------------------------------------------------------ sums over examples


class _Pieces(NamedTuple):
    """What variance parts are made of, for each group of examples apart: all of it adds up over examples.

    Of thoughts less the mean of the first, which keeps digits: `parts` takes off what their mean differs from it.
    """

    square: np.ndarray  # [group], of thoughts with their mean
    total: np.ndarray  # [group], of thoughts without
    slot: np.ndarray  # [group, step, feature]: sums
    slot_count: np.ndarray  # [group, step]
    beyond: np.ndarray  # [group, step, feature]: sums of what each example's mean leaves
    overlap: np.ndarray  # [group, step, step]
    explained: np.ndarray  # [group, (question, cell, path)]: sums of squares around the common mean
    ranks: np.ndarray  # [group, (question, cell, path)]

    def without(self, group: int) -> "_Pieces":
        return _Pieces(*(np.delete(piece, group, axis=0) for piece in self))

    def parts(self) -> dict[str, VariancePart]:
        """See `variance_parts`."""
        square, total, slot, count, beyond, overlap, explained, ranks = (piece.sum(axis=0) for piece in self)
        shift = float(np.square(slot.sum(axis=0)).sum() / count.sum())  # these examples' mean is not quite that of all
        own = float((np.square(slot).sum(axis=1)[count > 0] / count[count > 0]).sum()) - shift
        more, extra = regression(beyond, np.diag(count) - overlap)
        question, cell, path = explained.tolist()
        questions, cells, paths = ranks.tolist()
        sums = Explained(own, question - shift + float(more), cell - shift, path, float(total) - shift)
        means = Explained(int((count > 0).sum()), questions + int(extra), cells, paths, int(count.sum()))
        return shared_out(sums, means, float(square), slot.shape[1])


def _of_examples(thoughts: Thoughts, group: np.ndarray, workers: Workers) -> tuple[PerExample, _Pieces, np.ndarray]:
    """What one pass over the examples gives, and the means of the path's steps [step, feature]. Deviations from those
    are left for when they are known."""
    n, _, steps, width = thoughts.array.shape
    groups = group.max() + 1
    each = PerExample(np.zeros((n, steps)), np.zeros((n, steps)), np.zeros(n), np.zeros(n))
    shapes = ((), (), (steps, width), (steps,), (steps, width), (steps, steps), (3,), (3,))
    sums = np.zeros((steps, width))
    common = thoughts.first()
    if not np.isfinite(common).all():
        raise ValueError(NOT_FINITE)

    def of_span(span: slice) -> tuple[_Pieces, np.ndarray]:
        pieces, sums = _Pieces(*(np.zeros((groups, *shape)) for shape in shapes)), np.zeros((steps, width))
        for rows, x, there in thoughts.blocks(span):
            squares = np.einsum("epsf,epsf->e", x, x)
            if not np.isfinite(squares).all():
                raise ValueError(NOT_FINITE)
            for whole, part in zip(each[1:], _each(x[:, thoughts.path], there[:, thoughts.path]), strict=True):
                whole[rows] = part
            x -= common
            if not there.all():
                x[~there] = 0
            sums += x[:, thoughts.path].sum(axis=0)
            member = (group[rows] == np.arange(groups)[:, None]).astype(np.float64)
            for whole, part in zip(pieces, _pieces(x, there.astype(np.float64), squares, member), strict=True):
                whole += part
        return pieces, sums

    pieces = _Pieces(*(np.zeros((groups, *shape)) for shape in shapes))
    for found, part in workers.ordered((of_span, span) for span in thoughts.spans()):
        sums += part
        for whole, more in zip(pieces, found, strict=True):
            whole += more
    count = thoughts.mask[:, thoughts.path].sum(axis=0)
    means = np.where((count > 0)[:, None], sums / np.maximum(count, 1)[:, None] + common, 0)
    return each, pieces, means


def _each(x: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`per_example` without the deviations, in few passes over x [example, step, feature]."""
    squares, count = np.einsum("esf,esf->es", x, x), present.sum(axis=1)
    square, pairs = squares / x.shape[2], (count * (count - 1)).astype(np.float64)
    if not pairs.any():
        return square, pairs, pairs
    weight = np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0) * present
    both = np.square(weight[:, None] @ x).sum(axis=(1, 2)) - (weight > 0).sum(axis=1)
    cosine = np.divide(both, pairs, out=np.zeros_like(pairs), where=pairs > 0)
    # KL(p || q) = sum p (c - x) - log sum exp c + log sum exp x, where p = softmax(c), q = softmax(x)
    centre = x.sum(axis=1) / np.maximum(count, 1)[:, None]
    p, floor = _softmax(centre.copy())
    inner = (x @ p[..., None])[..., 0]
    kl = (p * centre).sum(axis=-1)[:, None] - inner - floor[:, None] + _softmax(x.copy(), False)[1]
    kl = np.where(pairs > 0, (np.maximum(kl, 0) * present).sum(axis=1) / np.maximum(count, 1), 0)
    return square, cosine, kl


def _softmax(x: np.ndarray, divided: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Softmax of the rows of x, which it overwrites, and the logarithms of their sums of exponentials."""
    top = x.max(axis=-1, keepdims=True)
    x -= top
    np.exp(x, out=x)
    total = x.sum(axis=-1, keepdims=True)
    if divided:
        x /= total
    return x, (np.log(total) + top)[..., 0]


def _pieces(y: np.ndarray, there: np.ndarray, squares: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, ...]:
    """The pieces of each group; y [example, path, step, feature], 0 where masked, its squares before their common mean
    was taken off [example], and which examples are in a group [group, example]."""
    groups, (n, paths, steps, width) = len(member), y.shape
    cell, per_cell = y[:, 0] if paths == 1 else y.sum(axis=1), there.sum(axis=1)
    question, per_question = cell.sum(axis=1), per_cell.sum(axis=1)
    mean = question / np.maximum(per_question, 1)[:, None]
    in_cells = np.einsum("esf,esf->es", cell, cell)
    explained = np.stack(
        [np.einsum("ef,ef->e", question, mean), (in_cells / np.maximum(per_cell, 1)).sum(axis=1), np.zeros(n)], axis=1
    )
    ranks = np.stack([per_question > 0, (per_cell > 0).sum(axis=1), np.zeros(n)], axis=1)
    total = in_cells.sum(axis=1) if paths == 1 else np.einsum("epsf,epsf->e", y, y)
    if paths > 1:  # paths of a question, beyond its slots
        means = cell / np.maximum(per_cell, 1)[..., None]
        rest = y.sum(axis=2) - np.einsum("eps,esf->epf", there, means)
        weights = there / np.maximum(per_cell, 1)[:, None]
        inner = there.sum(axis=2)[:, :, None] * np.eye(paths) - there @ weights.transpose(0, 2, 1)
        explained[:, 2], ranks[:, 2] = regression(rest, inner)
    slot = (member @ cell.reshape(n, -1)).reshape(groups, steps, width)
    by_slot = (member[:, None] * per_cell.T).reshape(-1, n)
    beyond = slot - (by_slot @ mean).reshape(slot.shape)
    shares = per_cell / np.maximum(per_question, 1)[:, None]
    overlap = (by_slot @ shares).reshape(groups, steps, steps)
    return (
        member @ squares,
        member @ total,
        slot,
        member @ per_cell,
        beyond,
        overlap,
        member @ explained,
        member @ ranks,
    )
