"""Controls of a run, trained on the same data at the same budget: what do its thoughts add to cheaper things?

    soft prompt       as many learned vectors as the method has thoughts, the same for every question
    plain, chain      the language model fine-tuned to write the worked steps, without thoughts
    plain, answer     the same without worked steps
    filler tokens     the same behind as many copies of a learned token as the method has thoughts

The last three only for methods that train the language model themselves. They are cells of a grid (`grid.py`): trained
by the one loop, side by side, gone on with where they were stopped, with the run's own settings, its optimiser and
learning rate among them. Only the soft prompt has ten times AdamW's rate, which constant vectors want.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from ..analysis.evidence import CONTROL, LEVEL, Evidence, table
from ..analysis.scores import mean_interval, paired_difference, per_example
from ..config import configured
from ..evidence.collect import collect
from ..methods import LatentMethod
from ..runs import read_config
from ..tasks import Split, load_task
from ..tasks.jsonl.layout import laid_out
from ..training.plan import TrainConfig
from .grid import Answers, Cell, Setting, run_cells, soft_prompt_training

PLAIN: dict[str, Any] = {"placement": "none", "test_thoughts": False}  # of lt-tuning: fine-tuning on the chain
LAST: dict[str, Any] = {"curriculum": False}  # of coconut: its last stage alone, which has no worked step


def arms(method: LatentMethod, thoughts: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Control -> the method that it is, and its options, for a method with so many thoughts."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    if thoughts:
        found["soft prompt"] = ("soft-prompt", {"thoughts": thoughts})
    if method.needs == "model" and method.backbone.trains:
        found["plain, chain"] = ("lt-tuning", PLAIN)
        found["plain, answer"] = ("coconut", LAST | {"feedback": "none", "marks": False})
        if thoughts:
            filler = {"feedback": "pause", "thoughts_per_step": thoughts, "max_stage": 1}
            found["filler tokens"] = ("coconut", LAST | filler)
    return found


def with_controls(
    found: Evidence, run: Path, method: LatentMethod, out: Path, split: Split, count: int | None, batch_size: int
) -> Evidence:
    """The evidence of a run with the right answers of its controls as further sources, paired by question.

    The controls are cells in the folder `out`. ValueError where the method's language model is none that others can
    train on (`LatentMethod.needs`), or the run answers another split than its controls would.
    """
    if method.needs != "model":
        raise ValueError(f"{method.name!r} brings a language model of its own, on which no control trains; leave them")
    about = read_config(run)
    training = configured(TrainConfig, about.get("training") or {})
    layout = laid_out(about.get("layout"))
    setting = Setting(
        backbone=method.backbone.name, revision=method.backbone.revision, task=about["task"], data=about.get("data"),
        prompts=about.get("prompts"), layout=layout, seeds=[training.seed], questions=count, training=training,
        batch_size=batch_size,
    )  # fmt: skip
    task = load_task(setting.task, setting.data, prompts=setting.prompts, layout=setting.layout)
    own = collect(method, task, task.examples(split, count), split=split, batch_size=batch_size)
    thoughts = int(own["mask"].sum("step").max()) if "thought_draw" not in own else 0
    cells = [
        Cell(
            name, training.seed, options, soft_prompt_training(setting) if name == "soft-prompt" else training,
            {"control": control}, {"test": Answers(split=split)},
        )
        for control, (name, options) in arms(method, thoughts).items()
    ]  # fmt: skip
    values, effects, right = [], [], per_example(own)
    for done in run_cells(setting, cells, out, Console()) if cells else []:
        other, control = per_example(done.store()), f"{CONTROL}{done.cell.condition['control']}"
        one, less = mean_interval(other, level=LEVEL), paired_difference(right, other, LEVEL)
        values.append((control, "free", one.mean, one.low, one.high, one.n))
        effects.append((control, "free", less.mean, less.low, less.high, less.n))
    return replace(
        found,
        values=pd.concat([found.values, table("values", values)], ignore_index=True),
        effects=pd.concat([found.effects, table("effects", effects)], ignore_index=True),
    )
