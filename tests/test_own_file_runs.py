"""A file of the user's own in a run: what the run remembers of it, and what the command line says."""

import pytest
from own_files import svamp, written

import workbench as wb
from workbench import runs, store
from workbench.__main__ import main
from workbench.tasks import load_task

SHORT = [
    *["--training.examples", "8", "--training.batch_size", "4", "--training.epochs", "1"],
    *["--training.probe_examples", "4"],
]


def test_from_a_file_to_a_run_a_store_and_the_same_run_again(tmp_path, tiny_folder, capsys):
    path = written(tmp_path / "svamp.json", svamp(60))
    own = ["--task", "jsonl", "--data", path, "--layout.labels", "Type", "--layout.seed", "3"]
    what = ["--backbone", str(tiny_folder()), "--method", "soft-prompt"]
    assert main(["tasks", *own]) == 0
    assert "question: Body+Question" in capsys.readouterr().out
    assert main(["train", *what, *own, *SHORT, "--out", str(tmp_path / "run")]) == 0
    config = runs.read_config(tmp_path / "run")
    assert config["task"] == "jsonl"
    assert config["data"] == path
    assert config["layout"]["question"] == "Body+Question"
    assert config["layout"]["seed"] == 3
    end = ["--decoding.max_new_tokens", "4", "--out", str(tmp_path / "t.nc")]
    assert main(["collect", "--run", str(tmp_path / "run"), *end]) == 0
    found = store.load(tmp_path / "t.nc")
    expected = load_task("jsonl", path, layout=config["layout"]).examples("test")
    assert found["example"].values.tolist() == [example.id for example in expected]
    assert set(found["label_Type"].values.tolist()) == {"Subtraction"}
    answer = wb.answering(tmp_path / "run", found)
    assert answer.task.layout == load_task("jsonl", path, layout=config["layout"]).layout
    again = ["train", "--config", str(tmp_path / "run" / "config.yaml"), "--out"]
    assert main([*again, str(tmp_path / "again")]) == 0
    assert (tmp_path / "run/config.yaml").read_bytes() == (tmp_path / "again/config.yaml").read_bytes()
    assert main([*again, str(tmp_path / "run"), "--resume", "true"]) == 0
    # another file is read by its own columns, and asked about in the same words
    other = written(tmp_path / "test.jsonl", [{"question": "Tom has 3 pens. How many?", "answer": 3}])
    assert main(["collect", "--run", str(tmp_path / "run"), "--data", other, *end]) == 0
    assert store.load(tmp_path / "t.nc")["gold"].values.tolist() == ["3"]


def test_help_lists_the_tasks(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for command in ("train", "collect", "tasks"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "one of arith, arith-shift, " in capsys.readouterr().out
    assert main(["tasks"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][-1] == "text"
