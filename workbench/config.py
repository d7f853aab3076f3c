"""Choices by name and settings as the differences from their defaults."""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from .files import MOST, quoted

T = TypeVar("T")
SEEDS = (0, 2**32 - 1)  # what every generator of random numbers takes


class Notice(UserWarning):
    """A warning that is one sentence for the reader: the command line says it as one."""


def choose(kind: str, name: str, known: Mapping[str, T], advice: str = "") -> T:
    """`known[name]`, or one sentence that lists the known names and the nearest one, with further `advice`."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name)[:MOST], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    more = f"; {advice}" if advice else ""
    raise ValueError(f"unknown {kind} {quoted(name)}: use one of {', '.join(sorted(known))}{more}{hint}")


def bounded(config: Any, **bounds: tuple[float, float]) -> None:
    """Raise one sentence about the first field outside its [low, high]; None is a value of its own and passes."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} is {quoted(value)}; give a number from {low:g} to {high:g}")


def allowed(config: Any) -> None:
    """Raise one sentence about the first field whose type lists its values (`Literal`) and that has another one."""
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            choose(name, str(getattr(config, name)), dict.fromkeys(map(str, get_args(kind))))


def configured(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass with these fields, plain values as a file holds them; ValueError for unknown or mistyped ones."""
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        raise ValueError(f"unknown option {quoted(unknown)}: there are {', '.join(known) or 'none'}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        return kind(**parser.instantiate(parser.parse_object(dict(values))).as_dict())
    except (ArgumentError, TypeError, OverflowError, RecursionError) as error:
        said = " ".join(str(error).split()).replace("Parser key ", "option ")
        raise ValueError(f"options that {kind.__name__} cannot have ({quoted(said)[1:-1]})") from error


def differences(config: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, nested dataclasses likewise; plain values only."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if is_dataclass(value):
            inner = differences(value)
            if inner:
                found[field.name] = inner
        elif value != default:
            found[field.name] = (
                list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            )
    return found


def to_yaml(config: Any) -> str:
    """A dataclass as YAML, differences only."""
    return yaml.safe_dump(differences(config), sort_keys=False, allow_unicode=True)
