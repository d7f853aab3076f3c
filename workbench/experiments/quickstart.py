"""The five-minute proof: do thoughts help the shipped backbone with words it has never read?

Three arms on the shift domain: the empty slot, a soft prompt, LTA-Thinker; the last one also with every question's
thoughts given to another question, and on the base domain. Both trained arms see the same examples equally often, and
the learning rate of each is the best of three on the dev split. Nothing is chosen on the test split here.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console
from rich.table import Table

from .. import figures
from ..analysis.diagnostics import STATES, describe
from ..analysis.projection import project
from ..analysis.scores import accuracy, accuracy_table, compare
from ..files import read_json, write_json
from ..places import EXAMPLE, INSTALLED, QUICKSTART
from ..runs import command, discard, provenance, read_metrics
from ..training.loop import TrainConfig
from .grid import Answers, Cell, Done, Setting, run_cells


@dataclass(frozen=True)
class Arm:
    """One method of the comparison, how it is trained (None: not at all) and what is answered with it."""

    method: str
    training: TrainConfig | None
    stores: dict[str, Answers]


SHIFT, KNOWN, SHUFFLED = Answers(), Answers(task="arith"), Answers(change="shuffled")
READ = Answers(readout=5)  # with what each thought is read as, which notebooks show
ARMS = {
    "none": Arm("cot", None, {"shift": SHIFT, "in_domain": KNOWN}),
    "soft_prompt": Arm("soft-prompt", TrainConfig(adamw_lr=0.02), {"shift": SHIFT}),  # of 0.002, 0.02, 0.1
    "lta_thinker": Arm(  # of 0.01, 0.02, 0.05
        "lta-thinker",
        TrainConfig(lr=0.02, snapshot_every=126),  # before, after a third, two thirds and all of its steps
        {"shift": READ, "in_domain": KNOWN, "shuffled": SHUFFLED},
    ),
}
TITLES = {  # of arm and store
    ("none", "shift"): "empty slot",
    ("soft_prompt", "shift"): "soft prompt",
    ("lta_thinker", "shift"): "LTA-Thinker",
    ("lta_thinker", "shuffled"): "LTA-Thinker, another question's thoughts",
    ("none", "in_domain"): "empty slot, known words",
    ("lta_thinker", "in_domain"): "LTA-Thinker, known words",
}
SHOWN = ("relative_spread", "effective_rank", "cosine", "slot_cosine", "norm_ratio", "verdict")


@dataclass(frozen=True)
class Made:
    """What a quickstart leaves: the folder of LTA-Thinker's run, and stores of test questions by what was thought."""

    run: Path
    stores: dict[str, Path]
    yours: bool


def quickstart_made(folder: str | Path | None = None) -> Made:
    """The quickstart in `folder`: by default yours (data/quickstart) where there is one, else the shipped one.

    One of before there were snapshots and read-outs counts as none. ValueError where `folder` is given and holds none.
    """
    for place in (QUICKSTART, EXAMPLE) if folder is None else (Path(folder),):
        if not (place / "result.json").is_file():
            continue
        seed = read_json(place / "result.json", "the quickstart's own")["seed"]
        run, empty = (place / "cells" / f"{name}_seed{seed}" for name in ("lta_thinker", "none"))
        if (run / "snapshots").is_dir():
            files = {
                "empty slot": empty / "shift.nc",
                "own thoughts": run / "shift.nc",
                "another question's thoughts": run / "shuffled.nc",
            }
            return Made(run, files, place != EXAMPLE)
    raise ValueError(f"no finished quickstart in {folder or QUICKSTART}: run `workbench quickstart` first")


