"""The standard of evidence from a run to its picture: the command, a real model, controls, figure and widgets."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pytest
import torch
from stores import synthetic_store
from test_evidence import rows
from torch.nn.utils.rnn import pad_sequence

from workbench.__main__ import main
from workbench.analysis.evidence import CONTROL, TABLES, read_evidence, table, write_evidence
from workbench.backbone import Backbone, Decoding
from workbench.evidence.standard import assess, planned
from workbench.experiments import grid
from workbench.experiments.controls import arms, with_controls
from workbench.experiments.grid import run_cell
from workbench.figures import evidence
from workbench.figures.evidence import ANSWERS, READERS, SAVED, SWAPS
from workbench.figures.invented import weighed
from workbench.methods import METHODS, LatentMethod, Thoughts, build
from workbench.runs import load_method
from workbench.tasks import load_task
from workbench.training.loop import TrainConfig, train
from workbench.widgets import Collapse, Compare

pytestmark = pytest.mark.filterwarnings("ignore:no Chromium:UserWarning")
TINY = TrainConfig(examples=16, epochs=1, batch_size=8, probe_examples=4, snapshot_every=1)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A soft prompt trained for two steps, which keeps a snapshot of each."""
    task = load_task("arith")
    return train(build("soft-prompt", tiny()), task, TINY, tmp_path_factory.mktemp("run") / "soft")


def command(*words: object) -> int:
    return main(["evidence", *map(str, words)])


# --------------------------------------------------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_writes_what_it_found_and_draws_it(run, tmp_path, capsys):
    words = ("--run", run, "--split", "dev", "--count", 6, "--looked", 2, "--slots", 1, "--decoding.max_new_tokens", 6)
    assert command(*words, "--along", "true", "--out", tmp_path) == 0
    said = capsys.readouterr().out
    found: Any = read_evidence(tmp_path)
    assert found.sentence in said
    assert " minutes" in said
    assert {path.name for path in tmp_path.iterdir()} >= {"evidence.json", "evidence_figure.json"}
    assert (found.about["method"], found.about["task"], found.about["split"]) == ("soft-prompt", "arith", "dev")
    assert found.about["commit"]
    assert set(found.swaps["step"]) == {"", "0", "1", "2"}
    other = rows(found.effects, source="other")
    assert {row["measure"] for row in other} == {"free", "forced", "at once", "chain", "answer"}
    assert all(abs(row["difference"]) < 1e-6 for row in other)  # a soft prompt says the same about every question
    assert any(abs(row["difference"]) > 1e-6 for row in rows(found.effects, source="random"))


def test_it_goes_to_the_run_unless_told_and_a_dry_run_does_nothing(run, capsys):
    assert command("--run", run, "--count", 7, "--dry-run", "true") == 0
    assert capsys.readouterr().out == (
        "7 questions, thoughts in up to 4 slots: 5 free and 16 forced answers to each, and 40 likelihoods\n"
    )
    assert not (run / "evidence").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--method", "cot"], "a method without a run has no folder of its own: give --out, or --run"),
        (["--method", "cot", "--along", "true", "--out", "x"], "go on from a run's snapshots and settings: give --run"),
        (["--count", "2"], "2 questions: swapping thoughts needs at least three, give more examples"),
        (["--task", "arith", "--controls", "true"], "leave --task or --controls out"),
    ],
)
def test_what_cannot_be_is_said(run, tmp_path, capsys, words, complaint):
    given = words if "--method" in words else [*words, "--run", run, "--out", tmp_path]
    assert command(*given) == 2
    assert complaint in capsys.readouterr().err


