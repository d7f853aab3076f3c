"""A collection that was stopped goes on from what it had; what can be refused is refused before the first answer."""

import errno
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from workbench import store
from workbench.__main__ import main
from workbench.backbone import Decoding
from workbench.evidence import journal
from workbench.evidence.asking import NothingDiffers
from workbench.evidence.collect import collect
from workbench.evidence.counter import counter
from workbench.methods import build
from workbench.methods.baselines import CoT
from workbench.methods.coconut import CoconutConfig
from workbench.methods.soft_thinking import SoftThinkingConfig
from workbench.tasks import Example, load_task

TASK = load_task("arith")
SAMPLED = Decoding(3, temperature=1.0)
SHORT = {"soft-thinking": SoftThinkingConfig(max_thoughts=3), "coconut": CoconutConfig()}
METHODS = ["coconut", "cot", "direct", "lta-thinker", "soft-prompt", "soft-thinking", "softcot", "softcot-pp"]
TASKS = ("arith", "arith-shift", "gsm8k", "gsm8k-socratic", "math500", "aqua", "prosqa", "strategyqa",
         "date_understanding", "date_understanding-all")  # fmt: skip


def same(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Equal to the bit, but for when and how long."""
    differ = {name for name in one.attrs | other.attrs if one.attrs.get(name) != other.attrs.get(name)}
    return one.drop_attrs(deep=False).identical(other.drop_attrs(deep=False)) and differ <= {"seconds", "created"}


class Stopped:
    """A method's `answer` that is cut off in its n-th call, and counts its calls."""

    def __init__(self, method, error=None, at=10**9):
        self.calls, self.answer, self.error, self.at = 0, method.answer, error, at

    def __call__(self, *given, **named):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return self.answer(*given, **named)


@pytest.mark.parametrize("name", ["cot", "soft-thinking", "lta-thinker"])
@pytest.mark.parametrize("change", [None, "shuffled"])
def test_a_stopped_collection_goes_on_to_the_same_store(name, change, tiny, tmp_path, monkeypatch):
    method, examples, out = build(name, tiny(), SHORT.get(name)), TASK.examples("dev", 5), tmp_path / "new" / "a.nc"
    asked = {"decoding": SAMPLED, "draws": 2, "batch_size": 2, "seed": 3, "change": change, "readout": 2}
    whole = collect(method, TASK, examples, **asked)
    monkeypatch.setattr(method, "answer", Stopped(method, KeyboardInterrupt(), at=3))
    with pytest.raises(KeyboardInterrupt, match=r"4 of 5 questions are answered and kept in .*a\.nc\.parts: give the"):
        collect(method, TASK, examples, **asked, out=out)
    assert os.listdir(out.parent) == ["a.nc.parts"]
    monkeypatch.undo()
    monkeypatch.setattr(method, "answer", counted := Stopped(method))
    found = collect(method, TASK, examples, **asked, out=out)
    assert counted.calls == 1
    assert same(found, whole)
    assert os.listdir(out.parent) == ["a.nc"]
    assert store.load(out)["text"].values.tolist() == whole["text"].values.tolist()


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import workbench as wb
from workbench.methods.baselines import CoT
task, method, calls = wb.load_task("arith"), wb.build("cot", wb.Backbone.load({folder!r})), []
def answer(*given, **named):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return CoT.answer(method, *given, **named)
method.answer = answer
wb.collect(method, task, task.examples("dev", 4), decoding=wb.Decoding(3), batch_size=1, out={out!r})
"""


def test_a_killed_process_has_kept_what_it_answered(tiny, tiny_folder, tmp_path, monkeypatch):
    out, folder = tmp_path / "a.nc", str(tiny_folder("qwen3", False))
    code = KILLED.format(tests=os.path.dirname(__file__), folder=folder, out=str(out))
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    torn = tmp_path / "a.nc.parts"
    torn.write_bytes(torn.read_bytes() + b"\x05\0\0\0\0\0\0\0half a record")
    method, examples = build("cot", tiny()), TASK.examples("dev", 4)
    monkeypatch.setattr(method, "answer", counted := Stopped(method))
    found = collect(method, TASK, examples, decoding=Decoding(3), batch_size=1, out=out)
    assert counted.calls == 2
    assert same(found, collect(method, TASK, examples, decoding=Decoding(3), batch_size=1))


def _stopped(method, examples, out, monkeypatch, **asked):
    with monkeypatch.context() as patched:
        patched.setattr(method, "answer", Stopped(method, KeyboardInterrupt(), at=2))
        with pytest.raises(KeyboardInterrupt):
            collect(method, TASK, examples, decoding=SAMPLED, batch_size=2, out=out, **asked)


def test_another_collection_does_not_take_what_is_kept(tiny, tmp_path, monkeypatch):
    method, examples, out = build("soft-prompt", tiny()), TASK.examples("dev", 4), tmp_path / "a.nc"
    _stopped(method, examples, out, monkeypatch)
    kept = (tmp_path / "a.nc.parts").read_bytes()
    other = build("soft-prompt", tiny(), seed=1)
    reworded = [replace(examples[0], question="One?"), *examples[1:]]
    for about, asked in (
        ("seed: 0, now 1", lambda: collect(method, TASK, examples, decoding=SAMPLED, batch_size=2, seed=1, out=out)),
        ("batch_size: 2, now 3", lambda: collect(method, TASK, examples, decoding=SAMPLED, batch_size=3, out=out)),
        ("weights: ", lambda: collect(other, TASK, examples, decoding=SAMPLED, batch_size=2, out=out)),
        ("examples or prompts: ", lambda: collect(method, TASK, reworded, decoding=SAMPLED, batch_size=2, out=out)),
    ):
        with pytest.raises(ValueError, match=rf"answers of another collection \({about}.*run that one again.*delete"):
            asked()
        assert (tmp_path / "a.nc.parts").read_bytes() == kept


def test_a_damaged_record_is_answered_again(tiny, tmp_path, monkeypatch):
    method, examples, out = build("soft-prompt", tiny()), TASK.examples("dev", 4), tmp_path / "a.nc"
    _stopped(method, examples, out, monkeypatch)
    path = tmp_path / "a.nc.parts"
    kept = path.read_bytes()
    path.write_bytes(kept[:-100] + bytes([kept[-100] ^ 1]) + kept[-99:])
    found = collect(method, TASK, examples, decoding=SAMPLED, batch_size=2, out=out)
    assert same(found, collect(method, TASK, examples, decoding=SAMPLED, batch_size=2))
    path.write_bytes(kept[:40] + bytes([kept[40] ^ 1]) + kept[41:])
    with pytest.raises(ValueError, match="damaged at its beginning: delete it"):
        collect(method, TASK, examples, decoding=SAMPLED, batch_size=2, out=out)


def test_two_processes_do_not_write_the_same_store(tiny, tmp_path):
    method, out = build("cot", tiny()), tmp_path / "a.nc"
    with (
        journal.Journal(out, {"a": "b"}),
        pytest.raises(ValueError, match=r"a\.nc\.parts is being written by another process: wait"),
    ):
        collect(method, TASK, TASK.examples("dev", 1), decoding=Decoding(1), out=out)


def test_a_full_disk_is_one_sentence_and_the_answers_are_kept(tiny, tmp_path, monkeypatch):
    method, examples, out = build("cot", tiny()), TASK.examples("dev", 3), tmp_path / "a.nc"
    asked = {"decoding": Decoding(2), "batch_size": 1, "out": out}
    full, synced, real = OSError(errno.ENOSPC, "No space left on device"), [], os.fsync

    def fsync(file):
        synced.append(file)
        if len(synced) == 6:  # about, three thoughts, an answer
            raise full
        real(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=r"parts cannot be written \(No space left on device\): what was answered"):
            collect(method, TASK, examples, **asked)
    with monkeypatch.context() as patched:
        patched.setattr(store.sealed, "whole", lambda path: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match=r"a\.nc' cannot be written \(No space left on device\): make room"):
            collect(method, TASK, examples, **asked)
    monkeypatch.setattr(method, "answer", counted := Stopped(method))
    collect(method, TASK, examples, **asked)
    assert counted.calls == 0


class Counted(CoT):
    """Counts how often it was asked."""

    asked = 0

    def think(self, prompts, *, paths=1):
        Counted.asked += 1
        return super().think(prompts, paths=paths)


ONE = Example("a", "one?", (), "5", {"level": 1})
BAD = {
    "equal ids": ([ONE, replace(ONE, question="two?")], {}, "example id 'a' occurs more than once"),
    "ids that are stored alike": ([replace(ONE, id="a\0"), replace(ONE, id="a\ufffd")], {}, "occurs more than once"),
    "an id that is a number": ([replace(ONE, id=7)], {}, "id of example 7 is a int: give text"),
    "a number to reach": ([replace(ONE, answer=5)], {}, "answer of example 'a' is a int"),
    "a step that is none": ([replace(ONE, steps=("1", None))], {}, "step 1 of example 'a' is a NoneType"),
    "a label too few": ([ONE, replace(ONE, id="b", labels={})], {}, "examples 'a' and 'b' do not have the same labels"),
    "a label too many": ([ONE, replace(ONE, id="b", labels={"level": 1, "x": 2})], {}, r"only one has 'x'"),
    "a label that is None": ([replace(ONE, labels={"level": None})], {}, "'level' of example 'a' is None"),
    "a label of two kinds": ([ONE, replace(ONE, id="b", labels={"level": "2"})], {}, "is '2', and 1 of example 'a'"),
    "a label that is a list": ([replace(ONE, labels={"level": [1]})], {}, r"is \[1\]"),
    "a huge number": ([replace(ONE, labels={"level": 2**70})], {}, "more than 64 bits"),
    "a slash": ([replace(ONE, labels={"km/h": 1})], {}, "label 'km/h' cannot be stored"),
    "a NUL": ([replace(ONE, labels={"a\0b": 1})], {}, "cannot be stored"),
    "no name": ([replace(ONE, labels={"": 1})], {}, "cannot be stored"),
    "a known label": ([replace(ONE, labels={"critical_step": "x"})], {}, "known to diagnostics as whole numbers"),
    "half a draw": ([ONE], {"draws": 1.5}, r"draws=1\.5: it must be a whole number"),
    "no path": ([ONE], {"paths": 0}, "paths=0: it must be at least 1"),
    "no such change": ([ONE], {"change": "shufled"}, "unknown change of thoughts 'shufled'"),
    "a change of too few": ([ONE], {"change": "shuffled"}, "at least two questions"),
    "half a thought": ([ONE], {"change": "truncated:1.5"}, "give a whole one"),
    "too many words": ([ONE], {"readout": 10**6}, "readout=1000000"),
    "words below none": ([ONE], {"readout": -1}, "readout=-1"),
    "a seed too large": ([ONE], {"seed": 2**70}, "seed=.*63 bits"),
    "no seed": ([ONE], {"seed": None}, "seed=None"),
    "no store's name": ([ONE], {"out": "a.txt"}, "does not end in '.nc'"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_can_be_known_is_known_before_anything_is_thought(what, tiny):
    examples, asked, said = BAD[what]
    method, Counted.asked = Counted(tiny(), Counted.Config()), 0
    with pytest.raises(ValueError, match=said) as error:
        collect(method, TASK, examples, **{"decoding": Decoding(1)} | asked)
    assert Counted.asked == 0
    assert len(str(error.value)) < 300


@pytest.mark.filterwarnings("ignore:.* are unknown to backbone")
def test_labels_of_any_other_kind_come_back(tiny, tmp_path):
    labels = {"a b": True, "é.x": "\ud800", "n": 1.5, "big": 2**62, "numpy": np.float32(2), "answer": "x"}
    examples = [replace(ONE, id=name, labels=labels) for name in ("a", "b")]
    collect(build("cot", tiny()), TASK, examples, decoding=Decoding(1), out=tmp_path / "a.nc")
    found = store.load(tmp_path / "a.nc")
    assert {name: found[f"label_{name}"].values[1].item() if name not in ("é.x", "answer") else
            found[f"label_{name}"].values[1] for name in labels} == labels | {"é.x": "?"}  # fmt: skip


def test_answers_that_cannot_differ_are_said(tiny, tmp_path, capsys):
    examples = TASK.examples("dev", 2)
    for name, asked, said in (
        ("cot", {"draws": 3}, "the 3 draws of every path are the same answer, for decoding is greedy"),
        ("lta-thinker", {"paths": 2}, "the 2 paths of every question are the same thoughts, and so are their answers"),
        ("cot", {"draws": 2, "decoding": Decoding(2, temperature=1.0, top_k=1)}, "the 2 draws"),
    ):
        with pytest.warns(NothingDiffers, match=said):
            found = collect(build(name, tiny()), TASK, examples, **{"decoding": Decoding(2)} | asked)
        assert said in found.attrs["remark"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = collect(build("cot", tiny()), TASK, examples, decoding=SAMPLED, paths=2)
        assert "the 2 paths of every question are the same thoughts, which only what is drawn" in found.attrs["remark"]
        method = build("soft-thinking", tiny(), replace(SoftThinkingConfig.gumbel(), max_thoughts=3))
        assert "paths" not in collect(method, TASK, examples, decoding=Decoding(2), paths=2).attrs["remark"]


def test_the_command_line_says_it_too(tiny_folder, tmp_path, capsys):
    asked = ["collect", "--method", "cot", "--task", "arith", "--backbone", str(tiny_folder()), "--count", "2"]
    out = ["--decoding.max_new_tokens", "2", "--out", str(tmp_path / "a.nc")]
    assert main([*asked, "--draws", "2", *out]) == 0
    told = capsys.readouterr()
    assert "workbench: the 2 draws of every path are the same answer, for decoding is greedy" in told.err
    assert "the 2 draws of every path are the same answer" in told.out
    assert main([*asked, "--decoding.top_p", "0.5", *out]) == 2
    assert "--decoding.top_p changes nothing while decoding is greedy" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.* are unknown to backbone")
def test_the_split_is_the_one_that_the_examples_were_given_as(tiny):
    task, method = load_task("arith"), build("cot", tiny())
    dev, test = task.examples("dev", 2), task.examples("test", 2)
    own = [Example("mine", "one?", (), "1")]
    for examples, split in ((dev, "dev"), (test, "test"), (dev[1:], "dev"), (dev + test, "unknown"), (own, "unknown")):
        assert collect(method, task, examples, decoding=Decoding(1)).attrs["split"] == split
    assert collect(method, replace(task, mark="A:"), dev, decoding=Decoding(1)).attrs["split"] == "dev"
    assert collect(method, task, own, split="mine", decoding=Decoding(1)).attrs["split"] == "mine"


def test_counter_tests_write_as_they_go(tiny, tmp_path, monkeypatch):
    method, examples = build("soft-prompt", tiny()), TASK.examples("dev", 2)
    out = {name: tmp_path / f"{name}.nc" for name in ("unchanged", "dropped", "zeroed")}
    monkeypatch.setattr(method, "answer", Stopped(method, KeyboardInterrupt(), at=2))
    with pytest.raises(KeyboardInterrupt):
        counter(method, TASK, examples, changes=["dropped", "zeroed"], decoding=Decoding(1), out=out)
    assert sorted(os.listdir(tmp_path)) == ["dropped.nc.parts", "unchanged.nc"]
    with pytest.raises(ValueError, match="'dropped' is asked for twice"):
        counter(method, TASK, examples, changes=["dropped", "dropped"], decoding=Decoding(1))
