"""Reading a canonical answer out of a completion: a number, an option's letter, yes or no, a piece of LaTeX.

The answer is what stands behind the last `####`; without that mark, what is in the last \\boxed{} or said to be the
answer; failing that, the little that can be read safely. What is ambiguous is None, never a guess: a letter inside a
sentence is an article ("because it is a match"), a "no" before a noun is no answer, of several numbers none is said.
"""

import re
import unicodedata

from .number import LONGEST, number_said

MARK = re.compile("#{4,}")
HEADING = re.compile(r"\W*(?:(?:step|part|case)\W*\d|(?:(?:the|final|correct)\W+)*answer\W*(?:is\W*)?$)", re.IGNORECASE)
WRAPPING = re.compile(r"\\(?:boxed|fbox|text\w*|math(?:rm|bf|sf|it))\s*(?=\{)|\\[()\[\]]|[$*_`{}]")
BRACES = re.compile(r"\\(?:boxed|fbox)\s*+(\{)|\\boxed\s++([^\s{}$,;]*[^\s{}$,;.])|\\.|([{}])", re.DOTALL)
YES_OR_NO = re.compile(
    r"(?<!\bor )(?<!\bnot )(?<!n't )(?<!\bnor )\b(yes|no)\b(?! or\b)(?!\.\s*\d)(?=\W*$|\s*[.,;:!)])",
    re.IGNORECASE | re.MULTILINE,
)
# What may follow a yes or no that decides: not "or no", and no noun ("no idea", "no solution").
DECIDED = (
    r"(?!\W*(?i:or|and)\b|\s*/|\.\s*\d)(?:(?<![oO])|(?=\W*$|\s*[.,;:!)\"'”…–—-]|"
    r"\s+(?i:because|since|as|he|she|it|they|there|this|that|these|the|we|you|i)\b))"
)
NEGATION = re.compile(r"\b(?:not|cannot|wrong|incorrect|false|neither|nor|rules? out|eliminate)\b|n['’]t\b")
# Possessive (*+): what a model repeats a thousand times must not be tried in all ways.
LEAD = r"(?i:(?:\W+|(?:the|correct|final|right|answer|option|choice|is)\b)*+)"
ANSWER_IS = r"(?i:\b(?:answer|ans)\b(?:\s++(?:is|would\s++be|should\s++be|must\s++be)\b)?\s*+[:=–-]?\s*+)"
BEFORE_ANSWER = re.compile(
    r"(?i)^[\s*]*(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:(?:correct|final)\s+)?answer\b(?:\s+is\b)?\s*:?[\s*]*"
)
AROUND = re.compile(r"(?:[\s$.,:;]|(?<![\\A-Za-z])[A-Za-z]{2,}(?![A-Za-z])|(?<![\\A-Za-z])[A-Za-z]\s*=)*")
WORDS = {"yes": "Yes", "no": "No", "true": "Yes", "false": "No"}
ANNOUNCED = re.compile(
    r"\b(?:(?:answers?|ans)\b[^\d.\n=:]{0,60}?|(?:so|hence|thus|therefore|finally|final)\b[^\d.\n=:]{0,30}?"
    r"\b(?:result|total|value|sum|solution)\b[^\d.\n=:]{0,40}?)(?:\b(?:is|was|be|equals|are)\b|[=:])",
    re.IGNORECASE,
)
NAMED_ANSWER = re.compile(r" is (?:the|our|my) (?:final |correct )?answer\b")
# The words that may stand between "the answer is" and its number; others tell how to find it ("the sum of 5 and 3").
LEADING = re.compile(
    r"(?:a|an|the|that|thus|therefore|simply|just|about|approximately|around|exactly|equal|equals|to|total|of|number|only|"
    r"indeed|given|by|us|usd|rs|it|is|we|get|have|found|be|not|minus|negative)"
)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
ABOUT_ITSELF = re.compile(r"\b(?:check|verif|confirm|step|tries|tried|hope|note)", re.IGNORECASE)


