"""What a notebook shows while training goes on elsewhere: a run is watched through the files it writes.

`watch` draws until a run ends and keeps the cell busy so long. `TrainingMonitor` starts, shows and stops one from a
page, and leaves the notebook free.
"""

import asyncio
import html
import re
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

import ipywidgets as ipw
import pandas as pd
import plotly.graph_objects as go
import traitlets as tr
import yaml
from IPython.display import DisplayHandle

from .. import runs
from ..analysis.diagnostics import glance
from ..figures import collapse_by_step, loss_curves, style
from ..figures.curves import PROBES
from .views import Picture, Piece, View, escaped, framed, labelled, pane, said

STOPPED = (130, -signal.SIGINT)  # exit codes of a run that was asked to stop, after and before its first step
POINTS = 20  # a line's points at least: what is more is averaged, since batches differ in length and so in loss


def watch(
    folder: str | Path | Mapping[str, str | Path],
    process: Popen[bytes] | Iterable[Popen[bytes]] = (),
    *,
    until: int | None = None,
    every: float = 1.0,
) -> None:
    """Draw the curves of a run, or of several (name -> folder), in place while they train; return when all have ended.

    process: what `runs.start_training` returned, one or several. The notebook's stop button (■) makes them save and
    end; a process that fails raises RuntimeError with its last words. Without processes the runs are somebody else's:
    watching ends when each has a result.json, and ■ ends the watching only.
    until: leave once every run has logged this step, and let them train on. every: seconds between looks at least.
    """
    folders = {str(name): Path(place) for name, place in _named(folder).items()}
    processes = [process] if isinstance(process, Popen) else list(process)
    if processes and len(processes) != len(folders):
        raise ValueError(f"{len(processes)} processes for {len(folders)} folders: give one for each folder, or none")
    page = _Page()
    try:
        while True:
            if processes:
                ended = all(one.poll() is not None for one in processes)
            else:
                ended = all((place / "result.json").exists() for place in folders.values())
            started = time.monotonic()
            tables = {name: _rows(place) for name, place in folders.items()}  # after `ended`: nothing is missed
            page.show(tables)
            if ended or (until is not None and all(_last(table) >= until for table in tables.values())):
                break
            time.sleep(max(every, time.monotonic() - started))  # long runs take long to draw; half the time is theirs
    except KeyboardInterrupt:
        for one in processes:
            one.send_signal(signal.SIGINT)  # does nothing where it has ended
        for one in processes:
            one.wait()
        page.show({name: _rows(place) for name, place in folders.items()})
        said = [_last_words(place) for place in folders.values()] if processes else ["stopped watching"]
        raise KeyboardInterrupt("; ".join(said)) from None
    finally:
        page.keep()
    for one, place in zip(processes, folders.values(), strict=False):
        if one.poll() and one.returncode not in STOPPED:
            raise RuntimeError(f"training in {place} ended with exit code {one.returncode}: {_last_words(place)}")


def summary(tables: Mapping[str, pd.DataFrame]) -> str:
    """Where each run is, as HTML: last step, seconds, loss, and what it warned of."""
    lines = []
    for name, table in tables.items():
        title = f"<b>{html.escape(name)}</b>: " if name else ""
        if table.empty:
            lines.append(f"{title}starting …")
            continue
        row = table.iloc[-1]
        lines.append(f"{title}step {row['step']:.0f}, {row['seconds']:.0f} s, loss {row['loss']:.4f}")
        said = table["warnings"].dropna() if "warnings" in table else []
        for sentence in dict.fromkeys(sentence for sentences in said for sentence in sentences):
            lines.append(f'<span style="color: #B04A00">⚠ {title}{html.escape(sentence)}</span>')
    return "<br>".join(lines)