def test_what_is_planned_is_what_is_done(tiny):
    task = load_task("arith")
    method = build("soft-prompt", tiny())
    found = assess(method, task, task.examples("dev", 4), decoding=Decoding(4), looked=2, slots=2)
    told = planned(method, task, task.examples("dev", 4), 2)
    counts = {name: len(rows(found.values, measure=name)) for name in ("free", "forced")}
    costs = len(found.values) - sum(counts.values())
    assert f"{counts['free']} free and {counts['forced']} forced answers to each, and {costs} likelihoods" in told
    assert planned(build("cot", tiny()), task, task.examples("dev", 4)).endswith("answers free and forced")


# -------------------------------------------------------------------------------------------------------- a real model


@pytest.mark.slow
def test_a_model_that_is_given_its_chain_as_thoughts_follows_that_of_another_question():
    """The shipped model behind the embeddings of the gold steps: they leak the answer, and nothing here is planted but
    them."""
    known = dict(METHODS)

    class Leak(LatentMethod):
        name = "leak"
        trained = False

        @dataclass(frozen=True)
        class Config:
            pass

        def render(self, example, task):
            prompt = super().render(example, task)  # the thoughts stand where the reply begins
            return replace(prompt, before=torch.cat([prompt.before, prompt.after]), after=prompt.after[:0])

        def think(self, prompts, *, paths=1):
            rows = [self.backbone.embed(torch.cat(p.steps)) for p in prompts]
            mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
            return Thoughts(pad_sequence(rows, batch_first=True)[:, None], mask[:, None])

    task = load_task("arith-shift")
    found = assess(build("leak", Backbone.load("nano")), task, task.examples("test", 60), slots=0, looked=2)
    METHODS.clear()
    METHODS.update(known)
    assert found.kind == "content"
    assert found.sentence.startswith("The thoughts carry the answer about their question")
    (whole,) = rows(found.swaps, slot="all", how="forced")
    assert whole["follows"] > 0.9
    forced = {row["source"]: row["value"] for row in rows(found.values, measure="forced")}
    assert forced["own"] > 0.9
    assert max(forced["none"], forced["random"], forced["other"]) < 0.3
    assert forced["nearest"] == forced["own"]  # they are tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coconut", "latent-sft", "lt-tuning", "soft-thinking", "softcot", "ltm", "direct"])
def test_every_kind_of_method_is_measured_or_it_is_said_why_not(name, tiny, tiny_folder):
    """Methods that train the model, think in mixtures, within answers, or bring a model of their own."""
    options = {"softcot": {"assistant": str(tiny_folder())}, "soft-thinking": {"max_thoughts": 3}}
    options["latent-sft"] = {"max_latents": 3}
    method = build(name, tiny(), METHODS[name].Config(**options.get(name, {})))
    task = load_task("arith")
    found = assess(method, task, task.examples("dev", 4), decoding=Decoding(6), looked=2, slots=1)
    measured = {(row["source"], row["measure"]) for row in found.values.to_dict("records")}
    assert {("own", "free"), ("own", "forced")} <= measured
    notes = " ".join(found.notes)
    if name in ("lt-tuning", "direct"):
        assert (found.kind, len(found.effects)) == ("none", 0)
        return
    assert found.kind == "undecided"  # of four questions
    assert ("untrained" in {source for source, _ in measured}) == method.trained
    assert ("filler" in {source for source, _ in measured}) == (name != "ltm")
    assert (("own", "chain") in measured) == ("the gold chain has no cost" not in notes)
    assert len(found.attention) or "attention" in notes
    for one in found.tables().values():
        assert not one.isna().to_numpy().any()


# ------------------------------------------------------------------------------------------------------------- controls


def test_controls_are_what_fits_the_method(tiny):
    assert list(arms(build("lta-thinker", tiny()), 4)) == ["soft prompt"]
    assert arms(build("lta-thinker", tiny()), 4)["soft prompt"] == ("soft-prompt", {"thoughts": 4})
    trained = arms(build("coconut", tiny()), 3)
    assert list(trained) == ["soft prompt", "plain, chain", "plain, answer", "filler tokens"]
    for name, options in trained.values():
        METHODS[name].Config(**options)  # is one
    fillers = build("coconut", tiny(), METHODS["coconut"].Config(**trained["filler tokens"][1]))
    task = load_task("arith")
    prompts = [fillers.render(example, task) for example in task.examples("dev", 2)]
    vectors = fillers.think(prompts).vectors
    assert vectors.shape[2] == 3
    assert torch.equal(vectors, vectors[:1, :, :1].expand_as(vectors))  # the same token everywhere
    assert list(arms(build("lt-tuning", tiny()), 0)) == ["plain, chain", "plain, answer"]


