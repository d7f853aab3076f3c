"""A map fitted to one slot's thoughts: on common axes, which the differences between slots rule, they are specks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..analysis import projection

PLACE = ["store", "example", "path", "step"]  # names a row of a map


def own_axes(stores: Mapping[Any, xr.Dataset], common: pd.DataFrame, step: int, how: projection.How) -> pd.DataFrame:
    """`common` (of `projection.project(stores, how)`) with the rows of one step where a map of these alone has them.

    Its attributes (axes, trustworthiness) are those of that map. ValueError as `project` has it, for a step of few
    thoughts or of equal ones.
    """
    rows = np.flatnonzero(common["step"] == step)
    masked = {name: _only(store, step) for name, store in stores.items()}
    fitted = projection.project({name: store for name, store in masked.items() if bool(store["mask"].any())}, how)
    at: Any = fitted.set_index(PLACE).loc[pd.MultiIndex.from_frame(common.iloc[rows][PLACE])]
    found = common.copy()
    for axis in ("x", "y"):
        values = found[axis].to_numpy(copy=True)
        values[rows] = at[axis].to_numpy()
        found[axis] = values
    found.attrs = fitted.attrs
    return found


def _only(store: xr.Dataset, step: int) -> xr.Dataset:
    """A store without the thoughts of other steps."""
    there = np.arange(store.sizes["step"]) == step
    return store.assign(mask=store["mask"] & xr.DataArray(there, dims="step"))
