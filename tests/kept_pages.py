"""What is in a page that was kept: pictures, and what it would fetch from elsewhere."""

import re
from html.parser import HTMLParser


class _Tags(HTMLParser):
    """Tags alone: in a script (plotly's has addresses for maps that nobody drew) nothing is a tag."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("src", "srcset") if tag != "link" else ("href",):
            if (given.get(name) or "").startswith(("http:", "https:", "//")):
                self.found.append(f"{tag} {given[name]}")


def fetched(page: str) -> list[str]:
    """The tags of a page that load something over the network, "script https://..."."""
    tags = _Tags()
    tags.feed(page)
    return tags.found


def pictures(page: str) -> int:
    """How many figures a page draws; plotly's own script has the same call, of something that is no quoted name."""
    return len(re.findall(r'Plotly\.newPlot\(\s*"', page))
