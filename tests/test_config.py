"""Settings: what differs from the defaults, and names to choose from."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from workbench.config import choose, differences, to_yaml


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    name: str = "a"
    sizes: tuple[int, ...] = (1, 2)
    place: Path = Path("here")
    inner: Inner = field(default_factory=Inner)


def test_differences_are_what_was_changed():
    assert differences(Outer()) == {}
    changed = Outer(sizes=(3,), place=Path("there"), inner=Inner(size=2))
    assert differences(changed) == {"sizes": [3], "place": "there", "inner": {"size": 2}}
    assert yaml.safe_load(to_yaml(changed)) == differences(changed)
    assert differences(Outer(name="b")) == {"name": "b"}


def test_choosing_names_the_nearest():
    assert choose("fruit", "pear", {"pear": 1, "plum": 2}) == 1
    with pytest.raises(ValueError, match=r"^unknown fruit 'peer': use one of pear, plum; did you mean 'pear'\?$"):
        choose("fruit", "peer", {"pear": 1, "plum": 2})
    with pytest.raises(ValueError, match=r"^unknown fruit 'x': use one of pear, plum$"):
        choose("fruit", "x", {"plum": 2, "pear": 1})
