"""A run started, watched and stopped from a page, which leaves the notebook free."""

import asyncio
import html
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets as tr
import yaml

from .. import runs
from ..analysis.diagnostics import glance
from ..analysis.scores import wilson
from ..figures import style
from .views import Picture, Piece, View, escaped, framed, labelled, pane, said
from .watching import STOPPED, curves, duration, last_step, last_words, rows_of, total_of

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
        self.metrics, self.state, self.step = table, found, max(0, last_step(table))
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
            return rows_of(self.folder)
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
            asked = asked or "stopped after step" in last_words(self.folder)
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
            lines.append(f'<span class="wb-wrong">{escaped(last_words(self.folder))}</span>')
        if len(self.metrics):
            lines.append(self._progress_html())
        if "probe_relative_spread" in self.metrics:
            lines.append(self._verdict_html())
        trouble = [*self.warnings, *([self._trouble] if self._trouble else []), *self._other_settings()]
        return f"<p>{'<br>'.join(lines)}</p>{said(trouble)}"

    def _progress_html(self) -> str:
        """The last step, of how many, how long it took and will take."""
        row, total = self.metrics.iloc[-1], total_of(self.folder)
        words = f"step {self.step}" + (f" of {total}" if total else "") + f", {duration(row['seconds'])}"
        if total and self.state == "running":
            words += f", about {duration(row['seconds'] / self.step * (total - self.step))} to go"
        bar = f'<progress max="{total}" value="{self.step}" style="width:240px"></progress> ' if total else ""
        return f"{bar}{words}, loss {row['loss']:.4f}{self._accuracy()}"

    def _accuracy(self) -> str:
        """The last accuracy on the probe set, how sure it is, and what it was at the first look."""
        if "probe_accuracy" not in self.metrics:
            return ""
        looks = self.metrics.dropna(subset=["probe_accuracy"])
        count = (self._settings().get("training") or {}).get("probe_answers")
        first, last = looks.iloc[0], looks.iloc[-1]
        words = f", {100 * last['probe_accuracy']:.0f} % of the probe set answered rightly at step {last['step']:.0f}"
        if count:
            low, high = wilson(last["probe_accuracy"] * count, count)
            words += f" (95 % interval {100 * low:.0f} to {100 * high:.0f}, n = {count} questions)"
        if len(looks) > 1:
            words += f"; {100 * first['probe_accuracy']:.0f} % at the first look, step {first['step']:.0f}"
        return words

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
