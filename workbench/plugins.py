"""A user's Python file with tasks and methods of their own, named once: `--plugins my.py`, or `load_plugins("my.py")`.

    class Pause(wb.LatentMethod): ...          # a method: known by its name, as everywhere
    sums = wb.Task("sums", examples, parse, same)               # a task: --task sums
    TASKS = {"mine": lambda source: wb.Task("mine", ...)}       # one that reads what --data says

The file is run when it is named, and again wherever a run that needs it is loaded, resumed or repeated: a run remembers
its path and a checksum of its text, `path@checksum`, and it is said where the text has changed since. So load only runs
whose plugins you would run yourself.
"""

import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from .config import Notice
from .files import digest, placed, quoted, read_text, shown
from .tasks import OWN, TASKS, Task

WHAT = "a Python file with tasks or methods"
PREFIX = "workbench_plugin_"
_loaded: dict[str, str] = {}  # module name -> path@checksum
_home: dict[str, str] = {}  # task -> the module it stands in
_said: set[str] = set()  # sentences about changes, each said once


class PluginChanged(Notice):
    """A plugin is not the one that a run was made with."""


def load_plugins(*sources: str | Path) -> list[ModuleType]:
    """Run these files, unless they have been, and register what they define; a source is a path, or `path@checksum`.

    ValueError, one sentence, for a file that is not there, fails, or defines a name that is taken. Warns
    (`PluginChanged`) where the checksum is another.
    """
    return [_load(str(source)) for source in sources]


def named(value: Any) -> list[str]:
    """The sources that a setting `plugins` names: none, one, or several."""
    return [] if value is None else [value] if isinstance(value, str) else [str(one) for one in value]


def remembered(config: Mapping[str, Any]) -> None:
    """Load the plugins that a run's config.yaml names."""
    load_plugins(*named(config.get("plugins")))


def behind(method: type, task: str) -> list[str]:
    """The plugins, each as `path@checksum`, that a method's class and a task stand in."""
    modules = [*(cls.__module__ for cls in method.__mro__), _home.get(task, "")]
    return list(dict.fromkeys(_loaded[name] for name in modules if name in _loaded))


def loaded() -> list[str]:
    """All plugins of this process, each as `path@checksum`."""
    return list(_loaded.values())


def is_plugin(module: str) -> bool:
    """Whether a module is a plugin, which only `load_plugins` can import."""
    return module in _loaded


def compare(then: Iterable[str], now: Iterable[str]) -> None:
    """Warn of each plugin that is another text now."""
    known = dict(_parted(one) for one in now)
    for path, checksum in (_parted(one) for one in then):
        _say(path, checksum, known.get(path, checksum))


def _load(source: str) -> ModuleType:
    path, pinned = _parted(source)
    text = read_text(path, WHAT)
    checksum = digest([text])[:12]
    _say(path, pinned, checksum)
    name = f"{PREFIX}{digest([path])[:8]}"
    if _loaded.get(name) == f"{path}@{checksum}":
        return sys.modules[name]
    module = _run(path, text, name)
    _register(path, module)
    _loaded[name] = f"{path}@{checksum}"
    return module


def _parted(source: str) -> tuple[str, str]:
    """The absolute path and the checksum, "" where none is given."""
    path, pinned = source, ""
    if not Path(source).expanduser().is_file() and "@" in source:
        path, _, pinned = source.rpartition("@")
    return placed(path), pinned


def _say(path: str, then: str, now: str) -> None:
    if then and now and then != now:
        said = f"plugin {shown(path)} has changed since the run was made (checksum {then} then, {now} now)"
        if said not in _said:
            _said.add(said)
            warnings.warn(PluginChanged(said), stacklevel=4)


def _run(path: str, text: str, name: str) -> ModuleType:
    spec = spec_from_loader(name, None, origin=path)
    assert spec is not None
    module = module_from_spec(spec)
    module.__file__ = path
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's file raises, SystemExit too
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise ValueError(f"plugin {shown(path)}{_line(error, path)}: {_reason(error)}; mend the file") from error
    return module


def _line(error: BaseException, path: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == path:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f", line {lines[-1]}" if lines else ""


def _reason(error: BaseException) -> str:
    said = shown(error.msg if isinstance(error, SyntaxError) else error)
    return (
        said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}" if said else type(error).__name__
    )


def _register(path: str, module: ModuleType) -> None:
    """Its tasks; its methods have registered themselves."""
    own = {value.name: _given(value) for value in vars(module).values() if isinstance(value, Task)}
    making = vars(module).get("TASKS", {})
    if making is not TASKS:
        if not isinstance(making, dict) or not all(isinstance(k, str) and callable(v) for k, v in making.items()):
            raise ValueError(f"plugin {shown(path)}: TASKS must map names to functions of a source")
        own |= making
    for name in own:
        if name in TASKS or _home.get(name, module.__name__) != module.__name__:
            raise ValueError(f"plugin {shown(path)}: a task is called {quoted(name)} already; give yours another name")
    for name in [name for name, home in _home.items() if home == module.__name__]:
        del OWN[name], _home[name]
    OWN.update(own)
    _home.update(dict.fromkeys(own, module.__name__))


def _given(task: Task) -> Callable[[str | None], Task]:
    """The task, which reads nothing."""

    def make(source: str | None) -> Task:
        if source is not None:
            raise ValueError(f"task {task.name!r} reads nothing, and {quoted(source)} is given: leave --data out")
        return task

    return make
