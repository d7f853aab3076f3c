"""What do LT-Tuning's thoughts add to plain fine-tuning of the same budget, and which part of the method does it?

All arms start from the same backbone and train all its weights on the same examples, as many epochs, in the same
batches and at the same learning rate:

    plain             no mark anywhere, in the same stages
    full              paper-1b
    without stage 2   six thoughts before the reply, fused from the first stage with thoughts on
    without stage 3   thoughts are states to the end
    without latents   the mark is a pause token, read as its own embedding
    latents off       the full arm's weights, answering with marks forbidden
    state scaled      the full arm with states as long as the words' inputs
    longer start      plain and full where the stage of plain chain of thought is a whole epoch: 1, 1 and 2
    ten epochs        plain and full with the paper's number of epochs, 1, 2 and 7, in batches of 32 as its first stage
    more examples     that with twice the examples

The paper's shares of four epochs are 0.4, 0.8 and 2.8. The three further budgets were chosen on arith-shift's dev, the
last one after the others' results were known.

Decided before the runs: 2 points of accuracy is an effect that matters. Of a difference, paired by seed and question,
with its 95 % interval: "A gains on B" holds if the interval is above 0 and not below 2 points, does not hold if it is
below 2 points, and is undecided else. "A is no worse than B" holds if the interval is above -2 points, does not hold if
it is below them, and is undecided else. An undecided one is said with the seeds at which its interval would be no wider
than 2 points.

Worked steps of arith have some 20 tokens, a tenth of GSM8K's, so at most four places of a chain get marks. The
learning rate is the better of 3e-4 and 1e-3 on arith-shift's dev for plain and full alike (one seed, 64 steps).
Where the setting's task is one of the small made ones, arith and arith-shift are both trained on, and every model
answers both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .. import figures
from ..analysis import diagnostics
from ..analysis.scores import Interval, crossed_interval
from ..evidence.along import along_answers
from ..methods import LatentMethod
from ..tasks import Task
from ..training.plan import TrainConfig
from .grid import Answers, Cell, Done, Setting
from .report import Report, Values, asked, correct, difference, joined, points, tabulate, where

SETTING = Setting(
    seeds=[0, 1, 2, 3, 4],
    training=TrainConfig(examples=500, epochs=4, batch_size=16, optimizer="adamw", lr=1e-3, probe_every=1000),
)
MARGIN = 0.02  # of accuracy: less makes no difference that matters
CAP = 4  # places of a chain that get marks
CHAIN = 6  # thoughts of a chain that collapse is measured on, as in the paper
LOOKED = 50  # dev questions whose answers are read with a live model
BOTH = ("arith-shift", "arith")
PLAIN, FULL, PAUSE, OFF, SCALED, STATES, COCONUT = (
    "plain", "full", "without latents", "latents off", "state scaled", "without stage 3", "coconut",
)  # fmt: skip
LATER_PLAIN, LATER, LATER_OFF = (f"{arm}, longer start" for arm in (PLAIN, FULL, OFF))
TEN_PLAIN, TEN, TEN_OFF = (f"{arm}, ten epochs" for arm in (PLAIN, FULL, OFF))
MORE_PLAIN, MORE, MORE_OFF = (f"{arm}, more examples" for arm in (PLAIN, FULL, OFF))
NO_MARKS: dict[str, Any] = {"placement": "none", "test_thoughts": False}
START = {"plain_share": 0.25, "state_share": 0.25}  # of the epochs: 1, 1 and 2
ARMS: dict[str, dict[str, Any]] = {  # what differs from paper-1b
    PLAIN: NO_MARKS,
    FULL: {},
    "without stage 2": {"placement": "fixed", "state_share": 0.0},
    STATES: {"mode": "hidden"},
    PAUSE: {"mode": "pause"},
    SCALED: {"state_scale": "embedding"},
    LATER_PLAIN: NO_MARKS | START,
    LATER: START,
    TEN_PLAIN: NO_MARKS,
    TEN: {},
    MORE_PLAIN: NO_MARKS,
    MORE: {},
}
OFFS = {FULL: OFF, LATER: LATER_OFF, TEN: TEN_OFF, MORE: MORE_OFF}  # arms that answer with marks forbidden too
PAIRS = {FULL: PLAIN, LATER: LATER_PLAIN, TEN: TEN_PLAIN, MORE: MORE_PLAIN}  # the same steps with and without marks
TEN_EPOCHS: dict[str, Any] = {"epochs": 10, "batch_size": 32}
FURTHER = (LATER, LATER_PLAIN, TEN, TEN_PLAIN, MORE, MORE_PLAIN)  # budgets that are tried on the setting's task alone
CHAINED = (FULL, STATES, SCALED, COCONUT)  # whose chains are compared


def tasks(setting: Setting) -> dict[str, str | None]:
    """Task -> data."""
    return dict.fromkeys(BOTH) if setting.task in BOTH else {setting.task: setting.data}


def cells(setting: Setting) -> list[Cell]:
    """Every arm on every task; further budgets on the setting's alone, and Coconut there for its chain."""
    found = []
    for task, data in tasks(setting).items():
        for arm, options in ARMS.items():
            if arm in FURTHER and task != setting.task:
                continue
            training, measure = _budget(arm, setting.training), along if arm in (FULL, PAUSE) else None
            for seed in setting.seeds:
                own = {"cap": CAP, "cap_fusion": CAP, **options}
                condition: dict[str, str | int | float] = {"task": task, "arm": arm}
                found.append(Cell("lt-tuning", seed, own, training, condition, _stores(task, arm), measure, task, data))
        if task == setting.task:
            options = {"thoughts_per_step": 2, "max_stage": CHAIN // 2}
            condition = {"task": task, "arm": COCONUT}
            found += [
                Cell("coconut", seed, options, setting.training, condition, {"chain": Answers()}, None, task, data)
                for seed in setting.seeds
            ]
    return found


def _budget(arm: str, given: TrainConfig) -> TrainConfig:
    """The setting's training; ten epochs of it; these with twice the examples."""
    if arm not in (TEN, TEN_PLAIN, MORE, MORE_PLAIN):
        return given
    times = 2 if arm in (MORE, MORE_PLAIN) else 1
    return replace(given, **TEN_EPOCHS, examples=given.examples and times * given.examples)


def _stores(task: str, arm: str) -> dict[str, Answers]:
    stores = {"test": Answers()}
    if task in BOTH and arm not in FURTHER:
        stores["other"] = Answers(_other(task))
    if arm == PLAIN:
        stores["draws"] = Answers(draws=5, temperature=0.7)
    if arm in OFFS:
        stores["off"] = Answers(options={"test_thoughts": False})
    if arm in CHAINED:
        stores["chain"] = Answers(options={"forced_thoughts": CHAIN})
    return stores


def _other(task: str) -> str:
    return BOTH[1 - BOTH.index(task)]


def along(method: LatentMethod, task: Task) -> dict[str, Any]:
    """Entropy and attention along answers to dev questions, means by place."""
    rows = along_answers(method, task, task.examples("dev", LOOKED))
    table = diagnostics.along_table(rows)
    return {"along": table.astype(object).where(table.notna(), None).to_dict("records")}


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Accuracy of every arm, what each part adds, thoughts against difficulty, and the chains step by step."""
    by: dict[str, dict[str, list[Done]]] = {}
    for cell in done:
        by.setdefault(str(cell.cell.condition["task"]), {}).setdefault(str(cell.cell.condition["arm"]), []).append(cell)
    parts, rows, findings, of = [], [], [], asked(len(setting.seeds))
    for task, arms in by.items():
        for domain, title in _domains(arms, task).items():
            parts.append(_measured(arms, domain, title))
            found = _compared(arms, domain)
            rows += [{"compared": name, "domain": title, **vars(one)} for name, one in found.items()]
            findings += _judged(found, title, len(setting.seeds), trained=domain == "test")
        findings += [_by_thoughts(arms, task), *_difficulty(arms, task)]
    chain, chain_runs = _stepwise(by[setting.task])
    seen, seen_runs = _along(by[setting.task])
    findings += _chains(chain)
    findings += _seen(seen)
    table, runs = joined(parts)
    drawn = {
        "lt_tuning": figures.bars(
            where(table, "measure", ["accuracy"]), label="arm", color="domain", percent=True, x_title="accuracy (%)",
            of=of,
        ),
        "lt_tuning_difference": figures.bars(
            pd.DataFrame(rows), label="compared", color="domain", percent=True, reference=0.0,
            x_title="difference of accuracy (points)", of=of,
        ),
        "lt_tuning_chain": figures.response(
            chain.rename(columns={"measure": "statistic"}), x="step", color="arm", facet="statistic",
            points=chain_runs.rename(columns={"measure": "statistic"}), x_title="thought of the chain",
            y_title={name: figures.statistic_title(name, unit) for name, (unit, _) in diagnostics.CHAIN.items()},
            n="n", of="seeds",
        ),
        "lt_tuning_along": figures.response(
            seen, x="place", color="arm", facet="measure", x_title="place in the answer", y_title=_ALONG, n="n",
            of="seeds",
        ),
    }  # fmt: skip
    more, more_runs = joined([(chain, chain_runs), (seen, seen_runs)])
    if tiers := _tiers(by):
        drawn["lt_tuning_difficulty"] = figures.response(
            pd.DataFrame(tiers), x="difficulty", color="domain", facet="by", x_title="difficulty",
            y_title="thoughts per answer", n="n", of="answers",
        )  # fmt: skip
    whole, whole_runs = joined([(table, runs), (more, more_runs)])
    return Report(whole, whole_runs, drawn, tuple(findings))


def _domains(arms: dict[str, list[Done]], task: str) -> dict[str, str]:
    """Store -> what the tables call it: trained on and answered, or trained on > answered."""
    known = {"test": task}
    return known | ({"other": f"{task} > {_other(task)}"} if "other" in arms[PLAIN][0].cell.stores else {})


_ALONG = {
    "entropy": "entropy (nats)", "mass": "attention on thoughts (share)", "share": "thoughts (share of what is read)",
    "over_share": "attention / share",
}  # fmt: skip


def _measured(arms: dict[str, list[Done]], domain: str, title: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy, thoughts and tokens per answer of each arm."""
    more = {"domain": title}

    def of(store: str) -> dict[str, Values]:
        return {
            "accuracy": correct(store),
            "thoughts": lambda done: diagnostics.thought_counts(done.store(store)),
            "tokens": lambda done: done.store(store)["length"].transpose("example", "path", "draw").values.mean((1, 2)),
        }

    arms = _answered(arms, domain)
    parts = [tabulate(cells, of(domain), more) for cells in arms.values()]
    if domain == "test":
        parts += [tabulate(arms[arm], of("off"), {**more, "arm": off}) for arm, off in OFFS.items() if arm in arms]
    return joined(parts)


def _answered(arms: dict[str, list[Done]], domain: str) -> dict[str, list[Done]]:
    """The arms that have answered it."""
    return {arm: cells for arm, cells in arms.items() if domain in cells[0].cell.stores}


def _compared(arms: dict[str, list[Done]], domain: str) -> dict[str, Interval]:
    """A minus B for each pair that says something."""
    arms, right = _answered(arms, domain), correct(domain)
    pairs = {arm: plain for arm, plain in PAIRS.items() if arm in arms}
    found = {f"{arm} - {plain}": difference(arms[arm], arms[plain], right) for arm, plain in pairs.items()}
    for arm in (LATER, TEN, MORE):
        if arm in arms:
            found[f"{arm} - {FULL}"] = difference(arms[arm], arms[FULL], right)
    if domain == "test":
        for arm in pairs:
            found[f"{arm} - {OFFS[arm]}"] = difference(arms[arm], arms[arm], right, correct("off"))
    for arm in arms:
        if arm not in (*PAIRS, *PAIRS.values(), SCALED):
            found[f"{FULL} - {arm}"] = difference(arms[FULL], arms[arm], right)
    found[f"{SCALED} - {FULL}"] = difference(arms[SCALED], arms[FULL], right)
    found[f"{SCALED} - {PLAIN}"] = difference(arms[SCALED], arms[PLAIN], right)
    return found


def _judged(found: dict[str, Interval], title: str, seeds: int, trained: bool) -> list[str]:
    """A sentence for each comparison, by the rule above."""
    sentences = []
    for name, one in found.items():
        first, second = name.split(" - ")
        said = f"{title}: {first} gains on {second}: {verdict(one, seeds)} ({points(one)})."
        if trained and PAIRS.get(first) == second:
            sentences.append(
                f"{title}: {first} is no worse than {second}: {verdict(one, seeds, no_worse=True)} ({points(one)})."
            )
        sentences.append(said)
    return sentences


def verdict(found: Interval, seeds: int, no_worse: bool = False) -> str:
    """ "holds", "does not hold", or what would decide it."""
    if no_worse:
        holds, fails = found.low > -MARGIN, found.high < -MARGIN
    else:
        holds, fails = found.low > 0 and found.high >= MARGIN, found.high < MARGIN
    if holds or fails:
        return "holds" if holds else "does not hold"
    needed = math.ceil(seeds * ((found.high - found.low) / MARGIN) ** 2) if found.high > found.low else seeds + 1
    return f"undecided, needs about {needed} seeds"


def _by_thoughts(arms: dict[str, list[Done]], task: str) -> str:
    """Where answers are lost against plain: at those with many thoughts, or at all alike?"""
    said, right = [], correct()
    for arm, other in PAIRS.items():
        if arm not in arms:
            continue
        counts = np.concatenate([diagnostics.thought_counts(cell.store()) for cell in arms[arm]]).clip(max=3)
        gap = np.concatenate([right(a) - right(b) for a, b in zip(arms[arm], arms[other], strict=True)])
        own = {k: gap[counts == k] for k in np.unique(counts).tolist()}
        tiers = (f"{k:g}{' or more' * (k == 3)}: {100 * v.mean():+.1f} (of {len(v)})" for k, v in own.items())
        said.append(f"{arm} {', '.join(tiers)}")
    return f"{task}: points more than plain by the thoughts in the answer, same questions: {'; '.join(said)}."


def _difficulties(arms: dict[str, list[Done]]) -> dict[str, Callable[[Done], tuple[Any, str, Any]]]:
    """By what a question is hard: (store, label, store with the answers that say so) of a cell of the full arm."""
    found: dict[str, Callable[[Done], tuple[Any, str, Any]]] = {}
    if "label_operations" in arms[FULL][0].store().coords:
        found["operations"] = lambda cell: (cell.store(), "operations", None)
    draws = {cell.cell.seed: cell for cell in arms[PLAIN]}
    found["wrong of 5 plain answers"] = lambda cell: (cell.store(), "wrong", draws[cell.cell.seed].store("draws"))
    return found


def _difficulty(arms: dict[str, list[Done]], task: str) -> list[str]:
    """Do harder questions get more thoughts?"""
    said = []
    for name, take in _difficulties(arms).items():
        values = []
        for cell in arms[FULL]:
            store, by, answers = take(cell)
            values.append(float(diagnostics.difficulty_correlation(store, by, answers)["spearman"].iloc[0]))
        known = np.array([value for value in values if np.isfinite(value)])
        if len(known) < 2:
            said.append(f"{name}: fewer than two runs have thoughts that differ in number")
            continue
        one = crossed_interval(known[:, None])
        said.append(f"{name}: {one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}] over {len(known)} seeds")
    return [f"{task}: Spearman of thoughts per answer and difficulty, {'; '.join(said)}."] if said else []


def _tiers(by: dict[str, dict[str, list[Done]]]) -> list[dict[str, Any]]:
    """Thoughts per answer at each difficulty, all seeds together."""
    rows = []
    for task, arms in by.items():
        for name, take in _difficulties(arms).items():
            found: dict[float, list[np.ndarray]] = {}
            for cell in arms[FULL]:
                store, label, answers = take(cell)
                counts, hard = diagnostics.thought_counts(store), diagnostics.difficulty(store, label, answers)
                for tier in np.unique(hard):
                    found.setdefault(float(tier), []).append(counts[hard == tier])
            for tier, parts in sorted(found.items()):
                own = np.concatenate(parts)
                half = 1.96 * own.std() / np.sqrt(len(own))
                rows.append({"domain": task, "by": name, "difficulty": tier, "mean": own.mean()})
                rows[-1] |= {"low": own.mean() - half, "high": own.mean() + half, "n": len(own)}
    return rows


def _stepwise(arms: dict[str, list[Done]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The chains' numbers by step, with intervals over seeds."""
    parts = []
    for arm in CHAINED:
        if arm not in arms:
            continue
        tables = {
            cell.folder: diagnostics.chain_table(cell.store("chain"), level=None).set_index(["statistic", "step"])
            for cell in arms[arm]
        }
        first = next(iter(tables.values()))
        for step in sorted({step for _, step in first.index}):
            of = {
                name: lambda cell, name=name, step=step, tables=tables: float(
                    tables[cell.folder]["mean"].get((name, step), np.nan)
                )
                for name in diagnostics.CHAIN
                if (name, step) in first.index
            }
            parts.append(tabulate(arms[arm], of, {"step": step}))
    table, runs = joined(parts)
    return table.dropna(subset=["mean"]), runs.dropna(subset=["mean"])


def _chains(table: pd.DataFrame) -> list[str]:
    """The first and the last step of each arm's chain in numbers."""
    said = []
    last = table["step"].max()
    for arm in dict.fromkeys(table["arm"]):
        rows = where(table, "arm", [arm])
        own = dict(zip(zip(rows["measure"], rows["step"], strict=True), rows["mean"].tolist(), strict=True))

        def at(name: str, own: dict[Any, float] = own) -> str:
            first, end = own.get((name, 0)), own.get((name, last))
            return "" if first is None or end is None else f"{name.replace('_', ' ')} {first:.3g} to {end:.3g}"

        numbers = ("cosine", "centred_cosine", "effective_rank", "distance_ratio", "word_to_state")
        said.append(f"{arm}: " + ", ".join(text for name in numbers if (text := at(name))))
    return [f"A chain from its first thought to its sixth ({table['task'].iloc[0]}): {'; '.join(said)}."]


def _along(arms: dict[str, list[Done]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Entropy and attention along answers, place by place, with intervals over seeds."""
    parts = []
    for arm in (FULL, PAUSE):
        tables = {
            cell.folder: pd.DataFrame(cell.measured()["along"]).set_index(["quantity", "place"])["mean"].astype(float)
            for cell in arms[arm]
        }
        shared = sorted(set.intersection(*(set(one.index) for one in tables.values())), key=lambda pair: pair[1])
        for quantity, place in shared:
            value = {quantity: lambda cell, q=quantity, p=place, tables=tables: float(tables[cell.folder][(q, p)])}
            parts.append(tabulate(arms[arm], value, {"place": place}))
    table, runs = joined(parts)
    order = list(_ALONG)
    return table.sort_values("measure", key=lambda column: column.map(order.index), kind="stable"), runs


def _seen(table: pd.DataFrame) -> list[str]:
    """Means along the answer, of the arm with thoughts and of that with pause tokens."""
    said = []
    for arm in dict.fromkeys(table["arm"]):
        own = {name: where(where(table, "arm", [arm]), "measure", [name])["mean"] for name in _ALONG}
        numbers = ", ".join(f"{_ALONG[name]} {values.mean():.3g}" for name, values in own.items() if len(values))
        said.append(f"{arm}: {numbers}")
    return [f"Along an answer, mean over its places ({table['task'].iloc[0]}): {'; '.join(said)}."]
