"""How wide a text is in the font that will draw it: room is made for it before anything is drawn."""

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache

FAMILIES = "Helvetica, Arial, 'Liberation Sans', sans-serif"
# fonts whose letters are as wide as Helvetica's; others, such as DejaVu Sans and Verdana, are up to a fifth wider
ALIKE = {
    "Helvetica",
    "Helvetica Neue",
    "Arial",
    "Liberation Sans",
    "Arimo",
    "Nimbus Sans",
    "TeX Gyre Heros",
    "FreeSans",
}
WIDER = 1.2
TEXT = 8 * 96 / 72  # pixels: 8 pt
# how far each letter of Helvetica reaches, in units of the font's size; of others see `written`
_WIDTHS = {
    0.22: "ijl'|", 0.28: "ft !,./:;I[]\\", 0.34: "r()-`", 0.39: "*\"", 0.5: "cksvxyzJ^{}", 0.67: "ABEFKPSTVXYZ&",
    0.56: "abdeghnopqu_0123456789#$?L", 0.59: "+<=>~−", 0.72: "CDHNRUw", 0.78: "GOQ", 0.84: "mM%", 1.0: "W@…",
}  # fmt: skip
_ADVANCE = {letter: width for width, letters in _WIDTHS.items() for letter in letters}


@cache
def widening() -> float:
    """How much wider than Helvetica the font is that this machine has for `FAMILIES`; its browser draws PDF and PNG.

    Without fontconfig, as on macOS and Windows, Helvetica or Arial is there.
    """
    match = shutil.which("fc-match")
    if match is None:
        return 1.0
    try:
        asked = [match, "-f", "%{family}", FAMILIES.replace("'", "").replace(", ", ",")]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 1.0
    return 1.0 if not found or ALIKE & {name.strip() for name in found.split(",")} else WIDER


def written(text: str, size: float = TEXT) -> float:
    """About how many pixels a text takes in the font it is drawn in, tags and all markup aside."""
    bare = html.unescape(re.sub(r"<[^>]*>", "", text))
    return widening() * size * sum(_ADVANCE.get(letter, 0.6 if ord(letter) < 0x1100 else 1.0) for letter in bare)


def folded(text: str, across: float, size: float = TEXT) -> str:
    """A text with line breaks between words, so that no line takes more than `across` pixels unless one word does."""
    return "<br>".join(_lines(text, across, size))


def _lines(text: str, across: float, size: float) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and written(longer, size) > across:
            yield line
            longer = word
        line = longer
    yield line
