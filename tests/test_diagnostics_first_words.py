"""Which words a slot's thoughts say most, and of which questions."""

import numpy as np
import pytest
from stores import synthetic_store

from workbench import store
from workbench.analysis.diagnostics import first_words


@pytest.fixture
def found():
    """Two slots; every third question has no second thought."""
    shape = (4, 1, 2, 2)
    token = np.full(shape, "x", dtype=object)
    token[:, 0, 0, 0] = ["gains", "loses", "gains", "\n"]
    made = synthetic_store(4, steps=2, masked=True).assign(
        lens_id=(store.RANK, np.zeros(shape, int)),
        lens_token=(store.RANK, token),
        lens_probability=(store.RANK, np.tile([0.5, 0.1], (4, 1, 2, 1))),
    )
    return made.assign_coords(label_meaning=("example", ["plus", "minus", "plus", "minus"]))


def test_words_are_counted_slot_by_slot(found):
    table = first_words(found)
    assert list(table.columns) == ["slot", "reads as", "probability", "n"]
    assert table["reads as"].tolist() == ["gains 50%, loses 25%, '\\n' 25%", "x 100%"]
    assert table["n"].tolist() == [4, 2]
    assert table["probability"].tolist() == pytest.approx([0.5, 0.5])


def test_words_are_counted_by_a_label(found):
    table = first_words(found, by="label_meaning", most=1)
    assert table[["slot", "label_meaning", "reads as"]].values.tolist() == [
        [0, "minus", "loses 50%"],
        [0, "plus", "gains 100%"],
        [1, "minus", "x 100%"],
        [1, "plus", "x 100%"],
    ]


def test_a_store_without_read_outs_is_told(found):
    with pytest.raises(ValueError, match=r"collect it with readout=5 \(workbench readout\)"):
        first_words(synthetic_store(4))
    with pytest.raises(ValueError, match=r"no label 'label_none' in this store"):
        first_words(found, by="label_none")
