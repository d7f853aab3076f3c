"""jupyter-scatter's browser part, which hears the kernel however late it is loaded, and is sent to a page once."""

import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jscatter
import pandas as pd
from jscatter import jscatter as home
from jscatter.widget import JupyterScatter

from .hearing import Hearing, module


def _bundle() -> str:
    return (Path(jscatter.__file__).parent / "bundle.js").read_text(encoding="utf-8")


class Live(Hearing, JupyterScatter):  # pyright: ignore[reportIncompatibleMethodOverride]
    """jupyter-scatter's widget without its module, which `scatter.js` asks for."""

    _esm = module("scatter.js")
    library = ("jupyter-scatter", _bundle)


def live(points: pd.DataFrame, height: int) -> Any:
    """The widget of a map. jupyter-scatter's Python part only makes it: that cannot change colours with their data."""
    with warnings.catch_warnings(), patch.object(home, "JupyterScatter", Live):  # it gives no other way to choose
        warnings.simplefilter("ignore", DeprecationWarning)  # about pandas calls of its own
        made = home.Scatter(
            data=pd.DataFrame({"x": points["x"], "y": points["y"], "tone": ""}),
            x="x",
            y="y",
            color_by="tone",  # categories, of which `Points` says which
            color_map=["#8c8c8c"],
            opacity=0.8,
            opacity_by=None,
            opacity_unselected=0.7,  # of grey, see `Points`: faint colours that coincide would look chosen
            size=6 if len(points) <= 2000 else 4 if len(points) <= 20_000 else 2,
            height=height,
            mouse_mode="lasso",
            axes=False,
            reticle=False,
        ).widget
    made.toolbar_buttons = ["pan_zoom", "lasso", "full_screen", "download", "reset"]
    return made
