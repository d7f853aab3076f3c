"""Read-outs for a store that was collected without: nothing is thought or answered again.

read_out(store, method, 5)     the store with the five first words that each thought is read as (see `lens`)
"""

import json
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import yaml

from .. import runs, store
from ..analysis.lens import words
from ..backbone import Backbone
from ..config import choose, configured
from ..methods import METHODS, OWN_METHOD, LatentMethod, build
from .dataset import reference_rows

READ = ("lens_id", "lens_token", "lens_probability", "near_id", "near_token", "near_cosine")
SIGNALS = ("signal_lens_entropy", "signal_lens_mass")


@torch.no_grad()
def read_out(found: xr.Dataset, method: LatentMethod, k: int) -> xr.Dataset:
    """`found` with what `collect(..., readout=k)` would have kept; a read-out that it has is replaced.

    method: the one that made the store, with its weights, since some of them read with a model of their own. ValueError
    where it is not: another name, config, training step, or other word embeddings than those kept in the store.
    """
    if k < 1:
        raise ValueError(f"{k} words of each thought: give at least 1")
    wrong = _difference(found, method)
    if wrong:
        raise ValueError(f"{wrong}: give what the store was collected with")
    bare = found.drop_vars([name for name in (*READ, *SIGNALS) if name in found])
    plain = bare.transpose(*store.DIMENSIONS, missing_dims="ignore")
    read = words(method.backbone, plain["thought"].values, plain["mask"].values, k)
    kept = bare.assign({name: (store.VARIABLES.get(name, store.SIGNAL).dims, own) for name, own in read.items()})
    store.check(kept)
    return kept


def reader(found: xr.Dataset, run: str | Path | None = None) -> LatentMethod:
    """The method that a store was collected with: from the folder of its run, or of one without training by its name.

    Of a run the weights after the store's own training step are taken, where a snapshot kept them.
    """
    step = found.attrs.get("training_step")
    if run is not None:
        method = runs.load_method(run)
        kept = method.training_step != step and step in runs.snapshot_steps(run)
        return runs.load_method(run, method.backbone, step=step) if kept else method
    name = found.attrs["method"]
    cls = choose("method", name, METHODS, OWN_METHOD)
    if cls.trained:
        raise ValueError(f"this store holds thoughts of a trained {name}: give the folder of its run too (--run)")
    backbone = Backbone.load(found.attrs["backbone"], weights=cls.needs == "model")
    options = yaml.safe_load(found.attrs["config"]) or {}
    return build(name, backbone, configured(cls.Config, options), seed=int(found.attrs["seed"]))


def _difference(found: xr.Dataset, method: LatentMethod) -> str:
    """In words, the first thing in which a store and a method are not of each other; "" where they are."""
    about = runs.describe_method(method)
    asked = yaml.safe_load(found.attrs["config"]) or {}
    for what, has, given in (
        ("method", found.attrs["method"], about["method"]),
        ("width", found.sizes["feature"], method.backbone.width),
        ("config", asked, json.loads(json.dumps(about["options"]))),
        ("training step", found.attrs.get("training_step"), method.training_step),
    ):
        if has != given:
            return f"the store is of {what} {has!r} and this is of {given!r}"
    if "reference" in found:
        kept = found["reference"].transpose("reference", "feature").values
        mine = reference_rows(method)
        if kept.shape != mine.shape or not np.allclose(kept, mine, rtol=1e-2, atol=1e-4):
            return f"the word embeddings of {method.backbone.name!r} are not those kept in the store"
    return ""
