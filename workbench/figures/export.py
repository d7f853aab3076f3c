"""Figures as files, each with a sidecar that says what is drawn and where it came from, and that redraws it."""

import base64
import json
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import plotly.graph_objects as go

from ..files import checked, quoted, read_json, shown, whole
from ..runs import commit, versions
from .look import MILLIMETRES, PIXEL, key_title, template

Format = Literal["html", "png", "pdf", "svg"]
DPI = 300  # of PNG files for print
SCREEN = 1.4  # text on a screen is read from further away than on paper
_server = False  # whether kaleido's browser is up and waiting


def save(
    figure: go.Figure,
    name: str,
    folder: str | Path = "figures",
    source: Mapping[str, Any] | None = None,
    formats: Sequence[Format] = ("html", "png"),
    *,
    dpi: int = DPI,
) -> list[Path]:
    """Write `folder/name.<format>` and the sidecar `folder/name.json`; returns their paths, the sidecar last.

    source: where the numbers come from (store, run, commit), kept in the sidecar beside the figure's full JSON and the
    versions that drew it; dpi: dots per inch of PNG. HTML needs no network and fills its window; PNG, PDF and SVG have
    print size and need Chromium: without it one warning names what was skipped, and HTML is written instead. All files
    appear whole or not at all.
    """
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise ValueError(
            f"{quoted(name)} is no file name: use letters, digits, '-', '_' and '.', and `folder` for the place"
        )
    unknown = [found for found in formats if found not in get_args(Format)]
    if isinstance(formats, str) or unknown:
        raise ValueError(f"formats={quoted(formats)}: give a list with any of {', '.join(get_args(Format))}")
    content = _plain(json.loads(str(figure.to_json())))
    sidecar = {
        "name": name,
        "source": dict(source or {}),
        "commit": commit(),
        "versions": versions(),
        "figure": content,
    }
    printed: list[Format] = [found for found in formats if found != "html"]
    files: dict[str, bytes] = {**_printed(content, printed, dpi)} if printed else {}
    if "html" in formats or len(files) < len(printed):
        files = {"html": _page(figure, name).encode(), **files}
    # ensure_ascii=False: Greek stays readable; default=str: paths in source
    files["json"] = (
        json.dumps(sidecar, ensure_ascii=False, allow_nan=False, sort_keys=True, default=str) + "\n"
    ).encode()
    paths = [Path(folder) / f"{name}.{ending}" for ending in files]
    with ExitStack() as stack:  # every file is written before the first gets its name
        for temporary, data in zip([stack.enter_context(whole(path)) for path in paths], files.values(), strict=True):
            temporary.write_bytes(data)
    return paths


def redraw(sidecar: str | Path) -> go.Figure:
    """The figure a sidecar describes, equal to the one that was saved."""
    return redrawn(sidecar)[0]


