"""What happens to a training while it is at a step: a signal, a second owner, a power cut."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from workbench.training import loop


class PowerCut(Exception):
    pass


@contextmanager
def at_step(number: int, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` before that step is computed, in every training within."""
    whole_step = loop._Run.step

    def step(self, batch, planned):
        if planned.number == number:
            act()
        return whole_step(self, batch, planned)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "step", step)
        yield


@contextmanager
def power_cut(number: int) -> Iterator[None]:
    """The training within ends before that step is computed, with nothing of its own called any more."""

    def cut() -> None:
        raise PowerCut

    with pytest.raises(PowerCut), at_step(number, cut):
        yield
