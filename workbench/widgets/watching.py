"""What a notebook shows while training goes on elsewhere: `watch` draws a run through the files it writes, until it
ends, and keeps the cell busy so long.
"""

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
from IPython.display import DisplayHandle

from .. import runs
from ..figures import collapse_by_step, loss_curves
from ..figures.curves import PROBES
from .views import Picture

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
            tables = {name: rows_of(place) for name, place in folders.items()}  # after `ended`: nothing is missed
            page.show(tables, folders)
            if ended or (until is not None and all(last_step(table) >= until for table in tables.values())):
                break
            time.sleep(max(every, time.monotonic() - started))  # long runs take long to draw; half the time is theirs
    except KeyboardInterrupt:
        for one in processes:
            one.send_signal(signal.SIGINT)  # does nothing where it has ended
        for one in processes:
            one.wait()
        page.show({name: rows_of(place) for name, place in folders.items()}, folders)
        said = [last_words(place) for place in folders.values()] if processes else ["stopped watching"]
        raise KeyboardInterrupt("; ".join(said)) from None
    finally:
        page.keep()
    for one, place in zip(processes, folders.values(), strict=False):
        if one.poll() and one.returncode not in STOPPED:
            raise RuntimeError(f"training in {place} ended with exit code {one.returncode}: {last_words(place)}")


def summary(tables: Mapping[str, pd.DataFrame], totals: Mapping[str, int | None] | None = None) -> str:
    """Where each run is, as HTML: last step, of how many, seconds, loss, and what it warned of."""
    lines = []
    for name, table in tables.items():
        title = f"<b>{html.escape(name)}</b>: " if name else ""
        if table.empty:
            lines.append(f"{title}starting …")
            continue
        row = table.iloc[-1]
        total = (totals or {}).get(name)
        of = f" of {total}" if total else ""
        lines.append(f"{title}step {row['step']:.0f}{of}, {row['seconds']:.0f} s, loss {row['loss']:.4f}")
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

    def show(self, tables: Mapping[str, pd.DataFrame], folders: Mapping[str, Path]) -> None:
        """Draw what is new."""
        rows = sum(map(len, tables.values()))
        if rows == self.shown:
            return
        self.shown = rows
        self.text = _put(
            self.text, {"text/html": summary(tables, {name: total_of(place) for name, place in folders.items()})}
        )
        for place, figure in enumerate(curves(tables)):
            if place == len(self.live):
                picture = Picture(brings=not place)  # the kernel is busy with this very cell
                content: Any = ipw.DOMWidget._repr_mimebundle_(picture)
                content.pop("text/plain")
                self.live.append((_put(None, content), picture))
            self.live[place][1].show(figure)

    def keep(self) -> None:
        """Replace what is live by what can be saved."""
        for handle, picture in self.live:
            _put(handle, go.Figure(picture.figure)._repr_mimebundle_())
            picture.brought = b""  # a notebook executed without a page is saved with what closed widgets had
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


def rows_of(folder: Path) -> pd.DataFrame:
    """The rows of metrics.jsonl that are whole; the last line may still be being written."""
    if not (folder / "metrics.jsonl").exists():
        return pd.DataFrame()
    return runs.read_metrics(folder, ("seconds", "loss"))


def last_step(table: pd.DataFrame) -> int:
    return int(table["step"].iloc[-1]) if len(table) else -1


def last_words(folder: Path) -> str:
    """The last line a run printed: what it says when it stops or fails."""
    log = folder / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"


def total_of(folder: Path) -> int | None:
    """How many steps a run has, as it says itself when it begins."""
    log = folder / "log.txt"
    found = (
        re.search(r"parameters, (\d{1,15}) steps", log.read_text(encoding="utf-8", errors="replace"))
        if log.exists()
        else None
    )
    return int(found[1]) if found else None


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
