"""The store: thoughts and answers of one method on one task, as a plain `xr.Dataset` in one netCDF file.

    thought(example, path, step, feature)   a question has several paths (thoughts), a path several steps (positions)
    correct(example, path, draw)            a path has several draws (answers)

Mixtures of words are written as such (`mixture_token`, `mixture_weight`, and the words' embeddings), not as vectors;
`load` gives `thought` all the same, made when it is used.

A thought stands before its path's answers, or within one of them: then `thought_draw` says in which, `thought_place`
behind how many of its tokens (see `within`). All of a path lie along `step`, those before its answers first, then
answer after answer; `mask` says where there is one, so that any path may have any number.

Everything after `collect` reads only this. Dimensions go by name, so their order never matters. `step` may have length
0 (a method without thoughts). `SCHEMA`, `VARIABLES`, `COORDINATES` and `ATTRIBUTES` are the written schema.

    schema   `SCHEMA`, `VARIABLES`, `COORDINATES`, `ATTRIBUTES`, and `check`
    disk     `save` and `load`: one file, or many part files read as they are used
    sealed   netCDF with a checksum behind it, verified before anything is read
    join     `concat` and `flatten`
    within   thoughts that stand within answers

Imports `files` alone, and no torch.
"""

from .disk import load, mixed, save, storable
from .join import concat, flatten
from .schema import (
    ATTRIBUTES,
    COMPONENT,
    COORDINATES,
    DIMENSIONS,
    DRAW,
    LABEL,
    RANK,
    SAME,
    SCHEMA,
    SIGNAL,
    STEP,
    VARIABLES,
    Kind,
    check,
)
from .sealed import writable

__all__ = [
    "ATTRIBUTES", "COMPONENT", "COORDINATES", "DIMENSIONS", "DRAW", "LABEL", "RANK", "SAME", "SCHEMA", "SIGNAL", "STEP",
    "VARIABLES", "Kind", "check", "concat", "flatten", "load", "mixed", "save", "storable", "writable",
]  # fmt: skip
