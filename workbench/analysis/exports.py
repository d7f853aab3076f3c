"""Thoughts and tables as files that other programs read: TensorBoard's projector, parquet, CSV.

    vectors.tsv, metadata.tsv, projector_config.pbtxt   `tensorboard --logdir FOLDER`, or projector.tensorflow.org
    thoughts.parquet                                    pandas, polars, DuckDB, Nomic Atlas, Apple's embedding atlas
    thoughts.csv                                        everything else

A file is whole or absent. Rows stand in the order of `projection.labelled`: store, example, path, step.
"""

import csv
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from ..files import whole, write_text
from .projection import labelled

CONFIG = """embeddings {
  tensor_name: "thoughts"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
}
"""


def write_projector(stores: xr.Dataset | Mapping[Any, xr.Dataset], folder: str | Path) -> list[Path]:
    """All real thoughts of one store, or of several by name or training step, for TensorBoard's projector, which makes
    its own maps: one vector a line in `folder`/vectors.tsv (no header), its labels in metadata.tsv (with header).

    Vectors come back exactly as float32. TSV knows no quoting: each tab or line break in a text becomes a space, so
    texts are for reading; `write_parquet` keeps them. Raises ValueError as `projection.labelled` does.
    """
    vectors, table = labelled(stores)
    flat = table.apply(lambda column: column.map(_one_line) if column.dtype.kind not in "fiub" else column)
    folder = Path(folder)
    paths = [folder / "vectors.tsv", folder / "metadata.tsv"]
    plain: dict[str, Any] = {"sep": "\t", "index": False, "quoting": csv.QUOTE_NONE, "lineterminator": "\n"}
    with ExitStack() as stack:  # both are written before the first gets its name
        first, second = (stack.enter_context(whole(path)) for path in paths)
        pd.DataFrame(vectors).to_csv(first, header=False, **plain)
        flat.to_csv(second, **plain)
    write_text(folder / "projector_config.pbtxt", CONFIG)
    return [*paths, folder / "projector_config.pbtxt"]


def write_parquet(table: pd.DataFrame, path: str | Path) -> Path:
    """A table, such as of `projection.project`, as parquet: types, texts and `.attrs` as they are."""
    path = _named(table, path, ".parquet")
    with whole(path) as temporary:
        table.to_parquet(temporary, engine="pyarrow", index=False)
    return path


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """A table as CSV in UTF-8 with a header: texts with commas or line breaks are quoted, what is missing is empty (as
    an empty text is)."""
    path = _named(table, path, ".csv")
    with whole(path) as temporary:
        # RFC 4180's line ends would make pandas turn a "\n" within a text into "\r\n" on some systems
        table.to_csv(temporary, index=False, lineterminator="\n")
    return path


def _one_line(value: Any) -> str:
    return "" if pd.isna(value) else " ".join(str(value).replace("\t", " ").splitlines())


def _named(table: pd.DataFrame, path: str | Path, ending: str) -> Path:
    """The path, if it says what is written there, and the table has something to write."""
    path = Path(path)
    if path.suffix != ending:
        raise ValueError(f"{str(path)!r} does not end in {ending!r}: give it that ending")
    if not len(table.columns):
        raise ValueError("the table has no columns: give one with something to write")
    return path
