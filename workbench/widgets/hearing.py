"""What every widget of ours with a module in the page has: it hears the kernel, however late the module was loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets as tr

FRONT = Path(__file__).parent


def module(name: str) -> str:
    """The text of a module, behind what all of them begin with."""
    return "\n".join((FRONT / part).read_text(encoding="utf-8") for part in ("hearing.js", name))


class Hearing(anywidget.AnyWidget):
    """A widget that its page cannot leave deaf.

    anywidget drops whatever the kernel says to a widget whose module took over two seconds to load, as on a busy
    machine. Each page that has loaded ours adds one to `heard`, and is then sent again what has changed since the
    widget was made. `library`: its name, and what returns the text of a script too large to be sent with each widget.
    `brought`: that script, of a widget that is shown while its cell keeps the kernel from being asked for it.
    """

    library: ClassVar[tuple[str, Callable[[], str]] | None] = None
    heard = tr.Int(0).tag(sync=True)
    brought = tr.Bytes(b"").tag(sync=True)

    def __init__(self, *given: Any, **named: Any) -> None:
        self._changed: set[str] = set()
        super().__init__(*given, **named)
        self.observe(self._tell, "heard")

    def _tell(self, change: Any) -> None:
        if self._changed:
            self.send_state(set(self._changed))

    def send_state(self, key: Any = None) -> None:
        if self.comm is not None and key is not None:  # the page knows what it was made with
            self._changed.update({key} if isinstance(key, str) else key)
        super().send_state(key)

    def _handle_custom_msg(self, content: Any, buffers: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(content, dict) and content.get("type") == "library" and self.library is not None:
            name, text = self.library
            self.send({"library": name}, [text().encode()])
        else:
            super()._handle_custom_msg(content, buffers)
