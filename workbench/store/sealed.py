"""Stores as files: netCDF with a seal behind it, so that a damaged one is named before anything is read out of it.

    file = what HDF5 wrote | b"\\nworkbench-seal-1 " blake2b of what HDF5 wrote, 64 hex digits | b"\\n"

HDF5 ends where its own header says, so every reader of netCDF opens a sealed file. Its bindings crash where a disk is
full and may hang where bytes are damaged: a file is made in memory, and no byte of it is read before the seal is.
"""

import glob
import os
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import H5NetCDFStore

from ..files import visible, whole

SEAL = b"\nworkbench-seal-1 "
_LENGTH = len(SEAL) + 65
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BLOCK = 2**22  # bytes that are hashed at a time
_END = {0: 40, 1: 44, 2: 28, 3: 28}  # where each version of HDF5's header says where the file ends


def writable(path: str | Path) -> Path:
    """The path, if a store can be written there: asked before hours of work, not after them.

    Raises ValueError for a name that is no store's or is a folder's, and OSError where nothing can be written.
    """
    path = Path(path)
    if path.suffix != ".nc" or path.name.startswith("."):
        shown = str(path) if len(str(path)) < 100 else f"...{str(path)[-97:]}"
        raise ValueError(f"store path {shown!r} does not end in '.nc' or is hidden: give a name like 'answers.nc'")
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder: name a file, such as {str(path / 'answers.nc')!r}")
    try:
        if path.parent.is_dir():
            trial = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # the name that `whole` gives
            trial.touch()
            trial.unlink()
        else:
            there = next(folder for folder in path.absolute().parents if folder.exists())
            if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(0, f"nothing can be made in {there}")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise refused(path, error) from error
    return path


def refused(path: str | Path, error: Exception) -> OSError:
    """One sentence for a file that could not be written."""
    shown = str(path) if len(str(path)) < 100 else f"...{str(path)[-97:]}"
    cause = error.__cause__ or error  # `whole` has a sentence of its own
    why = (getattr(cause, "strerror", None) or str(cause))[:100]
    return OSError(f"{shown!r} cannot be written ({why}): make room or give a folder to write in, and try again")


def write(dataset: xr.Dataset, encoding: Mapping[str, Any], path: Path) -> None:
    """Write a sealed file, whole or not at all; while it is written it takes its own size of memory."""
    with warnings.catch_warnings():  # labels with a space in their names are no coordinates in a file: `load` knows
        warnings.filterwarnings("ignore", "coordinate .* has a space in its name", xr.SerializationWarning)
        content = memoryview(dataset.to_netcdf(engine="h5netcdf", encoding=dict(encoding)))
    try:
        with whole(path) as partial, open(partial, "wb") as file:
            file.write(content)
            file.write(SEAL + blake2b(content, digest_size=32).hexdigest().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise refused(path, error) from error


def part_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a folder, a glob or a list means; hidden ones are other programs' (macOS writes `._name.nc`)."""
    if not isinstance(path, str | Path):
        files = [Path(part) for part in path]
    elif Path(path).is_dir():
        files = visible(path, "*.nc")
    else:
        files = sorted(Path(found) for found in glob.glob(str(path)) if not Path(found).name.startswith("."))
    if not files:
        raise FileNotFoundError(f"no store in {str(path)!r}: give a .nc file, a folder or glob of such, or a list")
    return files


def read(path: Path, *, lazy: Iterable[str] = ()) -> xr.Dataset:
    """A file's variables in memory, but for those in `lazy`, as objects where they are text: in arrays of fixed width
    every text would take as much as the longest. Raises FileNotFoundError or ValueError with one sentence."""
    if not path.is_file():
        raise FileNotFoundError(f"no store at {str(path)!r}: check the path, or make one with `workbench collect`")
    broken = _damage(path)
    if broken:
        raise ValueError(f"{str(path)!r} {broken}: collect again, or take it from a backup")
    lazy = tuple(lazy)
    try:
        source = H5NetCDFStore.open(path)
        try:
            variables, attrs = source.load()
            for variable in variables.values():
                if variable.encoding.get("dtype") is str:  # decoding would make it an array of fixed width
                    del variable.encoding["dtype"]
            dataset = xr.decode_cf(xr.Dataset(variables, attrs=attrs))
            return dataset.assign({name: dataset[name].load() for name in dataset.variables if name not in lazy})
        finally:
            if not lazy:
                source.close()
    except Exception as error:  # whatever HDF5, its bindings or xarray make of bytes that no seal vouches for
        why = " ".join(str(error).split())[:100]
        raise ValueError(
            f"{str(path)!r} is damaged or no netCDF file ({why}): give a store, or collect again"
        ) from error


def _damage(path: Path) -> str:
    """What is wrong with a file's bytes, "" where nothing is; files of other programs, and old ones, have no seal."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(64)
        if not head.startswith(_SIGNATURE):
            return "is no netCDF file (or its beginning is damaged)"
        file.seek(max(0, size - _LENGTH))
        seal = file.read(_LENGTH)
        if seal.startswith(SEAL):
            file.seek(0)
            digest, left = blake2b(digest_size=32), size - _LENGTH
            while left and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
            same = seal == SEAL + digest.hexdigest().encode() + b"\n"
            return "" if same else "is damaged (its checksum is another than when it was written)"
    version = head[8] if len(head) == 64 else -1
    end = struct.unpack_from("<Q", head, _END[version])[0] if version in _END else -1
    if size < end or end < 0:
        return "is damaged (its end is missing)"
    return "" if size == end else "is damaged (its checksum is unreadable)"
