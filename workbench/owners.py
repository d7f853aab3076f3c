"""Who trains in a run's folder: one process at a time, which others can find, wait for and stop.

process.json says who. Its owner also holds a lock on it (flock), which the system lets go of when the process ends,
however it ends: nobody has to clean up behind a crash. Two threads of one process exclude each other as well.
"""

import errno
import fcntl
import json
import os
import platform
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from .files import written

NAME = "process.json"
LENGTH = 256  # of the file at least: as long as it was before, one write leaves nothing half-read
PATIENCE = 4  # tries to lock it
LOCKLESS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # what some networks' disks say


class Owner:
    """A claim on a folder, as long as the file that was locked is the one that lies there.

    `begun` is for the owner to set: until then nothing has happened that process.json would have to tell.
    """

    def __init__(self, folder: Path, descriptor: int):
        self.folder, self.begun, self._descriptor = folder, False, descriptor

    def lost(self) -> bool:
        """Whether the folder has been removed or moved, or removed and made again by somebody else."""
        return not _same_file(self._descriptor, self.folder / NAME)


@contextmanager
def owned(folder: str | Path) -> Iterator[Owner]:
    """Train in `folder` alone; ValueError, who it belongs to, where somebody else does. Where nothing comes of it, the
    folder is as it was before."""
    folder = Path(folder)
    made = not folder.exists()
    with written(folder / NAME):
        descriptor = _locked(folder)
    try:
        refuse(folder, but=os.getpid())  # one that has been started and is about to claim it
        before, about, how = _read(folder), _about(os.getpid()), "failed"
        if before is not None and "ended" not in before and before["machine"] != platform.node():
            print(
                f"process {before['pid']} on {before['machine']} trained in {folder} and has not said that it ended: "
                "if it goes on there, stop this one",
                flush=True,
            )
        with written(folder / NAME):
            _write(descriptor, about)
        owner = Owner(folder, descriptor)
        try:
            yield owner
            how = "finished"
        except KeyboardInterrupt:
            how = "stopped"
            raise
        finally:
            if not owner.lost():
                _leave(folder, descriptor, about | {"ended": how} if owner.begun else before, made)
    finally:
        os.close(descriptor)  # and the lock is gone


def refuse(folder: str | Path, but: int | None = None) -> None:
    """ValueError, one sentence, where a living process trains in `folder`; `but`: one that may."""
    pid = running(folder)
    if pid is not None and pid != but:
        raise ValueError(_taken(Path(folder)))


def note_process(folder: str | Path, pid: int) -> None:
    """Write down which process trains in `folder`, for `running` and `stop_training`."""
    path = Path(folder) / NAME
    with written(path):  # in place: a renamed file would be another than the one that is locked
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _write(descriptor, _about(pid))
        finally:
            os.close(descriptor)


def running(folder: str | Path) -> int | None:
    """The id of the process that trains in `folder`, None where it has ended.

    It is found by its id and the time it began, so also from another notebook or after a kernel's restart; a run on
    another machine is not seen.
    """
    about = _read(folder)
    if about is None or "ended" in about or about["machine"] != platform.node():
        return None
    try:
        process = psutil.Process(about["pid"])
        same = abs(process.create_time() - about["began"]) < 1
        return process.pid if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def ended(folder: str | Path) -> str | None:
    """How the last training in `folder` ended, as it says itself: finished, stopped or failed; None: nothing said."""
    return (_read(folder) or {}).get("ended")


def elsewhere(folder: str | Path) -> bool:
    """Whether a process of another machine trains in `folder`: it has not said that it ended, and holds the lock."""
    about = _read(folder)
    if about is None or "ended" in about or about["machine"] == platform.node():
        return False
    descriptor = os.open(Path(folder) / NAME, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # locked, or on a disk where one cannot know
        return True
    finally:
        os.close(descriptor)
    return False


def stop_training(folder: str | Path) -> bool:
    """Ask the process that trains in `folder` to finish its step, save and end; False where none does."""
    pid = running(folder)
    if pid is not None:
        os.kill(pid, signal.SIGINT)
    return pid is not None


def discard(folder: str | Path) -> None:
    """Remove a run's folder, or one with runs in it, to begin anew; what still trains there is ended first.

    ValueError where that is this very process, or one on another machine.
    """
    folder = Path(folder)
    places = sorted(path.parent for path in folder.rglob(NAME))
    for place in places:
        if running(place) == os.getpid() or elsewhere(place):
            raise ValueError(f"{_taken(place)}; it is not removed")
    for place in places:
        pid = running(place)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)  # what it would still save is to be removed
        while running(place) is not None:
            time.sleep(0.01)
    if folder.exists():
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------------ the file


def _about(pid: int) -> dict[str, Any]:
    return {"pid": pid, "began": psutil.Process(pid).create_time(), "machine": platform.node()}


def _read(folder: str | Path) -> dict[str, Any] | None:
    """What process.json says; None where there is none, or none that was written here."""
    try:
        about = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"pid": int, "began": int | float, "machine": str}
    sound = isinstance(about, dict) and all(isinstance(about.get(name), kind) for name, kind in kinds.items())
    return about if sound and 0 < about["pid"] < 2**31 else None


def _write(descriptor: int, about: dict[str, Any]) -> None:
    data = json.dumps(about).ljust(LENGTH - 1).encode() + b"\n"
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))


def _locked(folder: Path) -> int:
    """A descriptor of the folder's process.json, which is made where there is none; locked by us."""
    folder.mkdir(parents=True, exist_ok=True)
    tries = 0
    while True:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            tries += 1
            if tries < PATIENCE:  # somebody may only be looking
                time.sleep(0.05)
                continue
            raise ValueError(_taken(folder)) from error
        except OSError as error:
            if error.errno not in LOCKLESS:
                os.close(descriptor)
                raise
            print(f"{folder} lies where files cannot be locked: see to it that nothing else trains in it", flush=True)
        if _same_file(descriptor, folder / NAME):
            return descriptor
        os.close(descriptor)  # its owner has removed it between the two


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _leave(folder: Path, descriptor: int, about: dict[str, Any] | None, made: bool) -> None:
    """Say how it ended, or None: as if it had not been."""
    if about is not None:
        with suppress(
            OSError
        ):  # a full disk, of which has been told; that the process is gone, others see all the same
            _write(descriptor, about)
        return
    (folder / NAME).unlink()
    if made:
        with suppress(OSError):
            folder.rmdir()


def _taken(folder: Path) -> str:
    about = _read(folder)
    if about is None:
        return f"another process trains in {folder}; let it end, or give another folder"
    if about["machine"] != platform.node():
        return f"process {about['pid']} on {about['machine']} trains in {folder}; let it end, or give another folder"
    since = datetime.fromtimestamp(about["began"]).strftime("%H:%M")
    return (
        f"process {about['pid']}, begun at {since}, trains in {folder}; let it end, stop it "
        f"(`kill -INT {about['pid']}`, or workbench.runs.stop_training), or give another folder"
    )