def number_answer(completion: str) -> str | None:
    """The number behind the last `####`, else in the last box, else announced, else the one in the last sentence.

    "1,234.50" -> "1234.50", "#### -10" -> "-10", "#### 1/2" -> "1/2", "#### 3 + 4 = 7" -> "7", "it costs $5." -> "5";
    None where no number is said or several are: "5 or 6", "from 5 to 3", "#### x" (`number` says more).
    """
    said = marked(completion)
    if said is None and (boxes := [(start, end, completion[first:end]) for start, first, end in _boxes(completion)]):
        between = completion[boxes[-2][1] : boxes[-1][0]] if len(boxes) > 1 else ""
        if re.fullmatch(r"[\s$}]*(?:,|;|\bor\b|\band\b)[\s$]*(?:\w\s*=)?", between):
            return None  # \boxed{3} or \boxed{4}
        said = boxes[-1][2]
    said = _announced(completion) if said is None else said
    if said is not None:
        return number_said(said)
    last = next((one for one in reversed(SENTENCE.split(completion)) if re.search(r"\d", one)), "")
    return None if ABOUT_ITSELF.search(last) else number_said(re.sub(r"(?<=\s)\([^()]*\)", " ", last), prose=True)


def _announced(completion: str) -> str | None:
    """What is before the last "is the answer", or the line behind the last "the answer is" that goes on with it."""
    found: list[tuple[int, str]] = []
    for match in NAMED_ANSWER.finditer(completion):
        sentence = SENTENCE.split(completion[max(0, match.start() - LONGEST) : match.start()])[-1]
        found += [(match.start(), sentence)] if len(sentence) < LONGEST and re.search(r"\d", sentence) else []
    for match in ANNOUNCED.finditer(completion):
        line = completion[match.end() : match.end() + LONGEST].strip(" \t\n*:=").split("\n")[0]
        lead = re.split(r"\d", line, maxsplit=1)[0]
        words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+", "", lead))
        if lead != line and all(LEADING.fullmatch(word.lower()) for word in words):
            found.append((match.start(), line))
    return max(found)[1] if found else None


def same_word(a: str, b: str) -> bool:
    """Whether two answers are the same word or letter, capitals aside."""
    return a.strip().casefold() == b.strip().casefold()


def marked(completion: str) -> str | None:
    """The first line with an answer on it behind the last `####` that has one; None where there is none.

    A mark that opens a heading ("#### Step 2: ...") announces nothing.
    """
    for part in reversed(MARK.split(completion)[1:]):
        lines = [line.strip() for line in part.strip().splitlines()[:3]]
        if lines and (line := next((one for one in lines if not HEADING.match(one)), "")):
            return line
    return None


def boxed(text: str) -> str | None:
    """What is in the last \\boxed{} (or \\fbox{}) that closes, braces matched, the outer one of two; else None."""
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]].strip() if boxes else None


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """The boxes that are in no other: where each starts, and where what it holds starts and ends."""
    found: list[tuple[int, int, int]] = []
    opened: list[re.Match[str] | None] = []  # one for each open brace; a match where it opens a box
    for match in BRACES.finditer(text):
        box, bare, brace = match.groups()
        if bare:
            found.append((match.start(), match.start(2), match.end()))
        elif brace != "}" and (box or brace):
            opened.append(match if box else None)
        elif brace and opened and (start := opened.pop()):
            while found and found[-1][0] > start.start():
                found.pop()
            found.append((start.start(), start.end(), match.start()))
    return found


def _said(completion: str) -> str | None:
    """What is announced as the answer, behind the mark or else in a box, without the wrapping."""
    said = marked(completion)
    said = boxed(completion) if said is None else said
    return None if said is None else plain(said)


def plain(text: str) -> str:
    """A text in ordinary characters (Ｃ is C), without bold, dollars and boxes."""
    return WRAPPING.sub(" ", unicodedata.normalize("NFKC", text))