def test_controls_are_trained_once_with_the_runs_settings_and_compared_by_question(tiny, tmp_path, monkeypatch):
    def here(setting, cells, folders, console):
        for cell in cells:
            run_cell(setting, cell, folders[cell.name])

    monkeypatch.setattr(grid, "_run", here)
    task = load_task("arith")
    run = train(build("lta-thinker", tiny()), task, replace(TINY, seed=3), tmp_path / "run")
    empty = weighed()
    found = with_controls(empty, run, load_method(run), tmp_path / "controls", "dev", 4, 4)
    (control,) = set(found.values["source"]) - set(empty.values["source"])
    assert control == f"{CONTROL}soft prompt"
    (row,) = rows(found.effects, source=control)
    assert (row["measure"], row["n"]) == ("free", 4)
    folder = tmp_path / "controls" / "cells" / "soft-prompt_seed3"
    written = (folder / "weights.safetensors").stat().st_mtime_ns
    again = with_controls(empty, run, load_method(run), tmp_path / "controls", "dev", 4, 4)
    assert (folder / "weights.safetensors").stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(again.effects, found.effects)
    figure: Any = evidence(found)
    assert "soft prompt" in {str(label) for trace in figure.data for label, *_ in trace.customdata}


# --------------------------------------------------------------------------------------------------- figure and widgets


def test_the_figure_draws_each_number_in_its_panel():
    found = weighed()
    figure: Any = evidence(found)
    headings = [note.text for note in figure.layout.annotations if note.text]
    assert headings == [ANSWERS, SAVED, SWAPS, READERS]
    free = next(trace for trace in figure.data if trace.name == "free")
    assert list(free.x) == pytest.approx([100 * row["value"] for row in rows(found.values, measure="free")])
    read = next(trace for trace in figure.data if trace.name == "thoughts")
    assert list(read.x) == pytest.approx([100 * row["nats"] / row["entropy"] for row in rows(found.readers)])
    assert found.sentence in figure.layout.title.text.replace("<br>", " ")
    assert "99 % intervals" in figure.layout.title.text
    bare: Any = evidence(replace(found, **{name: table(name, []) for name in ("swaps", "readers", "effects")}))
    assert [note.text for note in bare.layout.annotations if note.text] == [ANSWERS]


def test_nothing_measured_is_nothing_to_draw():
    empty = replace(weighed(), **{name: table(name, []) for name in TABLES})
    with pytest.raises(ValueError, match="nothing was measured"):
        evidence(empty)


@pytest.mark.parametrize("view", [Collapse, Compare])
def test_a_widget_says_what_the_thoughts_do(view, tmp_path):
    found = weighed()
    path = write_evidence(found, tmp_path)
    stores = {"a <b>": synthetic_store(20), "c": synthetic_store(20, seed=1)}
    widget = view(stores, evidence={"a <b>": path, "c": tmp_path / "none.json"})
    assert found.sentence.partition(":")[0] in widget.weighed.html
    assert "a &lt;b&gt;" in widget.weighed.html
    assert any("Evidence of c: no file at" in remark for remark in widget.remarks)
    assert any(found.sentence.partition(":")[0] in piece for piece in widget.pieces() if isinstance(piece, str))
    widget.to_html(tmp_path / "page.html")
    assert "the thoughts carry the answer" in (tmp_path / "page.html").read_text(encoding="utf-8").lower()
    assert view(stores).weighed.box() == []
