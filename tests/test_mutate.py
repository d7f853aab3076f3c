"""The list of planted faults fits the code: each edit is possible, and in one place."""

import pytest
from mutate import FAULTS, ROOT, Fault, noticed


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_a_fault_can_be_planted(fault):
    assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.right) == 1
    assert fault.right != fault.wrong
    assert all((ROOT / name).is_file() for name in fault.tests.split())


@pytest.mark.parametrize(("wrong", "found"), [("a - b", True), ("b + a", False)])
def test_a_fault_is_noticed_by_a_test_that_fails(tmp_path, wrong, found):
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_code.py").write_text("from sums import add\n\n\ndef test_add():\n    assert add(2, 1) == 3\n")
    fault = Fault("a sum is none", "sums.py", "a + b", wrong, "test_code.py")
    assert noticed(fault, tmp_path) is found
    assert "a + b" in (tmp_path / "sums.py").read_text()