def redrawn(sidecar: str | Path) -> tuple[go.Figure, dict[str, Any]]:
    """The figure a sidecar describes, and its source. FileNotFoundError or ValueError where it is no sidecar."""
    path, name = Path(sidecar), f"{shown(sidecar)!r}"
    if not path.is_file():
        raise FileNotFoundError(f"no sidecar at {name}: give the .json file that figures.save wrote")
    try:
        about = checked(read_json(path), {"figure": dict, "source": dict}, "it")
        content = checked(about["figure"], {"data": list, "layout": dict}, "its figure")
        figure = go.Figure(content)
        figure.to_json()  # what plotly takes it does not always write
        return figure, about["source"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # plotly raises any of these
        raise ValueError(f"{name} is no sidecar of a figure: give a .json file that figures.save wrote") from error


def _page(figure: go.Figure, name: str) -> str:
    """The figure as one HTML file that fills its window."""
    screen = go.Figure(_scaled(figure.to_plotly_json(), SCREEN))
    screen.update_layout(template=template(SCREEN), width=None, height=None)
    title = figure.layout.legend.title
    if title.side == "left":
        screen.update_layout(legend_title=key_title(re.sub("<[^>]*>", "", title.text), SCREEN))
    config = {"showSendToCloud": False, "displaylogo": False, "responsive": True}
    # without auto_play=False what has frames would start to move by itself
    page = screen.to_html(auto_play=False, include_plotlyjs=True, include_mathjax=False, config=config, div_id=name)
    return page.replace("<head>", "<head><style>body { margin: 0 }</style>", 1)  # else its lower edge is out of sight


def _scaled(value: Any, scale: float, inside: str = "") -> Any:
    """Figure JSON with the text sizes, margins and shifts of its own, which are in pixels, times `scale`.

    Those of the template are `template`'s to scale; lines and marks keep their size. inside: the key of `value`.
    """
    if isinstance(value, list | tuple):
        return [_scaled(inner, scale, inside) for inner in value] if value and isinstance(value[0], dict) else value
    if not isinstance(value, dict):
        return value
    found = {}
    for name, inner in value.items():
        pixels = inside in ("margin", "pad") or name == "yshift" or (name == "size" and inside.endswith("font"))
        if pixels:
            found[name] = scale * inner
        else:
            found[name] = inner if name in ("template", "marker", "line") else _scaled(inner, scale, name)
    return found


def _printed(content: dict[str, Any], formats: Sequence[Format], dpi: int) -> dict[Format, bytes]:
    """The figure in each format, or nothing and a warning where no browser starts."""
    from kaleido.errors import BrowserFailedError, ChromeNotFoundError

    try:
        return {found: _image(content, found, dpi) for found in formats}
    except (ChromeNotFoundError, BrowserFailedError) as error:
        reason = "was not found" if isinstance(error, ChromeNotFoundError) else "does not start"
        warnings.warn(
            f"{', '.join(formats)} skipped, because Chromium {reason}: install it (Debian: apt-get install chromium; "
            "elsewhere: kaleido_get_chrome) and save again; the HTML file and the sidecar are complete",
            stacklevel=3,
        )
        return {}


def _image(content: dict[str, Any], form: Format, dpi: int) -> bytes:
    """One image from kaleido's browser, which starts at the first call and stays for the next."""
    global _server
    import kaleido

    # paper has no hover, and its texts are most of a large figure
    content = content | {"data": [{k: v for k, v in trace.items() if k != "hovertext"} for trace in content["data"]]}
    layout = content["layout"]
    size = {
        "width": layout.get("width") or round(MILLIMETRES["page"] * PIXEL),
        "height": layout.get("height") or round(100 * PIXEL),
    }
    options = {"format": form, "scale": dpi / 96 if form == "png" else 1, **size}
    if _server:
        return _same(kaleido.calc_fig_sync(content, opts=options), form)
    # without mathjax=False the page waits for a script from the network
    page = kaleido.PageGenerator(mathjax=False)
    page.header += "<style>@page { margin: 0 } img { display: block }</style>"  # else a PDF loses its lower edge
    # a closing browser's last word, '{bye}', is logged as an error with a traceback; what fails here raises
    logging.getLogger("choreographer.channels.pipe").setLevel(logging.CRITICAL)
    image = kaleido.calc_fig_sync(content, opts=options, kopts={"page_generator": page})
    # only now that a browser is known to start: a server whose browser fails leaves its caller waiting for ever
    kaleido.start_sync_server(page_generator=page, silence_warnings=True)
    _server = True
    return _same(image, form)


def _same(image: bytes, form: Format) -> bytes:
    """The image without what differs from one drawing of the same figure to the next: names by chance, the time."""
    if form == "svg":
        chance = re.search(rb'id="(?:top)?defs-([0-9a-f]{6})"', image)
        image = image.replace(chance[1], b"000000") if chance else image
        traces = dict.fromkeys(re.findall(rb"\btrace[0-9a-f]{6}\b", image))  # as they first appear
        for k, name in enumerate(traces):
            image = image.replace(name, b"trace_%d" % k)
        return image
    if form == "pdf":  # as long as it was: its table of contents counts bytes
        return re.sub(rb"(/(?:Creation|Mod)Date \(D:)\d{14}", rb"\g<1>20000101000000", image)
    return image


def _plain(value: Any) -> Any:
    """Figure JSON with plotly's base64 arrays as lists of numbers, so that a sidecar can be read without plotly."""
    if isinstance(value, dict) and {"bdata", "dtype"} <= set(value):
        array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        if "shape" in value:
            array = array.reshape([int(n) for n in str(value["shape"]).split(",")])
        return _plain(array.tolist())
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
