"""What a notebook shows while work goes on elsewhere. No torch here: a run is watched through the files it writes."""

import html
import json
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from IPython.display import DisplayHandle

from .figures import collapse_by_step, loss_curves
from .figures.curves import PROBES

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
    drawn = [loss_curves(begun, window=window)]
    probed = any(column in table for table in begun.values() for column in PROBES)
    return [*drawn, collapse_by_step(begun)] if probed else drawn


class _Page:
    """A text and figures that change in place; in the end they stay as plain figures, which a saved page can show.

    Plain figures cannot be live: JupyterLab's plotly extension draws the first one of an output and ignores updates.
    """

    def __init__(self) -> None:
        self.shown = -1
        self.text: DisplayHandle | None = None
        self.live: list[tuple[DisplayHandle, go.FigureWidget]] = []

    def show(self, tables: Mapping[str, pd.DataFrame]) -> None:
        """Draw what is new."""
        rows = sum(map(len, tables.values()))
        if rows == self.shown:
            return
        self.shown = rows
        self.text = _put(self.text, {"text/html": summary(tables)})
        for place, figure in enumerate(curves(tables)):
            new = figure.to_plotly_json()
            handle, widget = self.live[place] if place < len(self.live) else (None, None)
            if widget is not None and len(widget.to_dict()["data"]) == len(new["data"]):
                with widget.batch_update():
                    widget.update(new)
                continue
            if widget is not None:  # another run has begun
                widget.close()
            widget = go.FigureWidget(figure)
            self.live[place : place + 1] = [(_put(handle, widget._repr_mimebundle_()), widget)]

    def keep(self) -> None:
        """Replace what is live by what can be saved."""
        for handle, widget in self.live:
            _put(handle, go.Figure(widget)._repr_mimebundle_())
            widget.close()


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
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return pd.DataFrame()
    return pd.DataFrame([json.loads(line) for line in text.split("\n")[:-1]])


def _last(table: pd.DataFrame) -> int:
    return int(table["step"].iloc[-1]) if len(table) else -1


def _last_words(folder: Path) -> str:
    """The last line a run printed: what it says when it stops or fails."""
    log = folder / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
