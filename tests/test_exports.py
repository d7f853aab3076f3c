"""Exports, read back as their readers would: the same rows in the same order, every text, every vector."""

import csv

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from stores import synthetic_store

from workbench import store as stores
from workbench.__main__ import main
from workbench.analysis.exports import write_csv, write_parquet, write_projector
from workbench.analysis.projection import labelled, project

NASTY = "tab\there, \"quotes\" and commas,\nline\r\nbreaks \u2028 and 'Ω'"


def nasty_store(**given):
    store = synthetic_store(6, **given)
    store["question"] = ("example", np.array([NASTY, *store["question"].values[1:]]))
    return store


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")


def test_the_projector_gets_every_vector_and_its_labels_in_order(tmp_path):
    store = nasty_store(masked=True)
    before = store.copy(deep=True)
    paths = write_projector(store, tmp_path / "new")
    assert [path.name for path in paths] == ["vectors.tsv", "metadata.tsv", "projector_config.pbtxt"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    vectors, table = labelled(store)
    read = np.loadtxt(paths[0], delimiter="\t", dtype=np.float32)
    np.testing.assert_array_equal(read, vectors)  # exactly
    header, *rows = lines(paths[1])[:-1]
    assert header.split("\t") == list(table)
    assert len(rows) == len(vectors) == int(store["mask"].sum())
    cells = [row.split("\t") for row in rows]
    assert {len(row) for row in cells} == {len(header.split("\t"))}
    for name in ("example", "store", "gold"):
        assert [row[list(table).index(name)] for row in cells] == table[name].astype(str).tolist()
    assert [int(row[list(table).index("step")]) for row in cells] == table["step"].tolist()
    # no quoting in TSV: what would break a line or a column is a space, all else stays
    question = cells[0][list(table).index("question")]
    assert question == "tab here, \"quotes\" and commas, line breaks   and 'Ω'"
    assert store.identical(before)


def test_the_projector_config_names_the_files(tmp_path):
    *_, config = write_projector(synthetic_store(4), tmp_path)
    text = config.read_text()
    assert 'tensor_path: "vectors.tsv"' in text
    assert 'metadata_path: "metadata.tsv"' in text
    assert text.count("{") == text.count("}") == 1


def test_several_stores_come_one_after_the_other(tmp_path):
    stores = {0: synthetic_store(4), 50: synthetic_store(3, seed=1)}
    vectors, metadata, _ = write_projector(stores, tmp_path)
    table = pd.read_csv(metadata, sep="\t", quoting=csv.QUOTE_NONE)
    assert table["store"].tolist() == [0] * 16 + [50] * 12
    assert len(lines(vectors)) - 1 == 28


def test_missing_labels_are_empty_cells(tmp_path):
    first, second = synthetic_store(4), synthetic_store(4, reasoning=0)
    _, metadata, _ = write_projector({"a": first, "b": second}, tmp_path)
    table = pd.read_csv(metadata, sep="\t", quoting=csv.QUOTE_NONE)
    assert table["label_critical_step"].isna().tolist() == [False] * 16 + [True] * 16


def test_parquet_holds_coordinates_texts_and_labels_as_they_are(tmp_path):
    store = nasty_store(draws=2)
    table = project(store)
    before = table.copy(deep=True)
    path = write_parquet(table, tmp_path / "thoughts.parquet")
    read = pd.read_parquet(path)
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert {"x", "y", "text", "question", "gold", "label_operations"} <= set(read)
    assert read["question"].iloc[0] == NASTY
    assert read.attrs["trustworthiness"] == table.attrs["trustworthiness"]
    assert pq.read_metadata(path).num_rows == len(table)
    written = store["text"].transpose("example", "path", "draw").values[0, 0]
    assert read["text"].iloc[0] == " | ".join(dict.fromkeys(written))
    pd.testing.assert_frame_equal(table, before)


def test_csv_keeps_every_text_and_number(tmp_path):
    table = project(nasty_store())
    path, kinds = write_csv(table, tmp_path / "thoughts.csv"), {"example": str, "gold": str}
    # pandas' own reading of digits hangs on its version
    read = pd.read_csv(path, dtype=kinds, converters={"x": float, "y": float})
    assert read.columns.tolist() == table.columns.tolist()
    assert read["question"].tolist() == table["question"].tolist()
    np.testing.assert_array_equal(read[["x", "y"]], table[["x", "y"]])
    assert read["example"].tolist() == table["example"].tolist()
    any_table = pd.DataFrame({"text": ['a "b", c\nd', ""], "value": [1.5, np.nan]})
    path = write_csv(any_table, tmp_path / "any.csv")
    assert path.read_bytes() == b'text,value\n"a ""b"", c\nd",1.5\n,\n'


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: write_csv(project(synthetic_store(4)), folder / "a.tsv"), r"does not end in '\.csv'"),
        (lambda folder: write_parquet(project(synthetic_store(4)), folder / "a"), r"does not end in '\.parquet'"),
        (lambda folder: write_csv(pd.DataFrame(), folder / "a.csv"), "the table has no columns"),
        (lambda folder: write_projector(synthetic_store(4, steps=0, method="direct"), folder), "no thoughts in direct"),
        (lambda folder: write_projector({}, folder), "no stores"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(write, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("tsv", {"vectors.tsv", "metadata.tsv", "projector_config.pbtxt"}),
        ("parquet", {"thoughts.parquet"}),
        ("csv", {"thoughts.csv"}),
    ],
)
def test_the_command_writes_the_files_it_says(what, files, tmp_path, capsys):
    for name in ("one", "two"):
        stores.save(synthetic_store(4), tmp_path / f"{name}.nc")
    asked = [str(tmp_path / "one.nc"), str(tmp_path / "two.nc"), "--what", what, "--out", str(tmp_path / "out")]
    assert main(["export", *asked]) == 0
    printed = capsys.readouterr().out.split()
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    assert set(printed) == {str(tmp_path / "out" / name) for name in files}
    if what == "csv":
        assert pd.read_csv(tmp_path / "out" / "thoughts.csv")["store"].tolist() == ["one"] * 16 + ["two"] * 16


def test_an_interrupted_export_leaves_the_older_files(tmp_path, monkeypatch):
    write_projector(synthetic_store(4), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(OSError, match="disk full"):
        write_projector(synthetic_store(5), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
