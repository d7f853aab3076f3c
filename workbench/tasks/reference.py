"""Answers as LTA-Thinker's published evaluation reads them (arXiv 2509.12875), to compare with published numbers.

ProsQA as Coconut's does (arXiv 2412.06769): what is behind the last `#`, or all there is, compared as a string.

Written from a description of its behaviour. What it gets wrong, on purpose kept:

* numbers (GSM8K): the last digits in the text, without their sign ("-5" -> 5, so the test set's gold answers -10 and -3
  can never be met) and with decimals rounded to two places ("1.005" -> 1.0); "5 apples of 7" -> 7;
* letters (AQuA, Date Understanding): the last letter a to f that stands alone, whatever its case or sense: "B) because
  it is a match" -> A, the article;
* yes or no (StrategyQA): the later of the last "yes" and the last "no", in any sense ("Yes, there is no snow" -> No);
* LaTeX (MATH): the last \\boxed{} (or, without one, the last number) is cleaned and compared as a string, so equal
  answers in another form differ ("x=4" and "4"), and matrices are mangled.

Predictions are read by `parse`; `same(prediction, gold)` cleans the gold answer as the reference cleans it.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from .answers import same_word
from .number import equal_numbers

# The substitutions and removals published with Minerva (Lewkowycz et al. 2022, appendix), in their order, and the
# reference's additions.
SUBSTITUTIONS = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"),
    (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}"), ("\\left", ""), ("\\le", "<"),
)  # fmt: skip
REMOVALS = (
    "square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue", "points",
    "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students",
    "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}",
    "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots", "\n", "\r", "\f",
)  # fmt: skip
UNWRAP = (
    r"\\text\{\((.*?)\)\}", r"\\text\{(.*?)\}", r"\\textbf\{(.*?)\}", r"\\overline\{(.*?)\}", r"\\boxed\{(.*)\}",
)  # fmt: skip
KEEP = (r"finalansweris(.*)", r"answer?is:?(.*)", r"oxed\{(.*?)\}", r"\$(.*?)\$")
INNER = r"(?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+"  # text with braces at most two levels deep
BOX = re.compile(rf"\\boxed\{{({INNER})\}}")
UNREADABLE = "(unreadable LaTeX)"  # the reference puts its error message in place of the answer


def number(completion: str) -> str | None:
    """The last run of digits, decimals rounded to two places; commas, % and $ are deleted first."""
    found = re.findall(r"\d+(?:\.\d+)?", re.sub("[,%$]", "", completion))
    if not found:
        return None
    return str(round(float(found[-1]), 2)) if "." in found[-1] else found[-1].lstrip("0") or "0"


def letter(completion: str) -> str | None:
    """The last letter a to f that stands alone."""
    found = re.findall(r"\b[a-f]\b", completion, re.IGNORECASE)
    return found[-1].upper() if found else None


def yes_or_no(completion: str) -> str | None:
    """The later of the last "yes" and the last "no"."""
    found = re.findall(r"\b(?:yes|no)\b", completion.lower())
    return found[-1].capitalize() if found else None


def latex(completion: str) -> str | None:
    """The last box, cleaned; without one the last number."""
    boxes = BOX.findall(completion)
    if boxes:
        return cleaned(boxes[-1])
    numbers = re.findall(r"-?\d*\.?\d+", completion.replace(",", ""))
    return numbers[-1] if numbers else None


def same_latex(prediction: str, gold: str) -> bool:
    """Whether a cleaned prediction is the cleaned gold answer (or another prediction), as strings."""
    return prediction in (gold, cleaned(gold))


def behind_hash(completion: str) -> str | None:
    """What is behind the last `#`, without commas; all of it where there is none."""
    return completion.rpartition("#")[2].replace(",", "").strip() or None


@lru_cache(maxsize=100_000)
def cleaned(answer: str) -> str:
    """A LaTeX answer as plain text without blanks, through the reference's chain of replacements."""
    for old, new in SUBSTITUTIONS:
        answer = answer.replace(old, new)
    for old in REMOVALS:
        answer = answer.replace(old, "")
    for pattern in UNWRAP:
        answer = re.sub(pattern, r"\1", answer)
    for pattern in KEEP:
        found = re.findall(pattern, answer)
        answer = found[-1] if found else answer
    answer = answer.strip()
    if "rac" in answer and "\\frac" not in answer:
        answer = answer.replace("rac", "\\frac")
    answer = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", answer)
    answer = re.sub(r"sqrt([^{])", r"sqrt{\1}", answer)
    answer = answer.replace("$", "")
    if answer.replace(",", "").isdigit():
        answer = answer.replace(",", "")
    return "".join(_plain(answer).split())


def _plain(answer: str) -> str:
    """LaTeX as plain text, by pylatexenc."""
    try:
        from pylatexenc.latex2text import LatexNodes2Text
    except ImportError as error:
        raise ValueError(
            "parse='reference' on MATH needs the package pylatexenc; pip install 'latent-workbench[hub]' and run again"
        ) from error
    try:
        return LatexNodes2Text().latex_to_text(answer)
    except Exception:  # its parser raises anything on odd input, and the reference goes on with a message as the answer
        return UNREADABLE


Reading = tuple[Callable[[str], str | None], Callable[[str, str], bool]]  # parse, same
READINGS: dict[str, Reading] = {
    "gsm8k": (number, equal_numbers),
    "gsm8k-socratic": (number, equal_numbers),
    "aqua": (letter, same_word),
    "date_understanding": (letter, same_word),
    "date_understanding-all": (letter, same_word),
    "strategyqa": (yes_or_no, same_word),
    "math500": (latex, same_latex),
    "prosqa": (behind_hash, str.__eq__),
}
