"""Reading a canonical answer out of a completion. Numbers are compared as numbers, never as strings."""

import re
from fractions import Fraction

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
MARK = re.compile(r"####\s*")


def last_number(completion: str) -> str | None:
    """The number after the last `####`, else the last number; without thousands commas; None when there is none.

    "1,234.50" -> "1234.50", "#### -10" -> "-10", "cost $5." -> "5", "5-3" -> "3" (a minus between numbers is no sign).
    """
    text = MARK.split(completion)[-1]
    found = [m for m in NUMBER.finditer(text)] or [m for m in NUMBER.finditer(completion)]
    if not found:
        return None
    match = found[0] if text != completion and text.strip() else found[-1]
    number = match.group()
    if number.startswith("-") and match.start() > 0 and match.string[match.start() - 1].isalnum():
        number = number[1:]
    return number.replace(",", "")


def equal_numbers(a: str, b: str) -> bool:
    """Whether two numbers are equal in value ("3.50" and "3.5"); exact, no rounding."""
    try:
        return Fraction(a) == Fraction(b)
    except (ValueError, ZeroDivisionError):
        return a.strip() == b.strip()
