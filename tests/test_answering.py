"""Answering on the command line: how answers are decoded, what they took, and stores that do not compare."""

import json
import re

import pytest
from families import family, save
from stores import synthetic_store

from workbench import store
from workbench.__main__ import main

CAP = ["--decoding.max_new_tokens", "8"]


@pytest.fixture(scope="module")
def chatting(tmp_path_factory) -> str:
    """The folder of a tiny Qwen3 with a chat template and a generation config."""
    return save(family("qwen3"), tmp_path_factory.mktemp("qwen3"))


def test_score_says_what_answers_took(tmp_path, capsys):
    found = synthetic_store(20, 2, 1, 2, 3).assign_attrs(batch_size=16)
    store.save(found, tmp_path / "a.nc")
    assert main(["score", str(tmp_path / "a.nc")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"store +tokens +thoughts +seconds +batch_size +answers +capped +capped_share +unread", said)
    row = said.strip().splitlines()[-1].split()
    capped, unread = int((~found["finished"]).sum()), int((found["prediction"] == "").sum())
    assert [float(value) for value in row[1:]] == pytest.approx(
        [
            int(found["length"].sum()) / 20, int(found["mask"].sum()) / 20, 1.5 / 20, 16, 120, capped, capped / 120,
            unread, unread / 120,
        ], abs=1e-4,
    )  # fmt: skip


def test_stores_that_share_too_little_still_have_accuracies(tmp_path, capsys):
    whole = synthetic_store(12)
    stores = {"a": whole, "b": synthetic_store(12, start=100), "c": whole.isel(example=[0]), "d": whole}
    for name, found in stores.items():
        store.save(found, tmp_path / f"{name}.nc")
    assert main(["score", *(str(tmp_path / f"{name}.nc") for name in stores)]) == 0
    printed = capsys.readouterr()
    blocks = printed.out.split("on the examples both have:\n")[1:]
    assert re.match(r"no comparison: the stores of .* share no example: ", blocks[0])
    assert blocks[1].startswith("no comparison: 1 paired examples: a bootstrap needs at least 2")
    assert " difference " in blocks[2]
    assert printed.err == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"temperature": 0.0, "max_new_tokens": 64}),  # the task's own length
        (["--decode", "model"], {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_new_tokens": 64}),
        (["--decode=published", *CAP], {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_new_tokens": 8}),
        (
            ["--decode", "published", *CAP, "--decoding.top_p=1", "--decoding.top_k", "null"],
            {"top_p": 1.0, "top_k": None},
        ),
        (["--decode", "published", *CAP, "--decoding.temperature", "0"], {"temperature": 0.0, "top_p": 0.8}),
        (
            [*CAP, "--decoding.temperature", "1", "--decoding.min_p", "0.1", "--decoding.repetition_penalty", "1.2"],
            {"min_p": 0.1, "top_k": None},
        ),
    ],
    ids=lambda options: " ".join(options) if isinstance(options, list) else "",
)
def test_collect_decodes_by_name_and_by_setting(chatting, options, expected, tmp_path, capsys):
    out = ["--count", "2", "--out", str(tmp_path / "a.nc")]
    assert main(["collect", "--backbone", chatting, "--method", "cot", "--task", "arith", *options, *out]) == 0
    found = store.load(tmp_path / "a.nc")
    assert expected.items() <= json.loads(found.attrs["decoding"]).items()
    assert re.search(
        r"\n\d+\.\d tokens, 0\.0 thoughts and [\d.e-]+ s a question \(in batches of 128\); of 2 answers \d "
        r"\(\d+\.\d %\) "
        r"stopped at the length cap and \d \(\d+\.\d %\) could not be read\n$", capsys.readouterr().out,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["--decoding", "{top_k: 1}"], r"--decoding is given one setting at a time, such as --decoding\.temperature"),
        (["--decoding={}"], r"--decoding is given one setting at a time"),
        (["--decode", "best"], r"--decode: expected one of 'greedy', 'model', 'published', got best"),
        (
            ["--decode", "published"],
            r"no published decoding for a backbone of family 'other', only for qwen3, qwen2\.5",
        ),
        (["--decoding.top_k", "0"], r"top_k is 0; give a number from 1"),
        (["--prompts", "/nowhere.yaml"], r"no prompt pack at '/nowhere\.yaml'; give a YAML file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence(command, complaint, tmp_path, capsys):
    assert main(["collect", "--count", "2", "--out", str(tmp_path / "a.nc"), *command]) == 2
    told = capsys.readouterr().err
    assert re.match(rf"workbench: .*{complaint}", told)
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
