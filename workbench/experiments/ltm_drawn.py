"""The figures of the experiment about LTM, of whatever was measured."""

from typing import Any

import pandas as pd

from .. import figures
from ..tasks.toy import Toy, toy_of
from .report import asked, where

SHORT = "R=3,K=2,A=8,block=8"  # the short toy
HELD = "held"
DRAWN = 16  # steps from which on bounds are drawn: with fewer the floor is many times the rest
COUNTS_OF = {HELD: 4, "8 latents": 8}  # latent vectors of the arms that differ in nothing else


def drawn(table: pd.DataFrame, runs: pd.DataFrame, seeds: int) -> dict[str, Any]:
    """The figures, of what there is."""
    most = table["steps"].max()
    few = min(DRAWN, most)
    table, runs = (pd.DataFrame(rows[rows["steps"].isna() | (rows["steps"] >= few)]) for rows in (table, runs))
    toys = {name: toy_of(SHORT if name == "short" else None) for name in dict.fromkeys(table["toy"])}
    of = asked(seeds).replace("questions", "texts")
    long = _only(table, toy=["long"]), _only(runs, toy=["long"])
    steps = {"log_x": True, "x_title": "steps of the fast loop"}
    curves = ["bound by steps", "importance by steps", "KL by steps"]
    bounds, points = (_named(_only(rows, measure=curves)) for rows in long)
    found: dict[str, Any] = {
        "ltm_steps": figures.response(
            bounds, x="steps", color="measure", points=points, reference=_lines(toys["long"]),
            y_title="nats per text", of=of, **steps,
        )
    }  # fmt: skip
    scores = ["bound by steps", "shared noise by steps", "shared noise, scored fresh by steps"]
    noise, points = (_named(_only(rows, measure=scores, arm=[HELD])) for rows in (table, runs))
    found["ltm_shared_noise"] = figures.response(
        noise, x="steps", color="measure", facet="toy", points=points,
        reference={"entropy": {name: toy.entropy for name, toy in toys.items()}},
        y_title={name: f"nats per text ({name} toy)" for name in toys}, of=of, **steps,
    )  # fmt: skip
    for name, start, title in (("ltm_keys", "keys from ", "thoughts"), ("ltm_layers", "keys with ", "layers")):
        kinds = [measure for measure in dict.fromkeys(table["measure"]) if measure.startswith(start)]
        rows = _only(table, measure=kinds, arm=[HELD])
        found[name] = figures.bars(
            rows.assign(measure=[measure.removeprefix(start) for measure in rows["measure"]]), label="measure",
            color="toy", percent=True, x_title=f"letters of keys written again, by {title} (%)", of=of,
        )  # fmt: skip
    return found | (_short(table, runs, of, steps) if "short" in toys else {})


def _short(table: pd.DataFrame, runs: pd.DataFrame, of: str, steps: dict[str, Any]) -> dict[str, Any]:
    """Those of the arms."""
    toy, short = toy_of(SHORT), (_only(table, toy=["short"]), _only(runs, toy=["short"]))
    counts, points = (_counted(_only(rows, measure=["bound by steps"], arm=list(COUNTS_OF))) for rows in short)
    arms = _only(short[0], measure=["bound", "KL"]).dropna(subset=["mean"])
    free = _only(short[0], measure=["free distinct", "free same key"]).dropna(subset=["mean"])
    lines = {name: {"bound": value} for name, value in _lines(toy).items()}
    return {
        "ltm_latents": figures.response(
            counts, x="steps", color="latents", points=points, reference=_lines(toy),
            y_title="bound (nats per text)", of=of, **steps,
        ),
        "ltm_arms": figures.bars(
            arms, label="arm", facet="measure", columns=2, reference=lines,
            x_title={"bound": "bound (nats per text)", "KL": "KL (nats per text)"}, of=of,
        ),
        "ltm_free": figures.bars(
            free, label="arm", facet="measure", columns=2, percent=True,
            x_title={"free distinct": "keys of their own (%)", "free same key": "one key in all blocks (%)"},
            of="seeds",
        ),
    }  # fmt: skip


def _lines(toy: Toy) -> dict[str, float]:
    return {"entropy": toy.entropy, "without memory": toy.without}


def _only(table: pd.DataFrame, **chosen: list[str]) -> pd.DataFrame:
    """Rows with one of these values in each of the named columns."""
    for column, values in chosen.items():
        table = where(table, column, values)
    return table


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(measure=[name.removesuffix(" by steps") for name in table["measure"]])


def _counted(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(latents=[f"{COUNTS_OF[arm]} latents" for arm in table["arm"]])