def option_letter(completion: str, letters: str) -> str | None:
    """The option a completion chooses, one of `letters`; None when it names none, or several and decides on none.

    "#### C", "(c)." and "$\\boxed{\\text{C}}$" behind the mark -> "C"; "A) because it is a match" -> "A" (the article
    is no option); "the answer is B since A is small" -> "B"; "A) 5 or B) 6", "B or C" -> None; "option G" -> None.
    """
    one, low = f"[{letters}]", f"[{letters.lower()}]"
    article = r"A[ \t]+(?!(?:because|since|as|is|and|or)\b)[A-Za-z]"  # "A match" has one, "A because ..." has not
    letter = rf"(?:(?!{article})({one})(?![\w'’]|-\w)|({low})(?=[ \t]*(?:[).,:;!?\]\n]|$)))"
    option = r"(?i:(?:option|choice)\b\s*+)?[(\[]?"
    several = re.compile(rf"[)\]\s]*(?:\b(?:or|and)\b|[/,&])\s*{option}{letter}")
    announced = _said(completion)
    if announced is not None:
        said, found = announced, re.match(LEAD + letter, announced)
    else:
        said = plain(completion)
        found = max(re.finditer(rf"{ANSWER_IS}{option}{letter}", said), key=re.Match.start, default=None)
    if found is not None:
        return None if several.match(said, found.end()) else (found[1] or found[2]).upper()
    if announced is not None:
        return None
    bracketed = rf"(?<![\w'’(])({one})\)|(?<![\w'’])\(({one})\)"
    named = rf"(?i:\b(?:option|choice)\s+)({one})\b(?!['’-]\w)|^[ \t]*({one})[ \t]*[.:]?[ \t]*$"
    sentences = (one for one in re.split(r"(?<=[.!?\n])", said) if not NEGATION.search(one))  # "(B) is wrong"
    names = {
        one
        for groups in re.findall(f"{bracketed}|{named}", "\n".join(sentences), re.MULTILINE)
        for one in groups
        if one
    }
    return names.pop() if len(names) == 1 else None


def yes_or_no(completion: str) -> str | None:
    """ "Yes" or "No" (also from true or false behind the mark); None when neither is said.

    Without a mark, "the answer is ..." counts first, then the last yes or no that ends a clause: "Yes, because there
    is no snow" -> "Yes", "No. Actually yes" -> "Yes", "I know nothing", "yes or no", "not yes" -> None.
    """
    said = _said(completion)
    if said is not None:
        found = re.match(rf"{LEAD}(?i:(yes|no|true|false)\b){DECIDED}", said)
        return WORDS[found[1].lower()] if found else None
    text = plain(completion)
    answers = re.findall(rf"{ANSWER_IS}[\"'“]?(?i:(yes|no)\b){DECIDED}", text) or YES_OR_NO.findall(text)
    return WORDS[answers[-1].lower()] if answers else None


def math_answer(completion: str) -> str | None:
    """The LaTeX behind the last `####`, else in the last \\boxed{}; None without either."""
    for said in (marked(completion), boxed(completion)):
        if said is not None and len(said) <= LONGEST and (inner := unwrapped(BEFORE_ANSWER.sub("", said))):
            return inner
    return None


def text_answer(completion: str) -> str | None:
    """The line behind the last `####`, else in the last \\boxed{}, else behind the last "the answer is"; or None."""
    said = _said(completion)
    if said is None:
        found = re.findall(r"(?i:\bthe (?:final |correct )?answer(?: is\b:?|:))[ \t]*([^\n]+)", completion)
        said = plain(found[-1]) if found else None
    said = None if said is None else " ".join(BEFORE_ANSWER.sub("", said).split())
    return said if said and len(said) <= LONGEST else None


def same_text(a: str, b: str) -> bool:
    """Whether two texts are the same, capitals, blanks, quotes around them and a full stop aside."""
    return _bare(a) == _bare(b)


def _bare(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .\"'“”‘’")


def unwrapped(latex: str) -> str:
    """LaTeX without what may stand around an answer: a box, dollars, brackets of mathematics, a full stop."""
    latex = latex.strip()
    while True:
        inner = latex[:-1].rstrip() if latex.endswith(".") else latex
        for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            middle = inner[len(left) : -len(right)]
            if inner.startswith(left) and inner.endswith(right) and middle and not re.search(r"(?<!\\)\$", middle):
                inner = middle.strip() if not middle.endswith("\\") else inner
        inner = _unboxed(inner)
        if inner == latex:
            return latex
        latex = inner


def _unboxed(latex: str) -> str:
    """What a box holds where only words stand around it; else all of it, so that "3 + \\boxed{4}" is not 4."""
    boxes = _boxes(latex)
    if not boxes:
        return latex
    (start, first, last), bare = boxes[-1], latex[boxes[-1][1] - 1] != "{"
    before, after = latex[:start], latex[last if bare else last + 1 :]
    if len(boxes) == 1 and AROUND.fullmatch(before) and AROUND.fullmatch(after):
        return latex[first:last].strip()
    return f"{before}{{{latex[first:last]}}}{after}"