def quickstart(
    out: str | Path, *, seed: int = 0, backbone: str = "nano", questions: int = 1000, arms: Mapping[str, Arm] = ARMS
) -> dict[str, Any]:
    """Run all arms on `questions` test questions, print the table, write DIR/result.json, the stores and four figures.

    Started again after an interruption it goes on; after a finished run it starts over.
    """
    out, started, console = Path(out), time.time(), Console()
    if (out / "result.json").exists():
        discard(out / "cells")
        (out / "result.json").unlink()
    setting = Setting(backbone=backbone, task="arith-shift", seeds=[seed], questions=questions)
    cells = [Cell(arm.method, seed, {}, arm.training, {"arm": name}, arm.stores) for name, arm in arms.items()]
    done = {str(d.cell.condition["arm"]): d for d in run_cells(setting, cells, out, console)}
    stores = {_name(arm, store): done[arm].store(store) for arm, store in TITLES}
    result: dict[str, Any] = {
        "accuracy": {name: asdict(accuracy(found)) for name, found in stores.items()},
        "against_none": _row(compare(stores["lta_thinker"], stores["none"])),
        "against_soft_prompt": _row(compare(stores["lta_thinker"], stores["soft_prompt"])),
        "diagnostics": {name: _look(stores[name]) for name in ("soft_prompt", "lta_thinker")},
        "seed": seed,
    }
    drawn = _draw(out, done, stores)
    result |= {"seconds": round(time.time() - started, 1), **provenance()}
    write_json(out / "result.json", result)
    _print(console, result)
    console.print(f"Results: {out / 'result.json'}, stores in {out / 'cells'}, figures:")
    for path in drawn:
        console.print(f"  {path}")
    found = str(done["lta_thinker"].folder / "shift.nc")
    notebook = f"wb.widgets.Inspector(wb.store.load({found!r})) in a notebook"  # an installed wheel has none of ours
    where = notebook if INSTALLED else "`make lab` and open notebooks/00_tour.ipynb, which opens this run,"
    console.print(f"Next: {where} to look at these thoughts by hand.", markup=False, soft_wrap=True)
    page = command("report", done["lta_thinker"].folder, "--color", "label_meaning")
    console.print(f"Or: `{page}` for one page to read and to send.", markup=False, soft_wrap=True)
    return result


def _name(arm: str, store: str) -> str:
    """How result.json calls a store: the arm, and what is not the shift domain."""
    return arm if store == "shift" else f"{arm}_{store}"


def _look(found: xr.Dataset) -> dict[str, Any]:
    """The statistics the table shows, over all steps."""
    table = describe(found)
    table = table[(table["step"] == "all") & table["statistic"].isin(SHOWN)].set_index("statistic")
    return dict(zip(table.index.tolist(), table["value"].tolist(), strict=True))


def _row(table: Any) -> dict[str, Any]:
    return {str(name): value for name, value in table.iloc[0].to_dict().items()}


def _draw(out: Path, done: Mapping[str, Done], stores: dict[str, xr.Dataset]) -> list[Path]:
    titles = {_name(*key): title for key, title in TITLES.items()}
    runs = [done[name].folder for name in ("soft_prompt", "lta_thinker")]
    metrics = {titles[name]: read_metrics(done[name].folder) for name in ("soft_prompt", "lta_thinker")}
    table = accuracy_table({titles[name]: found for name, found in stores.items()})
    made = {
        "quickstart_accuracy": figures.accuracy(table),
        "quickstart_thoughts": figures.thought_map(project(stores["lta_thinker"]), color="label_meaning", facet="step"),
        "quickstart_losses": figures.loss_curves(metrics, window=20),
        "quickstart_collapse": figures.collapse_by_step(metrics),
    }
    source = {
        "stores": [str(done[arm].folder / f"{store}.nc") for arm, store in TITLES],
        "runs": [str(run) for run in runs],
    }
    return [path for name, figure in made.items() for path in figures.save(figure, name, out / "figures", source)]


def _print(console: Console, result: dict[str, Any]) -> None:
    titles = {_name(*key): title for key, title in TITLES.items()}
    table = Table(title=f"Shift domain: new words, frozen backbone (seed {result['seed']})")
    for column in ("slot", "right %", "95 % interval", "n"):
        table.add_column(column, justify="left" if column == "slot" else "right")
    for name, row in result["accuracy"].items():
        interval = f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        table.add_row(titles[name], f"{100 * row['mean']:.1f}", interval.replace("[", "\\["), str(row["n"]))
    console.print(table)
    for other in ("none", "soft_prompt"):
        row = result[f"against_{other}"]
        console.print(
            f"LTA-Thinker minus {titles[other]}: {100 * row['difference']:+.1f} points "
            f"\\[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}], p = {row['p']:.2g} (paired, n = {row['n']})"
        )
    look = Table(title="Thoughts")
    look.add_column("statistic")
    names = list(result["diagnostics"])
    for name in names:
        look.add_column(titles[name], justify="right")
    for statistic in SHOWN:
        values = [result["diagnostics"][name][statistic] for name in names]
        if statistic == "verdict":
            look.add_row(statistic, *(STATES[int(value)] for value in values))
        else:
            look.add_row(statistic, *(f"{value:.3g}" for value in values))
    console.print(look)
    console.print(f"{result['seconds']:.0f} seconds")
