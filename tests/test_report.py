"""A run as one page: the verdict first, what the stores hold after it, offline and small."""

import base64
import gzip
import json
import re

import numpy as np
import pytest
from kept_pages import fetched
from plotly.offline import get_plotlyjs
from stores import synthetic_store

from workbench import store
from workbench.__main__ import main
from workbench.analysis.evidence import write_evidence
from workbench.figures.invented import weighed
from workbench.runs import write_config
from workbench.widgets.report import look, report, verdict
from workbench.widgets.views import escaped

ODD = "<script>alert('1')</script>"


@pytest.fixture
def run(tmp_path):
    """A run's folder: its log, thoughts as they are, another question's, and a store of another task."""
    folder = tmp_path / "two"
    own = synthetic_store(60, accuracy=1.0).assign_attrs(changed="", split="test")
    other = own.assign(correct=own["correct"] & (np.arange(60) < 15)[:, None, None]).assign_attrs(changed="shuffled")
    write_config(folder, {"task": "arith-shift", "method": "lta_thinker", "backbone": "nano"})
    store.save(own, folder / "test.nc")
    store.save(other, folder / "counter" / "shuffled.nc")
    store.save(synthetic_store(8, task="arith", start=500).assign_attrs(split="test"), folder / "known.nc")
    rows = [{"step": k, "seconds": float(k), "loss": 1 / k, "loss_likelihood": 1 / k} for k in range(1, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_page_says_the_verdict_first_and_then_everything(run, capsys):
    assert main(["report", str(run), "--question", f"Does it help {ODD}?"]) == 0
    assert "opens without a network" in capsys.readouterr().out
    text = (run / "report.html").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        *("Accuracies", "Evidence", "Map of the thoughts", "Collapse", "What the thoughts are read as"),
        *("Positive steps", "Training", "Where this comes from"),
    ]
    assert text.index("100.0 % [94.0, 100.0] of 60 questions") < text.index("<h2>")
    assert "What the thoughts say about their question matters: another question&#x27;s cost 75.0 points" in text
    assert "another question&#x27;s thoughts (counter/shuffled)" in text
    assert ODD not in text
    assert "lta_thinker" in text[text.index("Where this comes from") :]


def test_it_is_offline_small_and_holds_plotly_whole(run):
    text = report(run).read_text()
    assert fetched(text) == []
    assert len(text.encode()) < 5_000_000
    packed = re.search(r'id="plotly">([^<]*)<', text)
    assert packed is not None
    assert gzip.decompress(base64.b64decode(packed[1])).decode() == get_plotlyjs()
    assert text.count('<div class="wb-figure"></div>') == 5
    for content in re.findall(r'<script type="application/json">(.*?)</script>', text):
        assert json.loads(content)["data"]


def test_what_is_looked_into_is_the_run_itself(run):
    found = look(run, {})
    assert (found.name, list(found.comparable)) == ("test", ["counter/shuffled"])
    assert set(found.others) == {"known", "counter/shuffled"}
    twin = store.save(synthetic_store(60).assign_attrs(split="test"), run.parent / "test.nc")
    found = look(run, {"test": twin})
    assert (found.name, found.main.attrs["changed"]) == ("test", "")
    assert "test beside" in found.comparable
    (run / "broken.nc").write_text("no store")
    found = look(run, {})
    assert len(found.remarks) == 1
    assert found.remarks[0].startswith("broken.nc is left out")


def test_one_store_alone_says_what_it_does_not_know(tmp_path):
    path = store.save(synthetic_store(30), tmp_path / "one.nc")
    assert "no store here has them swapped" in verdict(look(path, {}))
    text = report(path).read_text()
    assert "No store answers these questions otherwise" in text
    counted = synthetic_store(30).assign_attrs(
        counter=json.dumps({"shuffled": {"lost": 0.0, "low": -0.1, "high": 0.02, "n": 30}})
    )
    path = store.save(counted, tmp_path / "two.nc")
    assert "makes no sure difference: 0.0 points [-10.0, 2.0]" in verdict(look(path, {}))
    bare = store.save(synthetic_store(5, steps=0, reasoning=0), tmp_path / "bare.nc")
    text = report(bare).read_text()
    assert "There are no thoughts in this store." in text


def test_what_was_measured_of_the_run_is_said_first(run):
    before = len(re.findall("wb-figure", report(run).read_text()))
    write_evidence(weighed(), run / "evidence")
    text = report(run).read_text()
    assert text.index(escaped(weighed().sentence)) < text.index("<h2>")
    assert len(re.findall("wb-figure", text)) == before + 1


def test_a_mistake_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"no run or store at"):
        report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no store in .*empty: collect one first \(.*collect --run"):
        report(tmp_path / "empty")
    path = store.save(synthetic_store(5), tmp_path / "one.nc")
    with pytest.raises(ValueError, match=r"does not end in '\.html'"):
        report(path, tmp_path / "page.pdf")
