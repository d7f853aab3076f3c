"""Thoughts of a store in blocks of examples, and work on them in as many threads as matrix products would use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_info, threadpool_limits

KEPT = 2**31  # bytes of thoughts, as the store has them, up to which they are read once and kept
BLOCK = 2**19  # numbers of a block: in float64 what stays near the processor from one operation to the next
SPAN = 32  # blocks that a thread works on at once, of a store in memory
THREADS = 8  # at most: each holds a few features x features matrices
T = TypeVar("T")


def read(array: xr.DataArray) -> np.ndarray:
    """From disk, where it is not in memory; in this thread, since others read too."""
    return array.compute(scheduler="synchronous").values


class Workers(NamedTuple):
    """Threads, each of whose matrix products uses one."""

    pool: ThreadPoolExecutor
    threads: int

    def ordered(self, calls: Iterable[tuple[Callable[..., T], Any]]) -> Iterator[T]:
        """The results of (function, argument) in the order of the calls, so that sums do not depend on threads; a few
        calls ahead of the one that is waited for, so that few results are held."""
        waiting: deque[Future[T]] = deque()
        for function, argument in calls:
            waiting.append(self.pool.submit(function, argument))
            if len(waiting) > self.threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def working() -> Iterator[Workers]:
    """As many threads as matrix products are set to use (OMP_NUM_THREADS), `THREADS` at most.

    Decompositions gain little from several threads within, and arithmetic on blocks has none: one block or one
    decomposition per thread keeps all cores busy.
    """
    counts = [int(found["num_threads"]) for found in threadpool_info() if found["user_api"] == "blas"]
    count = min(max(counts, default=1), THREADS)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        yield Workers(pool, count)


class Thoughts(NamedTuple):
    """The thoughts of a store, perhaps on disk, and the path that is described."""

    array: xr.DataArray  # [example, path, step, feature]
    mask: np.ndarray  # [example, path, step]
    path: int
    kept: np.ndarray | None  # all of them as stored; [] of a lazily opened store until `blocks` has read them

    def spans(self) -> list[slice]:
        """Examples that are read at once: those of a part of the store, so that each is read once."""
        n = len(self.mask)
        each = self.rows() * SPAN
        lengths = self.array.chunksizes.get("example", (*[each] * (n // each), n % each))
        ends = np.cumsum(lengths).tolist()
        return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True) if length]

    def rows(self) -> int:
        """Examples of a block."""
        return max(1, BLOCK // max(1, int(np.prod(self.array.shape[1:]))))

    def first(self) -> np.ndarray:
        """The mean [feature] of the first thoughts there are: near the others."""
        start = int(np.flatnonzero(self.mask.any(axis=(1, 2)))[0])
        rows = slice(start, start + self.rows())
        with np.errstate(invalid="ignore"):  # inf - inf: what is not finite is said later
            return read(self.array[rows])[self.mask[rows]].astype(np.float64).mean(axis=0)

    def blocks(self, span: slice) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """(examples, thoughts in float64 with 0 where masked, mask) of a span, in order."""
        if self.kept is not None and self.array.chunks is None:
            stored = self.kept[span]
        else:
            stored = read(self.array[span])
            if self.kept is not None:
                self.kept[span] = stored
        for first in range(span.start, span.stop, self.rows()):
            rows = slice(first, min(first + self.rows(), span.stop))
            x, there = stored[first - span.start : rows.stop - span.start].astype(np.float64), self.mask[rows]
            if not there.all():
                x[~there] = 0
            yield rows, x, there

    def step(self, s: int, workers: Workers) -> np.ndarray:
        """One step of the path [example, feature], as stored: only to be read, and only what is not masked."""
        one = self.array[:, self.path, s]
        if self.kept is not None:
            return self.kept[:, self.path, s]
        spans, found = self.spans(), np.empty(one.shape, one.dtype)
        for span, stored in zip(spans, workers.ordered((read, one[span]) for span in spans), strict=True):
            found[span] = stored
        return found


def opened(store: xr.Dataset, path: int) -> Thoughts:
    """The thoughts of a store, with room for those that are kept."""
    array = store["thought"].transpose("example", "path", "step", "feature")
    mask = store["mask"].transpose("example", "path", "step").values
    kept = None
    if array.chunks is None:
        kept = array.values
    elif array.nbytes <= KEPT:
        kept = np.empty(array.shape, array.dtype)
    return Thoughts(array, mask, path, kept)
