"""What the commands do that only look at stores and runs: numbers, figures, a page, files for other programs.

None of them loads torch. What they need is loaded when they are called.
"""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace


def score(given: Namespace) -> None:
    import pandas as pd

    from .. import store
    from ..analysis.scores import accuracy_table, compare, cost

    stores = {str(path): store.load(path) for path in given.stores}
    spent = pd.DataFrame([{"store": name, **cost(found)} for name, found in stores.items()])
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(accuracy_table(stores).drop(columns=["unread", "unfinished", "length"]).to_string(index=False))
        print(
            "\ntokens, thoughts and seconds are per question, everything it needed; capped: stopped at the length cap"
        )
        print(spent.to_string(index=False))
        first, *others = stores
        for other in others:
            print(f"\n{first} minus {other}, on the examples both have:")
            try:
                print(compare(stores[first], stores[other]).to_string(index=False))
            except ValueError as error:  # two tasks, too few questions: the accuracies stand all the same
                print(f"no comparison: {error}")


def runs(given: Namespace) -> None:
    from . import listing

    listing.runs(given)


def figures(given: Namespace) -> None:
    from .. import figures, store
    from ..analysis.projection import project
    from ..analysis.scores import accuracy_table
    from ..runs import read_metrics

    if given.gallery:
        for path in figures.write_gallery(given.out, tuple(given.formats)):
            print(path)
        return
    sidecar, source = given["from"], {}
    if sidecar is not None:
        redrawn, source = figures.export.redrawn(sidecar)
        drawn = {sidecar.stem: redrawn}
    elif given.stores or given.runs:
        stores = {name: store.load(path) for name, path in _named(given.stores).items()}
        drawn = {}
        if stores:
            drawn["accuracy"] = figures.accuracy(accuracy_table(stores))
        thinking = {name: found for name, found in stores.items() if found.sizes["step"]}
        if thinking:
            facet = "store" if len(thinking) > 1 else None
            drawn["thoughts"] = figures.thought_map(project(thinking, given.how), color=given.color, facet=facet)
        if given.runs:
            metrics = {name: read_metrics(run) for name, run in _named(given.runs).items()}
            drawn |= {
                "losses": figures.loss_curves(metrics, window=given.window),
                "collapse": figures.collapse_by_step(metrics),
            }
    else:
        raise ValueError("nothing to draw; give stores (.nc), --runs folders, --from figure.json, or --gallery")
    if sidecar is None:  # redrawing changes nothing about where the numbers come from
        source = {"stores": [str(path) for path in given.stores], "runs": [str(run) for run in given.runs]}
    for name, figure in drawn.items():
        for path in figures.save(figure, name, given.out, source, tuple(given.formats)):
            print(path)


def report(given: Namespace) -> None:
    try:
        from ..widgets.report import report
    except ModuleNotFoundError as error:
        install = "pip install 'latent-workbench[notebook]'"
        raise ValueError(f"a report needs {error.name}, as notebooks do: {install}") from error

    stores = _named(given.stores)
    path = report(given.run, given.out, stores=stores, question=given.question, color=given.color)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens without a network")


def export(given: Namespace) -> None:
    from .. import store
    from ..analysis import exports
    from ..analysis.projection import project

    stores = {name: store.load(path) for name, path in _named(given.stores).items()}
    if given.what == "tsv":
        paths = exports.write_projector(stores, given.out)
    elif given.what == "parquet":
        paths = [exports.write_parquet(project(stores, given.how), given.out / "thoughts.parquet")]
    else:
        paths = [exports.write_csv(project(stores, given.how), given.out / "thoughts.csv")]
    for path in paths:
        print(path)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Paths by what tells them apart: as few of their last parts as do, without .nc; a path given twice stands once."""
    tails = {path: [*path.absolute().parts[:-1], path.name.removesuffix(".nc")] for path in dict.fromkeys(paths)}
    found: dict[str, Path] = {}
    for path, parts in tails.items():
        others = [other for same, other in tails.items() if same != path]
        few = next((k for k in range(1, len(parts)) if all(other[-k:] != parts[-k:] for other in others)), len(parts))
        found["/".join(parts[-few:])] = path
    return found
