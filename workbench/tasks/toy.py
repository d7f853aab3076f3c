"""Texts whose entropy is known: a key of random letters, said once in each of several blocks.

    ABCabcdefghiABCabcdefghiABCabcdefghi        R = 3 blocks, K = 3 letters of A = 16, 12 places each

Entropy is K ln A nats (8.32). Who sees less than a block pays R K ln A (24.95), for the key cannot be remembered; in
between lies what thoughts are worth. No estimate of a text's cost may be below K ln A.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

from ..config import bounded
from . import Example, Made, Split, Task

DESCRIBED = True  # by its sizes: see `toy_of`
SIZES: dict[Split, int] = {"train": 20000, "dev": 1000, "test": 1000}


@dataclass(frozen=True)
class Toy:
    """R blocks, keys of K letters, an alphabet of A, blocks of `block` places."""

    R: int = 3
    K: int = 3
    A: int = 16
    block: int = 12

    def __post_init__(self) -> None:
        bounded(self, R=(1, 64), K=(1, 64), A=(2, 26), block=(1, 512))
        if not self.K <= self.block <= self.K + 26:
            raise ValueError(
                f"blocks of {self.block} places do not hold keys of {self.K} and fillers; give K to K + 26"
            )

    @property
    def entropy(self) -> float:
        """Nats of a text."""
        return self.K * math.log(self.A)

    @property
    def without(self) -> float:
        """Nats that it costs without memory of the block before."""
        return self.R * self.entropy

    def text(self, rng: random.Random) -> str:
        key = "".join(chr(65 + rng.randrange(self.A)) for _ in range(self.K))
        return self.R * (key + "".join(chr(97 + k) for k in range(self.block - self.K)))

    def keys(self, text: str) -> str:
        """The letters where keys stand in the blocks of a text."""
        return "".join(text[k * self.block : k * self.block + self.K] for k in range(self.R))


def toy_of(source: str | None) -> Toy:
    """That of "R=3,K=3,A=16,block=12", any of it left out."""
    given: dict[str, int] = {}
    known = [field.name for field in fields(Toy)]
    for part in filter(None, (source or "").split(",")):
        name, _, value = part.partition("=")
        if name not in known or not value.isdecimal():
            raise ValueError(f"toy texts are not described by {part[:40]!r}; give some of R=3,K=3,A=16,block=12")
        given[name] = int(value)
    return Toy(**given)


def examples(split: Split, toy: Toy) -> Iterator[Example]:
    """Endless texts; those of one split may stand in another by chance, as in any sample of few possible ones."""
    rng, number = random.Random(f"toy {split}"), 0
    while True:
        text = toy.text(rng)
        yield Example(f"toy-{split}-{number}", text, (), toy.keys(text), {})
        number += 1


def task(source: str | None = None) -> Task:
    """Texts of one kind; an answer is right when all its keys are."""
    toy = toy_of(source)
    return Task(
        name="toy",
        load=lambda split: Made(examples(split, toy), SIZES[split]),
        parse=lambda written: toy.keys(written) or None,
        same=lambda found, gold: found == gold,
        source=source,
        answer_tokens=toy.R * toy.block,
        texts=True,
    )
