"""What a collection has come to so far, in a file beside the store it will be: whoever starts it again goes on there.

    record = length (8 bytes) | blake2b of the content (16 bytes) | content, a pair (key, value) as torch saves it

The first record says what is collected. Records are appended and are on the disk before work goes on; one that a kill
or a full disk cut off, or that was damaged since, is done again.
"""

import fcntl
import os
import struct
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ..backbone import Completion
from ..backbone.thoughts import Mixture
from ..methods import Thoughts

KINDS = [Thoughts, Mixture, Completion]  # what values are made of, beside plain ones and tensors
ABOUT = "about"


class Journal:
    """The records beside `store` (none are kept for None): `found` by key, `keep` adds one.

    about: what is collected. Raises ValueError where the file is of another collection or is being written by another
    process.
    """

    def __init__(self, store: Path | None, about: dict[str, str]):
        self.path = None if store is None else store.with_name(f"{store.name}.parts")
        self.found: dict[Any, Any] = {}
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b")  # noqa: SIM115  (closed by `__exit__`)
        except OSError as error:
            raise OSError(f"{self.path} cannot be written ({error.strerror}): give another --out") from error
        try:
            self._begin(about)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, about: dict[str, str]) -> None:
        self._lock()
        records, end = self._records()
        if not records and self._size() > end and self._whole_header():
            raise ValueError(f"{self.path} is damaged at its beginning: delete it, and what is collected begins anew")
        self._file.truncate(end)  # what was cut off
        if not records:
            self.keep(ABOUT, about)
            return
        self.found = dict(records)
        known = self.found.pop(ABOUT, {})
        other = next((name for name in about | known if about.get(name) != known.get(name)), None)
        if other is not None:
            was, now = (str(one.get(other, "nothing"))[-60:] for one in (known, about))
            raise ValueError(
                f"{self.path} holds the answers of another collection ({other}: {was}, now {now}): run that one again "
                "to go on with it, or delete the file to begin anew"
            )

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError as error:
            raise ValueError(
                f"{self.path} is being written by another process: wait until that ends, or give another --out"
            ) from error
        except OSError:
            pass  # a file system without locks

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _whole_header(self) -> bool:
        """Whether the first record is longer than what a kill while it was written leaves."""
        self._file.seek(0)
        head = self._file.read(24)
        return len(head) == 24 and struct.unpack("<Q", head[:8])[0] + 24 <= self._size()

    def _records(self) -> tuple[list[tuple[Any, Any]], int]:
        """The records that are sound, and where the last of them ends; none where the first is not."""
        found, place, end, size = [], 0, 0, self._size()
        while place + 24 <= size:
            self._file.seek(place)
            length, mark = struct.unpack("<Q16s", self._file.read(24))
            if place + 24 + length > size:
                break
            content = self._file.read(length)
            place += 24 + length
            if length and blake2b(content, digest_size=16).digest() == mark:
                found.append(self._value(content))
                end = place
            if not found:
                break
        return found, end

    def _value(self, content: bytes) -> tuple[Any, Any]:
        try:
            with torch.serialization.safe_globals(KINDS):
                key, value = torch.load(BytesIO(content), weights_only=True)
            return key, value
        except Exception as error:  # its bytes are right: another version of the classes wrote them
            raise ValueError(f"{self.path} is of another version of workbench: delete it to begin anew") from error

    def keep(self, key: Any, value: Any) -> None:
        """Add a record; OSError, one sentence, where there is no room for it."""
        if self.path is None:
            return
        made = BytesIO()
        torch.save((key, value), made)
        content = made.getvalue()
        try:
            self._file.write(struct.pack("<Q16s", len(content), blake2b(content, digest_size=16).digest()) + content)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({error.strerror}): what was answered before is kept there; make room "
                "and give the same command again to go on"
            ) from error
        if key != ABOUT:
            self.found[key] = value

    def remove(self) -> None:
        """Delete the file: its store is written."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None:
            if kind is not None and not self.found:  # nothing to go on from
                self.remove()
            try:
                self._file.close()  # may try again to write what a full disk refused
            except OSError:
                if kind is None:
                    raise