def curves(tables: Mapping[str, pd.DataFrame]) -> list[go.Figure]:
    """Loss parts, and the thoughts of the probe set, of the runs that have logged something."""
    begun: Any = {name: table for name, table in tables.items() if len(table)}
    if not begun:
        return []
    window = max(1, max(map(len, begun.values())) // POINTS)
    # only whole windows: a last one of few batches would jump where these are short or long
    whole = {name: table.iloc[: len(table) - len(table) % window or None] for name, table in begun.items()}
    drawn = [loss_curves(whole, window=window)]
    probed = any(column in table for table in begun.values() for column in PROBES)
    return [*drawn, collapse_by_step(begun)] if probed else drawn


class _Page:
    """A text and figures that change in place; in the end they stay as plain figures, which a saved page can show.

    Plain figures cannot be live: JupyterLab's plotly extension draws the first one of an output and ignores updates.
    """

    def __init__(self) -> None:
        self.shown = -1
        self.text: DisplayHandle | None = None
        self.live: list[tuple[DisplayHandle, Picture]] = []

    def show(self, tables: Mapping[str, pd.DataFrame]) -> None:
        """Draw what is new."""
        rows = sum(map(len, tables.values()))
        if rows == self.shown:
            return
        self.shown = rows
        self.text = _put(self.text, {"text/html": summary(tables)})
        for place, figure in enumerate(curves(tables)):
            if place == len(self.live):
                picture = Picture()
                content = ipw.DOMWidget._repr_mimebundle_(picture)
                content.pop("text/plain")
                self.live.append((_put(None, content), picture))
            self.live[place][1].show(figure)

    def keep(self) -> None:
        """Replace what is live by what can be saved."""
        for handle, picture in self.live:
            _put(handle, go.Figure(picture.figure)._repr_mimebundle_())
            picture.close()


def _put(handle: DisplayHandle | None, content: dict[str, Any]) -> DisplayHandle:
    """Show mime data, in the place of what `handle` showed before. (Displayed as objects, figures pass by handles.)"""
    if handle is None:
        handle = DisplayHandle()
        handle.display(content, raw=True)
    else:
        handle.update(content, raw=True)
    return handle


def _named(folder: str | Path | Mapping[str, str | Path]) -> Mapping[str, str | Path]:
    return folder if isinstance(folder, Mapping) else {"": folder}


def _rows(folder: Path) -> pd.DataFrame:
    """The rows of metrics.jsonl that are whole; the last line may still be being written."""
    if not (folder / "metrics.jsonl").exists():
        return pd.DataFrame()
    return runs.read_metrics(folder, ("seconds", "loss"))


def _last(table: pd.DataFrame) -> int:
    return int(table["step"].iloc[-1]) if len(table) else -1


def _last_words(folder: Path) -> str:
    """The last line a run printed: what it says when it stops or fails."""
    log = folder / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"


# ------------------------------------------------------------------------------------------------- start, watch, stop

STATES = {  # of a run -> what is said of it
    "nothing": "no run",
    "ready": "not started yet",
    "running": "training",
    "stopping": "stopping after this step …",
    "stopped": "stopped, its last checkpoint is kept",
    "finished": "finished",
    "failed": "failed",
    "elsewhere": "watched only: it was started on another machine or by other means, and can be stopped only there",
}
GOES_ON = ("running", "stopping", "elsewhere")


class TrainingMonitor(View):
    """Start, watch and stop one run from a notebook: its curves, how spread out its thoughts are, what it warns of.

        wb.widgets.TrainingMonitor("data/runs/one", {"task": "arith-shift", "training": {"epochs": 2}})

    The run is a process of its own (`runs.start_training`): it outlives the widget and the kernel, and the same call
    finds it again in its folder. Stopping lets it finish its step and save, and it can go on from there.
    config: settings as in `workbench train --config`; not needed where the folder holds a run. Accuracy is drawn for
    runs that answer while they train: {"training": {"probe_answers": 32}}. every: seconds between looks at its files.
    """

    title = "Training"

    state = tr.Enum(tuple(STATES), "nothing")
    step = tr.Int(0)
    warnings = tr.Tuple()
    every = tr.Float(1.0)

    def __init__(self, folder: str | Path, config: Mapping[str, Any] | None = None, *, threads: int = 1) -> None:
        super().__init__()
        self.folder, self.config, self.threads = Path(folder), dict(config or {}), threads
        self.metrics = pd.DataFrame()
        self.process: Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        self._go = ipw.Button(description="Start", icon="play", layout={"width": "110px"})
        self._end = ipw.Button(description="Stop", icon="stop", layout={"width": "110px"})
        self._status, self._about = pane(), pane()
        self._pictures = (Picture(), Picture())
        self._go.on_click(lambda _: self.start())
        self._end.on_click(lambda _: self.stop())
        self.box.children = (labelled(self._go, self._end), self._status, *self._pictures, self._about)
        self.look()
        self._follow()

    def start(self) -> None:
        """Start the run, or go on with one that was stopped; nothing where it is running or finished."""
        if self.state not in ("ready", "stopped", "failed"):
            return
        begun = runs.begun(self.folder)
        self._trouble = ""
        try:
            again = None if begun else self.config or runs.read_config(self.folder)
            self.process = runs.start_training(self.folder, again, threads=self.threads)
        except (ValueError, OSError) as error:
            self._trouble = str(error)
        self.look()
        self._follow()

    def stop(self) -> None:
        """Ask the run to finish its step, save and end; nothing where it is not running."""
        if self.state == "running" and runs.stop_training(self.folder):
            self.state = "stopping"
        self.look()

    def look(self) -> None:
        """Read the run's files and draw what is new. In a notebook this happens by itself while the run goes on."""
        found = self._found()  # before the rows are read: so none is missed
        table = self._rows()
        new = len(table) != len(self.metrics)
        self.metrics, self.state, self.step = table, found, max(0, _last(table))
        if "warnings" in table:
            sentences = [sentence for row in table["warnings"].dropna() for sentence in row]
            self.warnings = tuple(dict.fromkeys(sentences))
        if new:
            drawn = curves({"": table})
            for place, picture in enumerate(self._pictures):
                picture.show(drawn[place] if place < len(drawn) else None)
        self._go.description = "Go on" if found in ("stopped", "failed") and len(table) else "Start"
        self._go.disabled, self._end.disabled = found not in ("ready", "stopped", "failed"), found != "running"
        self._status.value, self._about.value = framed(self._status_html()), framed(self._about_html())

    def close(self) -> None:
        """Take the widget from the page; the run goes on."""
        if self._task is not None:
            self._task.cancel()
        super().close()

    def pieces(self) -> list[Piece]:
        self.look()
        return [self._status_html(), *curves({"": self.metrics}), self._about_html()]

    def _rows(self) -> pd.DataFrame:
        """What the run has logged; what was seen last, and a sentence, where its file is damaged."""
        try:
            return _rows(self.folder)
        except (ValueError, OSError) as error:
            self._trouble = str(error)
            return self.metrics

    def _found(self) -> str:
        """The state that the folder is in."""
        ended = self.process.poll() if self.process is not None else None
        if (self.process is not None and ended is None) or runs.running(self.folder) is not None:
            return "stopping" if self.state == "stopping" else "running"
        if (self.folder / "result.json").exists():
            return "finished"
        if (self.folder / "process.json").exists() and not runs.elsewhere(self.folder):
            asked = ended in STOPPED or runs.ended(self.folder) == "stopped"
            asked = asked or "stopped after step" in _last_words(self.folder)
            return "stopped" if asked else "failed"
        if (self.folder / "metrics.jsonl").exists():
            return "elsewhere"
        return "ready" if self.config else "nothing"

    def _follow(self) -> None:
        """Look again and again while the run goes on, beside whatever the kernel does."""
        if self.state not in GOES_ON or (self._task is not None and not self._task.done()):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a plain program has no loop: it calls `look` itself
            return
        self._task = loop.create_task(self._watch())

    async def _watch(self) -> None:
        while self.state in GOES_ON:
            started = time.monotonic()
            self.look()
            await asyncio.sleep(max(self.every, time.monotonic() - started))

    # ------------------------------------------------------------------------------------------------------ its words

    def _status_html(self) -> str:
        lines = [f"<b>{escaped(self.folder)}</b>: {STATES[self.state]}"]
        if self.state == "nothing":
            lines.append("Give settings to start one: TrainingMonitor(folder, {'task': 'arith-shift'}).")
        if self.state == "failed":
            lines.append(f'<span class="wb-wrong">{escaped(_last_words(self.folder))}</span>')
        if len(self.metrics):
            lines.append(self._progress_html())
        if "probe_relative_spread" in self.metrics:
            lines.append(self._verdict_html())
        trouble = [*self.warnings, *([self._trouble] if self._trouble else []), *self._other_settings()]
        return f"<p>{'<br>'.join(lines)}</p>{said(trouble)}"

    def _progress_html(self) -> str:
        """The last step, of how many, how long it took and will take."""
        row, total = self.metrics.iloc[-1], _total(self.folder)
        words = f"step {self.step}" + (f" of {total}" if total else "") + f", {_duration(row['seconds'])}"
        if total and self.state == "running":
            words += f", about {_duration(row['seconds'] / self.step * (total - self.step))} to go"
        bar = f'<progress max="{total}" value="{self.step}" style="width:240px"></progress> ' if total else ""
        return f"{bar}{words}, loss {row['loss']:.4f}{self._accuracy()}"

    def _accuracy(self) -> str:
        """The last accuracy on the probe set, where the run answers its questions."""
        if "probe_accuracy" not in self.metrics:
            return ""
        seen = self.metrics.dropna(subset=["probe_accuracy"]).iloc[-1]
        return f", {100 * seen['probe_accuracy']:.0f} % of the probe set answered rightly at step {seen['step']:.0f}"

    def _verdict_html(self) -> str:
        """What the last look at the probe set's thoughts says of collapse."""
        probed = self.metrics.dropna(subset=["probe_relative_spread"]).iloc[-1]
        names = ("relative_spread", "slot_cosine")
        values = {name: float(probed[f"probe_{name}"]) for name in names if f"probe_{name}" in probed}
        verdict = glance(values, backbone=str(self._settings().get("backbone", "nano")))
        mark = "✓" if verdict.state == "healthy" else "⚠"
        words = f"{mark} thoughts at step {probed['step']:.0f}: {verdict.state} ({'; '.join(verdict.evidence)})"
        early = " Untrained thoughts always are." if verdict.state != "healthy" and probed["step"] <= 1 else ""
        return f'<span style="color:{style(verdict.state).color}">{escaped(words)}</span>{early}'

    def _settings(self) -> dict[str, Any]:
        """Those of the run in the folder, or those it would be started with."""
        try:
            return runs.read_config(self.folder)
        except ValueError:
            return self.config or {}

    def _about_html(self) -> str:
        text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True) if (known := self._settings()) else ""
        return f"<details><summary>settings</summary><pre>{html.escape(text)}</pre></details>" if text else ""

    def _other_settings(self) -> list[str]:
        """A sentence where the folder holds a run of other settings than were given."""
        try:
            kept = runs.read_config(self.folder)
        except ValueError:
            return []
        other = [name for name, value in self.config.items() if name != "preset" and not _within(value, kept.get(name))]
        if not other:
            return []
        return [f"This folder holds a run with another {' and '.join(other)}: give another folder to train with these."]


def _within(given: Any, kept: Any) -> bool:
    """Whether settings agree with those kept, which leave out what is as by default."""
    if isinstance(given, Mapping):
        return all(_within(value, (kept or {}).get(name, value)) for name, value in given.items())
    return kept in (given, None)


def _total(folder: Path) -> int | None:
    """How many steps a run has, as it says itself when it begins."""
    log = folder / "log.txt"
    found = (
        re.search(r"parameters, (\d{1,15}) steps", log.read_text(encoding="utf-8", errors="replace"))
        if log.exists()
        else None
    )
    return int(found[1]) if found else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
