"""Which measure of alignment between question and thoughts is best: over features, directions, words, or none?

feature-kl      KL(softmax(question) || softmax(thought)) over the features, the published loss
cosine          1 - cos(question, thought)
vocabulary-kl   the same KL after the backbone's output head: over words
"""

from collections.abc import Sequence

from .grid import Cell, Done, Setting
from .report import Report, against, correct, difference, effect, points, statistic, tabulate, where

METRICS = ("feature-kl", "cosine", "vocabulary-kl")
WEIGHTS = (0.01, 0.1, 1.0)
MEASURES = {
    "accuracy": correct(),
    "relative spread": statistic("relative_spread"),
    "effective rank": statistic("effective_rank"),
    "slot cosine": statistic("slot_cosine"),
}


def cells(setting: Setting) -> list[Cell]:
    """No alignment once, each metric at each weight; the focus loss as by default."""
    grid = [("none", 0.0), *((metric, weight) for metric in METRICS for weight in WEIGHTS)]
    return [
        Cell(
            "lta-thinker", seed, {"alignment": metric, "alignment_weight": weight}, setting.training,
            {"alignment": metric, "weight": weight},
        )
        for metric, weight in grid
        for seed in setting.seeds
    ]  # fmt: skip


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Accuracy and the shape of the thoughts against the weight, one line per metric."""
    table, runs = tabulate(done, MEASURES)
    without = [d for d in done if d.cell.condition["alignment"] == "none"]
    findings = []
    for metric in METRICS:
        for weight in WEIGHTS:
            cells = [d for d in done if d.cell.condition == {"alignment": metric, "weight": weight}]
            found = difference(cells, without)
            word = effect(found, cells, without)
            findings.append(f"{metric} at weight {weight:g} {word} accuracy: {points(found)} against no alignment.")
    swept = [where(part, "alignment", ["none"], keep=False) for part in (table, runs)]
    none = where(table, "alignment", ["none"])
    drawn = against(*swept, x="weight", color="alignment", log_x=True, reference=none, reference_name="no alignment")
    return Report(table, runs, {"alignment": drawn}, tuple(findings))
