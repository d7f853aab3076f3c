r"""The helper process of `equality`: reads lines of JSON [prediction, gold], writes true or false for each.

Run as a script, on its own: it imports nothing of ours. A formula is read whole, its decimals as fractions. What
math-verify finds equal may still differ by less than it looks at (1/2004! and 1/2006!): the difference must be zero.
"""

import json
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

MEMORY = 8 << 30  # bytes of address space; a number that needs more is no answer
COMPUTING = 1.0  # seconds of a processor for one comparison
ROUNDING = 1e-20  # of the larger one, where no proof is found either way
DECIMAL = re.compile(r"(?<![\d.,])(\d*)\.(\d+)(?![\d.,])")
PERCENT = re.compile(r"\s*\\?%\s*$")
NUMBERS = re.compile(r"\d\s+\d(?!\d*\s*/)")  # "2 3" would be read as the sum


def equal(prediction: str, gold: str) -> bool:
    """math-verify's opinion, checked; whatever goes wrong inside it is a no."""
    from math_verify import verify

    try:
        shares = [bool(PERCENT.search(text)) for text in (prediction, gold)]
        a, b = (_parsed(PERCENT.sub("", text)) for text in (prediction, gold))
        if verify(b, a, timeout_seconds=None) and _alike(a, b):
            return True
        if shares[0] == shares[1]:
            return False
        a, b = (value / 100 if share else value for value, share in zip((a, b), shares, strict=True))
        return bool(verify(b, a, timeout_seconds=None)) and _alike(a, b)
    except Exception:  # sympy and the parser raise anything on odd input, and the house rule is: failure = not equal
        return False


def _parsed(text: str) -> Any:
    """A formula as sympy's; ValueError where it has a part that is not understood."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy

    if NUMBERS.search(text):
        raise ValueError("two numbers side by side")
    text = DECIMAL.sub(lambda m: rf"{{\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}}}", text)
    settings = NormalizationConfig(malformed_operators=True, nits=True, boxed="none")
    return latex2sympy(text, is_real=not re.search("i|z", text), normalization_config=settings)


def _alike(a: Any, b: Any) -> bool:
    """Whether the numbers in two values that look equal are: each has its equal in the other value."""
    from latex2sympy2_extended.logic import And
    from sympy import Eq, Expr, simplify
    from sympy.core.relational import Relational

    sides: list[Any] = [side for value in (a, b) if isinstance(value, Relational) for side in value.args]
    if len(sides) == 4 and all(isinstance(side, Expr) for side in sides):
        one, other = ((left - right).doit() for left, right in (sides[:2], sides[2:]))
        return not simplify(one / other).free_symbols  # 2x = 4 and x = 2
    both: list[Any] = [a, b]
    if all(isinstance(value, And) for value in both):
        return all(map(_alike, both[0]._unsorted_args, both[1]._unsorted_args))
    a, b = (value.rhs if isinstance(value, Eq) else value for value in (a, b))
    ours, theirs = list(_parts(a)), list(_parts(b))
    return all(any(_same(x, y) for y in theirs) for x in ours) and all(any(_same(x, y) for x in ours) for y in theirs)


def _parts(value: Any) -> Iterator[Any]:
    """The formulas a set, a tuple, an interval or a matrix is made of."""
    from sympy import MatrixBase, Set, Tuple
    from sympy.logic.boolalg import Boolean

    if isinstance(value, MatrixBase):
        yield from value.doit().flat()
    elif isinstance(value, Set | Tuple):
        for part in value.args:
            yield from _parts(part)
    elif not isinstance(value, Boolean):
        yield value.doit()


def _same(a: Any, b: Any) -> bool:
    from sympy import Rational

    if a == b:
        return True
    difference, size = a - b, a
    names = sorted(difference.free_symbols | size.free_symbols, key=str)
    places = {name: Rational(3 + 2 * k, 7) for k, name in enumerate(names)}
    difference, size = difference.subs(places).doit(), size.subs(places)
    if difference.is_Rational:
        return difference == 0
    proof = difference.equals(0)
    return proof if proof is not None else abs(difference.n(30)) <= ROUNDING * abs(size.n(30))


def main() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import latex2sympy2_extended  # noqa: F401  (the slow parts, before the first question)
    import math_verify  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, COMPUTING)  # nobody listens: the signal ends the process, even in C
        said = equal(*json.loads(line))
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
