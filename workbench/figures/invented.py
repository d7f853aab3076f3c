"""Invented numbers, and what each kind of figure makes of them. They mean nothing: they show the forms."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..analysis.evidence import Evidence, table
from .curves import collapse_along, collapse_by_step, loss_curves
from .evidence import evidence
from .heatmaps import divergences, matrix, readout, step_similarity
from .intervals import accuracy, bars
from .look import Width
from .maps import thought_map
from .motion import thought_motion
from .response import response
from .shares import shares
from .spectra import distance_qq, spectrum
from .speed import speed

METHODS = ("cot", "soft_prompt", "lta_thinker")
CLOUDS = ("LTA-Thinker", "soft prompt", "token embeddings")

# ---------------------------------------------------------------------------------------------------------- the tables


def points() -> pd.DataFrame:
    """As `projection.project` returns: four slots, of which one ignores the question."""
    rng = np.random.default_rng(0)
    meaning = np.repeat(["all +", "all -", "mixed"], [30, 30, 15])
    centre = {"all +": (1.0, 0.6), "all -": (-1.0, -0.5), "mixed": (0.1, 0.2)}
    parts = []
    for step, strength in enumerate((1.0, 0.6, 0.0, 0.8)):
        at = np.array([centre[label] for label in meaning]) * strength + [0.8 * step - 1.2, 0.5 * (step % 2)]
        at = at + (0.15 if strength else 0.01) * rng.normal(size=at.shape)
        part = pd.DataFrame({"x": at[:, 0], "y": at[:, 1], "path": 0, "step": step})
        part["label_meaning"] = meaning
        parts.append(part.assign(example=np.arange(len(meaning)), correct=rng.random(len(meaning)) < 0.7))
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {"how": "pca", "explained": [0.43, 0.31], "trustworthiness": 0.97}
    table.attrs |= {"continuity": 0.98, "neighbours": 15}
    table.attrs["checked_rows"] = len(table)
    return table


def metrics(collapsed: bool = False) -> pd.DataFrame:
    """As `runs.read_metrics` returns: losses at every step, the probe set at every twentieth."""
    rng = np.random.default_rng(int(collapsed))
    step = np.arange(1, 301)
    falling = np.exp(-step / 80)
    table = pd.DataFrame({"step": step, "loss_likelihood": 0.3 + 2 * falling + 0.1 * rng.random(300)})
    table["loss_focus"] = 1.1 - (0.02 if collapsed else 0.4) * (1 - falling) + 0.02 * rng.random(300)
    table["loss_focus_log_steps"] = 1.1 + 0.01 * rng.random(300)
    table["loss"] = table["loss_likelihood"] + 0.1 * table["loss_focus"]
    ends = {"relative_spread": (0.4, 0.01), "effective_rank": (6, 1.5), "cosine": (0.6, 0.99), "slot_cosine": (0.2, 1)}
    for name, end in ends.items():
        values = end[collapsed] * (1 - falling) + 0.1 * falling
        table[f"probe_{name}"] = np.where(step % 20 == 0, values, np.nan)
    return table


def sweep(x: str, settings: Sequence[float], lines: Sequence[str], color: str) -> pd.DataFrame:
    """Accuracies that rise with a setting, one line above the other."""
    rng = np.random.default_rng(0)
    rows = [
        {x: at, color: line, "mean": 0.42 + 0.12 * k + 0.25 * (1 - np.exp(-at / 3)) + rng.normal(0, 0.008)}
        for k, line in enumerate(lines)
        for at in settings
    ]
    table = pd.DataFrame(rows)
    return table.assign(low=table["mean"] - 0.03, high=table["mean"] + 0.028, n=1000)


def training(steps: Sequence[int] = (0, 50, 200, 800)) -> pd.DataFrame:
    """As `projection.project({step: store, ...})` returns: one slot, whose thoughts part as training goes on."""
    last = points().query("step == 0")
    rng = np.random.default_rng(2)
    start = rng.normal(0, 0.25, (len(last), 2))
    parts = []
    for step in steps:
        gone = 1 - np.exp(-step / 150)
        at = gone * last[["x", "y"]].to_numpy() + (1 - gone) * start + rng.normal(0, 0.03, start.shape)
        right = rng.random(len(last)) < 0.4 + 0.4 * gone
        parts.append(last.assign(x=at[:, 0], y=at[:, 1], correct=right, store=step))
    table = pd.concat(parts, ignore_index=True)
    table.attrs = last.attrs | {"explained": [0.61, 0.12], "checked_rows": len(table)}
    return table


def statistics(over: str = "step") -> pd.DataFrame:
    """As `diagnostics.describe` returns, of two stores slot by slot, or of one run's over training."""
    ends = {"relative_spread": ("share", 0.4), "cosine": ("cosine", 0.6)}
    ends |= {"effective_rank": ("directions", 6.0), "norm_ratio": ("ratio", 1.2)}
    rows = []
    for k, store in enumerate(("LTA-Thinker", "SoftCoT") if over == "step" else (0, 50, 100, 200, 400, 800)):
        for place, (statistic, (unit, end)) in enumerate(ends.items()):
            for slot in range(4):
                grown = 1 - 0.2 * slot - 0.3 * k if over == "step" else 1 - np.exp(-float(store) / 200)
                value = end * (0.3 + 0.7 * max(grown, 0) + 0.02 * ((3 * slot + place) % 4))
                row = (store, statistic, str(slot) if over == "step" else "all", value, 0.93 * value, 1.06 * value)
                rows.append((*row, 500, unit))
                if over == "store":
                    break
    columns = ["store", "statistic", "step", "value", "low", "high", "n", "unit"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def weighed() -> Evidence:
    """As `evidence.standard.assess` returns: two of three slots say what a word means."""
    right = {"own": (0.8, 0.3), "other": (0.42, 0.12), "none": (0.4, 0.1)}
    values = [
        (source, measure, value, value - 0.04, value + 0.04, 500)
        for source, both in right.items()
        for measure, value in zip(("free", "forced"), both, strict=True)
    ]
    lost = {"other": (0.4, 0.3), "none": (0.4, 0.35)}
    effects = [
        (source, measure, value, value - 0.05, value + 0.06, 500)
        for source, both in lost.items()
        for measure, value in zip(("at once", "chain"), both, strict=True)
    ]
    effects += [(source, "free", right["own"][0] - right[source][0], 0.33, 0.43, 500) for source in ("other", "none")]
    swaps = [
        (slot, how, "", 0.1 + over, 0.1, over, over - 0.04, over + 0.04, 0.5, 480)
        for slot, how, over in (("all", "free", 0.3), ("0", "free", 0.1))
    ]
    readers = [
        ("meaning", 0.8, 0.7, 0.9, 0.2, 0.6, 0.5, 0.7, 0.02, 1.0, 3, 500),
    ]
    attention = [("over share", 1.4, 1.2, 1.6, 32)]
    return Evidence(
        table("values", values),
        table("effects", effects),
        table("swaps", swaps),
        table("readers", readers),
        table("attention", attention),
    )


# --------------------------------------------------------------------------------------------------------- the figures


def draw_thoughts(width: Width) -> go.Figure:
    lines = ("soft_prompt", "lta_thinker")
    table = sweep("thoughts", (1, 2, 4, 8), lines, "method")
    rng = np.random.default_rng(1)
    single = pd.concat([table.assign(mean=table["mean"] + rng.normal(0, 0.02, len(table))) for _ in range(3)])
    return response(
        table, x="thoughts", color="method", percent=True, reference={"empty slot": 0.41}, points=single,
        x_title="number of thoughts", y_title="accuracy (%)", width=width,
    )  # fmt: skip


def draw_samples(width: Width) -> go.Figure:
    table = sweep("samples", (1, 2, 4, 8, 16, 32), ("mean", "majority vote", "pass@k"), "measure")
    return response(
        table, x="samples", color="measure", log_x=True, percent=True, band=True, x_title="answers per question",
        y_title="accuracy (%)", width=width,
    )  # fmt: skip


def draw_variance(width: Width) -> go.Figure:
    noise = np.linspace(0, 2, 25)
    parts = {"kl": 3 * np.exp(-noise), "accuracy": 0.8 - 0.15 * noise}
    table = pd.concat(
        [pd.DataFrame({"variance": noise, "measure": name, "mean": mean}) for name, mean in parts.items()]
    )
    spread = np.where(table["measure"] == "kl", 0.2, 0.03)
    return response(
        table.assign(low=table["mean"] - spread, high=table["mean"] + spread), x="variance", facet="measure",
        percent=["accuracy"], reference={"empty slot": {"accuracy": 0.41}}, n=500, width=width,
        x_title="variance of the noise (units²)", y_title={"kl": "Gaussian KL (nats)", "accuracy": "accuracy (%)"},
    )  # fmt: skip


def draw_weights(width: Width) -> go.Figure:
    weights = np.array([0.001, 0.01, 0.1, 1, 10])
    mean = 0.8 - 0.05 * np.log10(weights / 0.1) ** 2
    table = pd.DataFrame({"weight": weights, "mean": mean, "low": mean - 0.03, "high": mean + 0.03, "n": 5})
    return response(
        table, x="weight", log_x=True, percent=True, of="seeds", reference={"without this loss": 0.72},
        x_title="weight of the focus loss", y_title="accuracy (%)", width=width,
    )  # fmt: skip


def draw_accuracies(width: Width) -> go.Figure:
    named = {"empty slot": 0.41, "soft prompt": 0.57, "LTA-Thinker": 0.81, "another question's thoughts": 0.42}
    rows = [("arith-shift", *row) for row in named.items()]
    rows += [("arith", "empty slot ", 0.998), ("arith", "LTA-Thinker ", 0.978)]
    table = pd.DataFrame(rows, columns=pd.Index(["task", "name", "mean"]))
    low, high = table["mean"] - 0.03, np.minimum(table["mean"] + 0.03, 0.9995)
    return accuracy(table.assign(low=np.minimum(low, table["mean"]), high=high, n=1000), width=width)


def draw_ablations(width: Width) -> go.Figure:
    change = ("without the focus loss", "without the alignment loss", "one thought", "thoughts of another question")
    parts = [(name, domain, loss * k) for domain, k in (("arith-shift", 1), ("arith", 0.2))
             for name, loss in zip(change, (-0.02, -0.06, -0.21, -0.39), strict=True)]  # fmt: skip
    table = pd.DataFrame(parts, columns=pd.Index(["change", "task", "mean"]))
    table = table.assign(low=table["mean"] - 0.03, high=table["mean"] + 0.025, n=1000)
    title = "difference to the full method (points)"
    return bars(table, label="change", color="task", reference=0, percent=True, x_title=title, width=width)


def draw_counter_tests(width: Width) -> go.Figure:
    lost = {"dropped": 0.4, "zeroed": 0.38, "shuffled": 0.39, "averaged": 0.24, "noised:0.25": 0.01, "noised:1": 0.12}
    table = pd.DataFrame({"change": list(lost), "difference": list(lost.values())})
    table = table.assign(low=table["difference"] - 0.03, high=table["difference"] + 0.03, n=1000)
    title = "accuracy lost (points)"
    return bars(table, label="change", mean="difference", reference=0, percent=True, x_title=title, width=width)


def draw_spectrum(width: Width) -> go.Figure:
    direction = np.arange(1, 65)
    parts = []
    for name, decay in zip(CLOUDS, (0.15, 0.6, 0.03), strict=True):
        eigenvalue = np.exp(-decay * direction)
        shares_up_to = np.cumsum(eigenvalue) / eigenvalue.sum()
        parts.append(
            pd.DataFrame({"direction": direction, "eigenvalue": eigenvalue, "cumulative": shares_up_to, "cloud": name})
        )
    return spectrum(pd.concat(parts), color="cloud", n=1000, width=width)


def draw_qq(width: Width) -> go.Figure:
    rng = np.random.default_rng(0)
    expected = np.sort(rng.chisquare(8, 500))
    heavy = expected * (1 + (expected / 25) ** 3)
    parts = [
        pd.DataFrame({"expected": expected, "observed": observed, "step": step})
        for step, observed in (("0", heavy), ("1", expected + rng.normal(0, 0.1, 500)))
    ]
    return distance_qq(pd.concat(parts), facet="step", width=width)


def draw_shares(width: Width) -> go.Figure:
    parts = ("slot", "question", "question_slot", "path", "residual")
    found = {"LTA-Thinker": (0.4, 0.25, 0.2, 0.05, 0.1), "soft prompt": (0.97, 0, 0, 0, 0.03)}
    rows = [
        {"store": name, "part": part, "share": share}
        for name, values in found.items()
        for part, share in zip(parts, values, strict=True)
    ]
    return shares(pd.DataFrame(rows), n=4000, width=width)


def draw_divergences(width: Width) -> go.Figure:
    kl = np.random.default_rng(0).gamma(2, 3, (3, 3))
    rows = [
        (first, second, "all", "gaussian_kl", float(kl[i, j]), "nats", 1000, 1000)
        for i, first in enumerate(CLOUDS)
        for j, second in enumerate(CLOUDS)
        if i != j
    ]
    columns = ["first", "second", "step", "divergence", "value", "unit", "n_first", "n_second"]
    return divergences(pd.DataFrame(rows, columns=pd.Index(columns)), "gaussian_kl", width=width)


def draw_agreement(width: Width) -> go.Figure:
    names = list(METHODS)
    kappa = pd.DataFrame([[np.nan, -0.1, 0.2], [-0.1, np.nan, 0.55], [0.2, 0.55, np.nan]], names, names)
    return matrix(kappa, name="agreement of answers (Cohen's κ)", caption="n = 1000 questions", width=width)


def draw_steps(width: Width) -> go.Figure:
    rng = np.random.default_rng(0)
    rows = []
    for k in range(10):
        similarity = rng.uniform(-0.3, 0.9, rng.integers(2, 6))
        critical = int(rng.integers(len(similarity)))
        rows += [
            {"example": f"{k:04d}", "step": s, "similarity": value} | {"chosen": s == similarity.argmax(),
             "critical": s == critical}
            for s, value in enumerate(similarity)
        ]  # fmt: skip
    return step_similarity(pd.DataFrame(rows), width=width)


def draw_readout(width: Width) -> go.Figure:
    rng = np.random.default_rng(0)
    tokens = (" gains", " loses", "+", "-", " pens", "\n", " harvests", "7")
    rows = []
    for question in ("0000", "0001"):
        for slot in range(3):
            score = np.sort(rng.dirichlet(np.ones(6)))[::-1][:4]
            found = rng.permutation(len(tokens))[:4]
            rows += [
                {"thought": f"{question}, slot {slot}", "rank": k + 1, "token": tokens[found[k]], "score": score[k]}
                for k in range(4)
            ]
    return readout(pd.DataFrame(rows), width=width)


def draw_losses(width: Width) -> go.Figure:
    return loss_curves(metrics(), window=5, width=width)


def draw_collapse(width: Width) -> go.Figure:
    return collapse_by_step({"healthy": metrics(), "collapsed": metrics(collapsed=True)}, width=width)


def draw_thought_map(width: Width) -> go.Figure:
    return thought_map(points(), "label_meaning", "step", width=width)


def draw_map_over_training(width: Width) -> go.Figure:
    return thought_map(training(), "label_meaning", "store", width=width)


def draw_motion(width: Width) -> go.Figure:
    return thought_motion(training(), "label_meaning", width=width)


def draw_along_slots(width: Width) -> go.Figure:
    return collapse_along(statistics(), width=width)


def draw_along_training(width: Width) -> go.Figure:
    return collapse_along(statistics("store"), "store", width=width)


def draw_speed(width: Width) -> go.Figure:
    table = pd.DataFrame(
        {"way": ["plain", "packed", "cached"], "median": [0.31, 0.17, 0.12], "floor": [0.1, 0.1, 0.07]}
    )
    table = table.assign(low=table["median"] - 0.01, high=table["median"] + 0.02, over_generate=np.nan)
    table = table.assign(speedup=0.31 / table["median"], over_floor=table["median"] / table["floor"])
    about = {"part": "training", "unit": "seconds per step", "repeats": 5, "machine": "a processor (cpu, 2 cores)"}
    table.attrs |= about | {"commit": "0000000", "created": "2026-01-01", "notes": ["batch size 8"]}
    return speed(table, width=width)


def draw_evidence(width: Width) -> go.Figure:
    return evidence(weighed(), width=width)
