"""Reading a canonical answer out of a completion: a number, an option's letter, yes or no, a piece of LaTeX.

The answer is what stands behind the last `####`; without that mark, what is in the last \\boxed{} or said to be the
answer; failing that, the little that can be read safely. What is ambiguous is None, never a guess: a letter inside a
sentence is an article ("because it is a match"), a "no" before a noun is no answer. Numbers are compared as numbers.
"""

import re
from fractions import Fraction

NUMBER = re.compile(r"(?:-\$?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?:-\$?)?\.\d+")
MARK = re.compile(r"####\s*")
WRAPPING = re.compile(r"\\(?:boxed|fbox|text\w*|math(?:rm|bf|sf|it))\s*(?=\{)|\\[()\[\]]|[$*_`{}]")
BRACES = re.compile(r"\\(?:boxed|fbox)\s*(\{)|\\boxed\s+([^\s{}$,;]*[^\s{}$,;.])|\\.|([{}])", re.DOTALL)
YES_OR_NO = re.compile(r"\b(yes|no)\b(?!\.\s*\d)(?=\W*$|\s*[.,;:!)])", re.IGNORECASE | re.MULTILINE)
# Possessive (*+): what a model repeats a thousand times must not be tried in all ways.
LEAD = r"(?i:(?:\W+|(?:the|correct|final|right|answer|option|choice|is)\b)*+)"
ANSWER_IS = r"(?i:\b(?:answer|ans)\b(?:\s++(?:is|would\s++be|should\s++be|must\s++be)\b)?\s*+[:=–-]?\s*+)"
BEFORE_ANSWER = re.compile(r"(?i)(?:the\s+)?(?:(?:correct|final)\s+)?answer\b(?:\s+is\b)?\s*:?\s*")
WORDS = {"yes": "Yes", "no": "No", "true": "Yes", "false": "No"}


def last_number(completion: str) -> str | None:
    """The number after the last `####`, else the last number; without thousands commas; None when there is none.

    "1,234.50" -> "1234.50", "#### -10" -> "-10", "-$5" -> "-5", "cost $5." -> "5", "1,2,3" -> "3",
    "5-3" -> "3" (a minus between numbers is no sign).
    """
    completion = completion.replace("{,}", ",").replace(",\\!", ",").replace("−", "-")
    text = MARK.split(completion)[-1]
    found = [m for m in NUMBER.finditer(text)] or [m for m in NUMBER.finditer(completion)]
    if not found:
        return None
    match = found[0] if text != completion and text.strip() else found[-1]
    number = match.group()
    before = match.string[match.start() - 1] if match.start() else ""
    if number.startswith("-") and (before.isalnum() or before == ")"):
        number = number[1:]
    return number.replace(",", "").replace("$", "")


def equal_numbers(a: str, b: str) -> bool:
    """Whether two numbers are equal in value ("3.50" and "3.5"); exact, no rounding."""
    try:
        return Fraction(a) == Fraction(b)
    except (ValueError, ZeroDivisionError):
        return a.strip() == b.strip()


def same_word(a: str, b: str) -> bool:
    """Whether two answers are the same word or letter, capitals aside."""
    return a.strip().casefold() == b.strip().casefold()


def marked(completion: str) -> str | None:
    """The first line with something on it behind the last `####`; None without the mark or with nothing behind it."""
    _, mark, rest = completion.rpartition("####")
    lines = rest.strip().splitlines() if mark else []
    return lines[0].strip() if lines else None


def boxed(text: str) -> str | None:
    """What is in the last \\boxed{} (or \\fbox{}) that closes, braces matched, the inner one of two; else None."""
    found: list[tuple[int, str]] = []
    opened: list[re.Match[str] | None] = []  # one for each open brace; a match where it opens a box
    for match in BRACES.finditer(text):
        box, bare, brace = match.groups()
        if bare:
            found.append((match.start(), bare))
        elif brace != "}" and (box or brace):
            opened.append(match if box else None)
        elif brace and opened and (start := opened.pop()):
            found.append((start.start(), text[start.end() : match.start()].strip()))
    return max(found)[1] if found else None


def _said(completion: str) -> str | None:
    """What is announced as the answer, behind the mark or else in a box, without the wrapping."""
    said = marked(completion)
    said = boxed(completion) if said is None else said
    return None if said is None else WRAPPING.sub(" ", said)


def option_letter(completion: str, letters: str) -> str | None:
    """The option a completion chooses, one of `letters`; None when it names none, or several and decides on none.

    "#### C", "(c)." and "$\\boxed{\\text{C}}$" behind the mark -> "C"; "A) because it is a match" -> "A" (the article
    is no option); "the answer is B since A is small" -> "B"; "A) 5 or B) 6" -> None; "option G" -> None.
    """
    one, low = f"[{letters}]", f"[{letters.lower()}]"
    article = r"A[ \t]+(?!(?:because|since|as|is|and|or)\b)[A-Za-z]"  # "A match" has one, "A because ..." has not
    letter = rf"(?:(?!{article})({one})(?![\w'’]|-\w)|({low})(?=[ \t]*(?:[).,:;!?\]\n]|$)))"
    said = _said(completion)
    if said is not None:
        match = re.match(LEAD + letter, said)
        return (match[1] or match[2]).upper() if match else None
    plain = WRAPPING.sub(" ", completion)
    answers = re.findall(rf"{ANSWER_IS}(?i:(?:option|choice)\b\s*+)?[(\[]?{letter}", plain)
    if answers:
        return "".join(answers[-1]).upper()
    bracketed = rf"(?<![\w'’(])({one})\)|(?<![\w'’])\(({one})\)"
    named = rf"(?i:\b(?:option|choice)\s+)({one})\b(?!['’-]\w)|^[ \t]*({one})[ \t]*[.:]?[ \t]*$"
    found = {one for groups in re.findall(f"{bracketed}|{named}", plain, re.MULTILINE) for one in groups if one}
    return found.pop() if len(found) == 1 else None


def yes_or_no(completion: str) -> str | None:
    """ "Yes" or "No" (also from true or false behind the mark); None when neither is said.

    Without a mark, "the answer is ..." counts first, then the last yes or no that ends a clause: "Yes, because there
    is no snow" -> "Yes", "No. Actually yes" -> "Yes", "I know nothing" -> None.
    """
    said = _said(completion)
    if said is not None:
        match = re.match(rf"{LEAD}(?i:(yes|no|true|false)\b)", said)
        return WORDS[match[1].lower()] if match else None
    plain = WRAPPING.sub(" ", completion)
    answers = re.findall(rf"{ANSWER_IS}[\"'“]?(?i:(yes|no)\b)", plain) or YES_OR_NO.findall(plain)
    return WORDS[answers[-1].lower()] if answers else None


def math_answer(completion: str) -> str | None:
    """The LaTeX behind the last `####`, else in the last \\boxed{}; None without either."""
    for said in (marked(completion), boxed(completion)):
        if said is not None and (inner := unwrapped(BEFORE_ANSWER.sub("", said, count=1))):
            return inner
    return None


def unwrapped(latex: str) -> str:
    """LaTeX without what may stand around an answer: a box, dollars, brackets of mathematics, a full stop."""
    latex = latex.strip()
    while True:
        inner = latex[:-1].rstrip() if latex.endswith(".") else latex
        for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            middle = inner[len(left) : -len(right)]
            if inner.startswith(left) and inner.endswith(right) and middle and not re.search(r"(?<!\\)\$", middle):
                inner = middle.strip() if not middle.endswith("\\") else inner
        box = boxed(inner)
        inner = inner if box is None else box
        if inner == latex:
            return latex
        latex = inner
