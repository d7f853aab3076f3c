"""One thought that says a word, moved to say another: the question on which that turns the answer.

answer = answering("data/runs/two", store)
found = turning(store, answer, answer.embedding, ("+", "-"))
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

Answer = Callable[[str, np.ndarray], str]


@dataclass(frozen=True)
class Turning:
    """A thought of a question (path 0), the word it reads as with which probability, the word that it was moved to,
    what was answered before and after, and whether these differ."""

    question: str
    step: int
    word: str
    probability: float
    other: str
    before: str
    after: str

    @property
    def turns(self) -> bool:
        return self.before != self.after


def turning(
    store: xr.Dataset, answer: Answer, embedding: Callable[[str], np.ndarray], words: tuple[str, str], tries: int = 20
) -> Turning:
    """The surest thought that reads as one of two words and that, put where the other word lies, turns a right answer.

    answer, embedding: of `answering`. Of the thoughts that read as one of `words`, `tries` are moved at most, the
    surest first; where none of these turns its answer, the surest is given all the same. ValueError for a store without
    read-outs, and where no thought of a right answer reads as one of the words.
    """
    if "lens_token" not in store:
        raise ValueError("this store does not say what thoughts read as: collect it with readout=5 (workbench readout)")
    one = store.isel(path=0)
    first = one.isel(rank=0).transpose("example", "step", ...)
    read = np.char.strip(first["lens_token"].values.astype(str))
    sure, mask = first["lens_probability"].values, first["mask"].values
    right = one["correct"].isel(draw=0).values
    where = np.argwhere(np.isin(read, words) & mask & right[:, None])
    if not len(where):
        raise ValueError(f"no thought behind a right answer reads as one of {', '.join(words)}: give other words")
    order = np.argsort(-sure[tuple(where.T)], kind="stable")[:tries]
    vectors = one["thought"].transpose("example", "step", "feature").values
    found: Turning | None = None
    for i, step in where[order].tolist():
        question, word = str(store["example"].values[i]), str(read[i, step])
        other = words[1] if word == words[0] else words[0]
        own = vectors[i][mask[i]].astype(np.float32)
        moved = own.copy()
        moved[int(mask[i, :step].sum())] = embedding(other)
        tried = Turning(
            question, step, word, float(sure[i, step]), other, answer(question, own), answer(question, moved)
        )
        found = found or tried
        if tried.turns:
            return tried
    assert found is not None
    return found
