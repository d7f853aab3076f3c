"""What the thoughts of each slot say most often, as a store's read-out has it."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .inputs import question_labels


def first_words(store: xr.Dataset, by: str | None = None, most: int = 4) -> pd.DataFrame:
    """The words that the output head most often finds likeliest, slot by slot of path 0.

    Columns: slot, by (if asked: a label of the store, such as "label_meaning", and a row for each of its values), reads
    as (`most` words with their share of the questions), probability (mean, of the likeliest word), n. ValueError where
    the store was collected without `readout`.
    """
    if "lens_token" not in store:
        raise ValueError("this store does not say what thoughts read as: collect it with readout=5 (workbench readout)")
    one = store.isel(path=0, rank=0).transpose("example", "step", ...)
    mask, token, chance = (one[name].values for name in ("mask", "lens_token", "lens_probability"))
    groups = {"": np.full(len(mask), True)}
    if by is not None:
        labels = question_labels(store, by, 0)
        groups = {str(value): labels == value for value in sorted(set(labels.tolist()))}
    rows = []
    for step in np.flatnonzero(mask.any(axis=0)).tolist():
        for group, inside in groups.items():
            there = mask[:, step] & inside
            if not there.any():
                continue
            counts: Any = pd.Series(token[there, step].astype(str)).value_counts()
            words = [f"{word.strip() or repr(word)} {n / there.sum():.0%}" for word, n in counts[:most].items()]
            rows.append((step, group, ", ".join(words), float(chance[there, step].mean()), int(there.sum())))
    table = pd.DataFrame(rows, columns=pd.Index(["slot", by or "", "reads as", "probability", "n"]))
    return table if by is not None else table.drop(columns="")
