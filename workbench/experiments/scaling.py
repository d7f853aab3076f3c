"""Do more samples close the gap: accuracy by majority vote and pass@k over N answers, with and without thoughts?

The published claim is that one answer with thoughts beats many without them.
"""

from collections.abc import Sequence

from ..analysis.scores import pass_at_k, vote_at
from .grid import Answers, Cell, Done, Setting, soft_prompt_training
from .report import Report, Values, against, conditions, correct, difference, joined, points, tabulate

SAMPLES = (1, 5, 10, 20)
TEMPERATURE = 1.0
PATHS = 4  # of SoftCoT++, its default (published: 10): as many thoughts per question, which share the answers
LINES = {
    "empty slot": "cot",
    "soft prompt": "soft-prompt",
    "LTA-Thinker": "lta-thinker",
    "SoftCoT": "softcot",
    "SoftCoT++": "softcot-pp",
}


def cells(setting: Setting) -> list[Cell]:
    """Each method with as many answers per question as the largest N."""
    budgets = {"cot": None, "soft-prompt": soft_prompt_training(setting)}
    found = []
    for title, name in LINES.items():
        paths = PATHS if name == "softcot-pp" else 1
        sampled = Answers(paths=paths, draws=max(SAMPLES) // paths, temperature=TEMPERATURE)
        options = {"paths": paths} if paths > 1 else {}
        for seed in setting.seeds:
            budget = budgets.get(name, setting.training)
            found.append(Cell(name, seed, options, budget, {"method": title}, {"test": sampled}))
    return found


def voted(k: int) -> Values:
    return lambda done: vote_at(done.store(), k)


def passed(k: int) -> Values:
    def values(done: Done) -> object:
        successes = done.store()["correct"].sum(("path", "draw")).values
        return pass_at_k(successes, max(SAMPLES), k)

    return values


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Vote and pass@k against N, one line per method."""
    parts = [
        tabulate(done, {measure: values(k)}, {"samples": k})
        for k in SAMPLES
        for measure, values in {"majority vote": voted, "pass@k": passed}.items()
    ]
    table, runs = joined(parts)
    by = {condition["method"]: cells for condition, cells in conditions(done)}
    findings = []
    for other in (title for title in LINES if title != "LTA-Thinker"):
        one = difference(by["LTA-Thinker"], by[other], correct())
        many = difference(by["LTA-Thinker"], by[other], correct(), voted(max(SAMPLES)))
        findings.append(
            f"One sampled answer of LTA-Thinker against one of the {other}: {points(one)}; against the majority of "
            f"{max(SAMPLES)} answers of the {other}: {points(many)}."
        )
    drawn = against(table, runs, x="samples", color="method", log_x=True)
    return Report(table, runs, {"scaling": drawn}, tuple(findings))
