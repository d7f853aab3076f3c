"""Every kind of figure once, drawn from invented numbers: what there is, and the call that draws it from real ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go

from ..files import write_text
from . import invented
from .export import Format, save
from .look import Width, add_to_caption

SCREEN_DPI = 144  # a page of pictures, not print


class Entry(NamedTuple):
    """A figure of the gallery: what it shows, the call for real results, and a function that draws it."""

    about: str
    call: str
    draw: Callable[[Width], go.Figure]


def write_gallery(
    folder: str | Path, formats: Sequence[Format] = ("png",), width: Width = "column", *, dpi: int = SCREEN_DPI
) -> list[Path]:
    """Save every figure of the gallery into `folder`/gallery, and a `folder`/README.md that shows them; the paths, that
    last."""
    folder = Path(folder)
    paths = []
    for name, entry in GALLERY.items():
        paths += save(marked(entry.draw(width)), name, folder / "gallery", {"gallery": name}, formats, dpi=dpi)
    write_text(folder / "README.md", page(pictures="png" in formats))
    return [*paths, folder / "README.md"]


def page(*, pictures: bool = True) -> str:
    """The gallery as a Markdown page."""
    lines = ["# Figures", "", *INTRODUCTION]
    for name, entry in GALLERY.items():
        lines += ["", f"## {name.replace('_', ' ')}", "", entry.about, "", "```python", entry.call, "```"]
        if pictures:
            lines += ["", f"![{name.replace('_', ' ')}, invented numbers](gallery/{name}.png)"]
    return "\n".join([*lines, ""])


def marked(figure: go.Figure) -> go.Figure:
    """With a caption that says that the numbers mean nothing."""
    return add_to_caption(figure, "(invented numbers)")


INTRODUCTION = (
    "Every kind of figure once, at the width of a paper's column. The numbers are invented: they show the forms, and",
    "each caption says so. `workbench figures --gallery` writes this page, `notebooks/07_gallery.ipynb` shows the same",
    "figures live, and `workbench figures --from figures/gallery/NAME.json` draws one again in any format.",
    "",
    "In the calls, `stores` is a dictionary name -> store, `snapshots` is training step -> store, and `table` holds",
    'means. Every function takes `width="column"` (85 mm) or `"page"` (175 mm).',
)
GALLERY: Mapping[str, Entry] = {
    "accuracy": Entry(
        "Accuracies with their intervals, a panel per task.",
        "wb.figures.accuracy(wb.accuracy_table(stores))",
        invented.draw_accuracies,
    ),
    "accuracy_by_thoughts": Entry(
        "Accuracy against the number of thoughts; single seeds are faint.",
        'wb.figures.response(table, x="thoughts", color="method", percent=True, points=runs)',
        invented.draw_thoughts,
    ),
    "accuracy_by_samples": Entry(
        "Mean, majority vote and pass@k against the number of answers, with bands.",
        'wb.figures.response(table, x="samples", color="measure", log_x=True, percent=True, band=True)',
        invented.draw_samples,
    ),
    "variance": Entry(
        "Two measures with their own units against the variance of noise.",
        'wb.figures.response(table, x="variance", facet="measure", percent=["accuracy"])',
        invented.draw_variance,
    ),
    "loss_weights": Entry(
        "Accuracy against the weight of a loss, on a logarithmic axis.",
        'wb.figures.response(table, x="weight", log_x=True, percent=True, reference={"without this loss": 0.72})',
        invented.draw_weights,
    ),
    "ablations": Entry(
        "Paired differences to the full method.",
        'wb.figures.bars(table, label="change", color="task", percent=True, reference=0)',
        invented.draw_ablations,
    ),
    "counter_tests": Entry(
        "What accuracy is lost where thoughts are dropped, swapped or noised.",
        'wb.figures.bars(table, label="change", mean="difference", percent=True, reference=0)  # workbench counter',
        invented.draw_counter_tests,
    ),
    "evidence": Entry(
        "The standard of evidence of one method: answers, cross-entropies, swaps, readers, and the sentence.",
        'wb.figures.evidence(wb.read_evidence("data/runs/two/evidence"))  # workbench evidence',
        invented.draw_evidence,
    ),
    "thought_map": Entry(
        "Thoughts in the plane by what their question means, a panel per slot.",
        'wb.figures.thought_map(wb.project(store), color="label_meaning", facet="step")',
        invented.draw_thought_map,
    ),
    "map_over_training": Entry(
        "One map of the same thoughts at several training steps.",
        'wb.figures.thought_map(wb.project(snapshots), color="label_meaning", facet="store")',
        invented.draw_map_over_training,
    ),
    "thought_motion": Entry(
        "The same under a slider: on a screen each thought moves from step to step.",
        'wb.figures.thought_motion(wb.project(snapshots), color="label_meaning")',
        invented.draw_motion,
    ),
    "losses": Entry(
        "The total loss and its parts over training.",
        "wb.figures.loss_curves(wb.read_metrics(run), window=5)",
        invented.draw_losses,
    ),
    "collapse": Entry(
        "The probe set's thoughts over training: a collapsed run meets the edges of its panels.",
        'wb.figures.collapse_by_step({"healthy": wb.read_metrics(run), "collapsed": wb.read_metrics(other)})',
        invented.draw_collapse,
    ),
    "collapse_along_slots": Entry(
        "The statistics of thoughts, slot by slot.",
        "wb.figures.collapse_along(wb.describe(stores))",
        invented.draw_along_slots,
    ),
    "collapse_along_training": Entry(
        "The same over training, with intervals over questions.",
        'wb.figures.collapse_along(wb.describe(snapshots), "store")',
        invented.draw_along_training,
    ),
    "spectrum": Entry(
        "Eigenvalues of the thoughts' covariance, and the variance up to each.",
        'wb.figures.spectrum(wb.diagnostics.spectrum_table(store), color="step")',
        invented.draw_spectrum,
    ),
    "distance_qq": Entry(
        "Squared Mahalanobis distances beside those of a Gaussian.",
        'wb.figures.distance_qq(wb.diagnostics.qq_table(store), facet="step")',
        invented.draw_qq,
    ),
    "variance_parts": Entry(
        "Where the variance of thoughts comes from.",
        "wb.figures.shares(wb.diagnostics.variance_table(stores))",
        invented.draw_shares,
    ),
    "divergences": Entry(
        "Divergences between the thoughts of methods, or of training steps.",
        'wb.figures.divergences(wb.diagnostics.divergence_table(stores), "gaussian_kl")',
        invented.draw_divergences,
    ),
    "agreement": Entry(
        "How far the answers of methods agree.",
        'wb.figures.matrix(kappa, name="agreement of answers (Cohen\'s κ)", caption="n = 1000 questions")',
        invented.draw_agreement,
    ),
    "positive_steps": Entry(
        "Which gold step is most like the answer, and which one is critical.",
        "wb.figures.step_similarity(wb.diagnostics.step_table(store, examples=10))",
        invented.draw_steps,
    ),
    "readout": Entry(
        "The tokens that each thought is read as.",
        "wb.figures.readout(wb.diagnostics.readout_table(store, examples=2))",
        invented.draw_readout,
    ),
    "speed": Entry(
        "Each way of computing the same beside the floor of the machine.",
        'wb.figures.speed(wb.bench.ways(results, "training"))  # results: wb.bench.load("data/benchmarks/NAME.json")',
        invented.draw_speed,
    ),
}
