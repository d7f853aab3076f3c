"""Which of LTA-Thinker's losses help, and at which weight do they collapse the thoughts?

The likelihood alone, with the alignment loss, with the focus loss, and with both, over three weights.
"""

from collections.abc import Sequence

from .grid import Cell, Done, Setting
from .report import Report, against, correct, difference, effect, points, statistic, tabulate, where

WEIGHTS = (0.01, 0.1, 1.0)
LOSSES = {  # (alignment, focus)
    "likelihood": (False, False),
    "+ alignment": (True, False),
    "+ focus": (False, True),
    "+ both": (True, True),
}
MEASURES = {
    "accuracy": correct(),
    "relative spread": statistic("relative_spread"),
    "effective rank": statistic("effective_rank"),
    "slot cosine": statistic("slot_cosine"),
}


def cells(setting: Setting) -> list[Cell]:
    """The likelihood alone once, the others at each weight."""
    found = []
    for losses, (alignment, focus) in LOSSES.items():
        for weight in WEIGHTS if alignment or focus else (0.0,):
            options = {"alignment_weight": weight * alignment, "focus_weight": weight * focus}
            condition = {"losses": losses, "weight": weight}
            found += [Cell("lta-thinker", seed, options, setting.training, condition) for seed in setting.seeds]
    return found


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Accuracy and the shape of the thoughts against the weight, one line per set of losses."""
    table, runs = tabulate(done, MEASURES)
    alone = [d for d in done if d.cell.condition["losses"] == "likelihood"]
    findings = []
    for losses in list(LOSSES)[1:]:
        for weight in WEIGHTS:
            cells = [d for d in done if d.cell.condition == {"losses": losses, "weight": weight}]
            found = difference(cells, alone)
            word = effect(found, cells, alone)
            findings.append(
                f"{losses} at weight {weight:g} {word} accuracy: {points(found)} against the likelihood alone."
            )
    swept = [where(part, "losses", ["likelihood"], keep=False) for part in (table, runs)]
    one = where(table, "losses", ["likelihood"])
    drawn = against(*swept, x="weight", color="losses", log_x=True, reference=one, reference_name="likelihood alone")
    return Report(table, runs, {"loss_ablation": drawn}, tuple(findings))
