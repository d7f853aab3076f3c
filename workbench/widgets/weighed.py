"""The standard of evidence in a view: what thoughts do, a sentence a run, and the figure behind each."""

from collections.abc import Mapping
from pathlib import Path

import ipywidgets as ipw
import plotly.graph_objects as go

from ..analysis.evidence import Evidence, Kind, read_evidence
from ..figures import evidence
from ..figures.look import GREEN, GREY, ORANGE, VERMILLION
from .views import Picture, Piece, escaped, framed, pane

Given = Evidence | str | Path
COLOURS: dict[Kind, str] = {
    "content": GREEN, "prompt": ORANGE, "nothing": VERMILLION, "harm": VERMILLION, "undecided": GREY, "none": GREY,
}  # fmt: skip


class Weighed:
    """What `workbench evidence` found of one run, or of several by name (evidence.json, its folder, or what `assess`
    gave); None shows nothing. `remarks`: a sentence about each that cannot be read."""

    def __init__(self, given: Given | Mapping[str, Given] | None) -> None:
        named = {} if given is None else dict(given) if isinstance(given, Mapping) else {"": given}
        self.found: dict[str, Evidence] = {}
        self.remarks: list[str] = []
        for name, one in named.items():
            try:
                self.found[str(name)] = one if isinstance(one, Evidence) else read_evidence(one)
            except (ValueError, OSError) as error:
                self.remarks.append(f"Evidence of {name or 'the run'}: {error}.")

    @property
    def html(self) -> str:
        """A line for each run."""
        lines = [
            f'<tr><td style="white-space:nowrap"><b>{escaped(name)}</b></td><td>'
            f'<b style="color:{COLOURS[one.kind]}">{one.kind}</b> {escaped(one.sentence)}</td></tr>'
            for name, one in self.found.items()
        ]
        return f'<table class="wb-table"><tbody>{"".join(lines)}</tbody></table>' if lines else ""

    @property
    def figures(self) -> dict[str, go.Figure]:
        """The figure of each run."""
        return {name: evidence(one) for name, one in self.found.items()}

    def box(self) -> list[ipw.Widget]:
        """The sentences, and the figures folded away beneath them; nothing where nothing was given."""
        if not self.found:
            return []
        figures = self.figures
        titles = [f"What the sentence rests on{f': {name}' if name else ''}" for name in figures]
        folded = ipw.Accordion([Picture(one) for one in figures.values()], titles=titles)
        folded.selected_index = None
        return [pane(framed(self.html)), folded]

    def pieces(self) -> list[Piece]:
        """The same for a page."""
        return ["<h3>Evidence</h3>", self.html, *self.figures.values()] if self.found else []
