"""A read-out that is added to a store later is the one it would have had."""

import re

import numpy as np
import pytest

from workbench.__main__ import main
from workbench.backbone import Decoding
from workbench.evidence.collect import collect
from workbench.evidence.readouts import read_out, reader
from workbench.methods import build
from workbench.methods.soft_thinking import SoftThinkingConfig
from workbench.runs import save_weights
from workbench.store import load, save
from workbench.tasks import load_task

READ = ("lens_id", "lens_token", "near_id", "near_token")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A method, the folder of its weights, and the questions."""
    method = build("lta-thinker", tiny("llama"), seed=1)
    method.training_step = 7
    folder = tmp_path_factory.mktemp("run")
    save_weights(method, folder)
    task = load_task("arith-shift")
    return method, folder, task, task.examples("dev", 6)


def collected(run, readout=0):
    method, _, task, questions = run
    return collect(method, task, questions, decoding=Decoding(max_new_tokens=2), readout=readout)


def test_the_command_adds_what_collecting_would_have_kept(run, tmp_path, capsys):
    path = save(collected(run), tmp_path / "a.nc")
    assert main(["readout", str(path), "--run", str(run[1]), "--words", "3"]) == 0
    assert "3 words of each of 24 thoughts" in capsys.readouterr().out
    found, asked = load(path), collected(run, readout=3)
    for name in READ:
        assert found[name].dims == asked[name].dims
        np.testing.assert_array_equal(found[name].values, asked[name].values)
    np.testing.assert_allclose(found["lens_probability"].values, asked["lens_probability"].values, atol=1e-3)  # float16
    for name in ("thought", "text", "correct"):
        np.testing.assert_array_equal(found[name].values, load(save(collected(run), tmp_path / "b.nc"))[name].values)


def test_another_number_of_words_replaces_the_first(run):
    method, found = run[0], collected(run, readout=4)
    again = read_out(found, method, 2)
    np.testing.assert_array_equal(again["near_id"].values, found["near_id"].values[..., :2])
    assert again.sizes["rank"] == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"method": "softcot"}, "the store is of method 'softcot' and this is of 'lta-thinker'"),
        ({"config": "thoughts: 2\n"}, "the store is of config {'thoughts': 2} and this is of {}"),
        ({"training_step": 3}, "the store is of training step 3 and this is of 7"),
    ],
)
def test_another_method_is_refused(run, change, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read_out(collected(run).assign_attrs(change), run[0], 2)


def test_another_backbone_is_refused_and_the_file_stays(run, tiny, tmp_path, capsys):
    found = collected(run)
    other = build("lta-thinker", tiny("gpt2"), seed=1)
    other.training_step = 7
    with pytest.raises(ValueError, match=r"word embeddings of '.*' are not those kept in the store"):
        read_out(found, other, 2)
    path = save(found.assign_attrs(training_step=3), tmp_path / "a.nc")
    before = path.read_bytes()
    assert main(["readout", str(path), "--run", str(run[1])]) == 2
    assert "training step 3" in capsys.readouterr().err
    assert main(["readout", str(path)]) == 2
    assert "give the folder of its run too (--run)" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_method_without_training_is_made_from_the_store(run, tiny):
    method = build("soft-thinking", tiny(), SoftThinkingConfig(cold_stop_entropy=99.0, cold_stop_steps=2))
    found = collect(method, run[2], run[3], decoding=Decoding(max_new_tokens=4), readout=2)
    again = read_out(found, reader(found), 2)
    np.testing.assert_array_equal(again["lens_id"].values, found["lens_id"].values)
