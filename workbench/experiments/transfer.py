"""What do thoughts learned on one domain do on others, read by the block or by an assistant language model?

Everything is trained on the setting's task and answers it and others: known words, new words, and harder problems for
the arith tasks, the other benchmarks for the rest.
"""

from collections.abc import Sequence

import pandas as pd

from .. import figures
from .grid import Answers, Cell, Done, Setting, soft_prompt_training
from .report import Report, asked, conditions, correct, difference, joined, points, sure, tabulate

ARITH = ("arith-shift", "arith-shift:hard", "arith", "arith:hard")
BENCHMARKS = ("gsm8k", "math500", "aqua", "strategyqa")
GENERATORS = {
    "empty slot": ("cot", {}),
    "soft prompt": ("soft-prompt", {}),
    "block": ("lta-thinker", {}),
    "assistant": ("lta-thinker", {"generator": "assistant"}),
}


def domains(setting: Setting) -> dict[str, Answers]:
    """What is answered: the trained task first (named as trained), then the others of its kind."""
    known = ARITH if setting.task in ARITH else BENCHMARKS
    others = [name for name in known if name != setting.task]
    found = {setting.task: Answers()}
    for name in others:
        task, _, data = name.partition(":")
        found[name.replace(":", "-")] = Answers(task, data or None)
    return found


def cells(setting: Setting) -> list[Cell]:
    stores = domains(setting)
    budgets = {"cot": None, "soft-prompt": soft_prompt_training(setting), "lta-thinker": setting.training}
    return [
        Cell(method, seed, options, budgets[method], {"thoughts by": title}, stores)
        for title, (method, options) in GENERATORS.items()
        for seed in (setting.seeds[:1] if method == "cot" else setting.seeds)  # greedy and untrained: one says all
    ]


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Accuracy on every domain for each generator, and each against the empty slot."""
    names = list(domains(setting))
    table, runs = joined([tabulate(done, {"accuracy": correct(name)}, {"domain": name}) for name in names])
    by = {condition["thoughts by"]: cells for condition, cells in conditions(done)}
    rows, findings = [], []
    for name in names:
        said = []
        for title in list(GENERATORS)[1:]:
            found = difference(by[title], by["empty slot"], correct(name))
            rows.append({"thoughts by": title, "domain": name, **vars(found)})
            said.append(f"{title} {points(found)}" + ("" if sure(found) else " (not sure)"))
        trained = " (trained on)" if name == setting.task else ""
        findings.append(f"{name}{trained}, against the empty slot: {', '.join(said)}.")
    drawn = {
        "transfer": figures.bars(
            table,
            label="domain",
            color="thoughts by",
            percent=True,
            x_title="accuracy (%)",
            of=asked(len(setting.seeds)),
        ),
        "transfer_difference": figures.bars(
            pd.DataFrame(rows),
            label="domain",
            color="thoughts by",
            percent=True,
            reference=0.0,
            x_title="accuracy, minus that of the empty slot (points)",
            of=asked(len(setting.seeds)),
        ),
    }
    return Report(table, runs, drawn, tuple(findings))
