r"""The number that a short text says: "-$1,250", "2 1/2 cups", "\frac{3}{4}", "3 + 4 = 7", "1.5 × 10³".

text -> one spelling (signs, digits, blanks, LaTeX) -> the one value that is said, or None

What is said in part only is None and never its first digits: a range ("3-4"), a time ("3:30"), a base ("17_8"), a
product that nobody worked out ("3 + 4", "5x", "4\sqrt 2"), two amounts ("3 hours 20 minutes"), groups of digits that no
one prints ("12,34"). Behind an equals sign stands the result. Units, currencies and the percent sign are not compared.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

LONGEST = 1000  # characters; what is longer is no number that an answer says
DIGITS = 400  # of a number, and the largest exponent: what is beyond can take minutes to write out

# ------------------------------------------------------------------------------------------------------- one spelling

INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2796\ufe58\ufe63\uff0d\u02d7"
RAISED, LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉"
VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒"
SPELLINGS = (
    {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full width
    | {ord(one): " " + unicodedata.normalize("NFKC", one).replace("⁄", "/") for one in VULGAR}
    | dict(zip(map(ord, RAISED + LOWERED), "0123456789+-0123456789", strict=True))
    | dict(zip(map(ord, "×⋅·∙∗÷⁄∕≈≅⇒→٫٬’\u3000"), "*****///====.,' ", strict=True))
    | dict.fromkeys(map(ord, DASHES), "-")
)
# Blanks and marks that are printed between thousands; an ordinary blank is none: "1 234" may be two numbers.
GROUPED = re.compile(r"(?<![\d.,])\d{1,3}([\u00a0\u2005-\u2009\u202f'_])\d{3}(?:\1\d{3})*+(?![\d'_])")
PLAIN = r"-?\s*\.?\d[\d.,]*"
ARGUMENT = rf"(?:\{{\s*({PLAIN})\s*\}}|\s*(\d))"
FOLDS = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"\{,\}|,\\!", ","),
        (r"(?<=\d)\\[,;: !](?=\d{3})", "\u2009"),
        (GROUPED.pattern, lambda match: re.sub(r"\D", "", match[0])),
        (r"\s+", " "),
        (r"\^ ?\{? ?(?:\\circ|\\degree) ?\}?|\\degree\b", "°"),
        (r"\\(?:boxed|fbox|mbox|text\w*|math(?:rm|bf|sf|it|tt)|operatorname|left|right|displaystyle|bf|rm)\b", " "),
        (r"\\(?:times|cdot|ast)\b", "*"),
        (r"\\div\b", "/"),
        (r"\\(?:approx|simeq|Rightarrow|implies|to)\b|(?<![<=])[-=]>|==", "="),
        (r"\\(?:quad|qquad|pounds|euro)\b|\\[()\[\],;:! ]|~", " "),
        (r"\\([$%#&_])", r"\1"),
        (r"(?<=\d) ?\\[dtc]?frac", r" \\frac"),
        (rf"\\[dtc]?frac{ARGUMENT} ?{ARGUMENT}", lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}"),
        (r" ?\^ ?(?:\{ ?([-+]?\d+) ?\}|\( ?([-+]?\d+) ?\))", lambda m: f"^{m[1] or m[2]}"),
        (r"(?<=\d)\*\*(?=[-+]?\d)", "^"),
        (r"(?<=[\d)}]) \* (?=[\d(\\{])|(?<=[\d)}])\*(?=[\d(\\{])", "×"),  # the other stars are **bold**
        (r"\*+", " "),
        (r"(?<=[A-Za-z}]) ?\^ ?[23]\b", ""),  # m², cm^{3}
        (r"(?<!\w)_+|_+(?!\w)|[`{}#$€£¥₹₩₽¢]", " "),
        (r"(?<=\d) +and +(?=\d+ ?/ ?\d)", " "),
        (r"(?i)\b(?:minus|negative) +(?=[\d.])", "-"),
        (r"\s+", " "),
    )
)


def _spelled(text: str) -> str:
    """The text with one kind of minus, digit, blank, fraction and power, and without what only dresses it."""
    text = INVISIBLE.sub("", text)
    text = re.sub(f"[{RAISED}]+", r"^\g<0>", text)
    text = re.sub(f"[{LOWERED}]+", r"_\g<0>", text)
    text = re.sub(r"\d", lambda digit: str(unicodedata.digit(digit[0])), text.translate(SPELLINGS))
    for old, new in FOLDS:
        text = old.sub(new, text)
    return text.strip()


# ---------------------------------------------------------------------------------------------------------- one value

CHUNK = r"(?:(?<![\w.])\.)?\d(?:[\d.,]*\d)?"
TOKEN = re.compile(
    rf"(?P<whole>\d+) (?P<top>\d+) ?/ ?(?P<bottom>\d+)(?![\d.,]*\d)"
    rf"|(?P<number>{CHUNK})(?:[eE](?P<e>[-+]?\d+)(?![\d.,]*\d)| ?\^ ?(?P<power>[-+]?\d+))?"
    rf"(?: ?/ ?(?P<over>{CHUNK}))?(?: ?[×xX] ?10 ?\^ ?(?P<scale>[-+]?\d+))?"
)
DECIMAL = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d+)(?:\.\d+)?|\.\d+")
ZEROS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
FACTOR = re.compile(rf" ({'|'.join(ZEROS)})\b")
COUNTED = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|half|halves|thirds?|"
    "quarters?|dozens?|hundreds?|thousands?|millions?|billions?|trillions?"
)
# Where the answer ends: "7 apples, not 8", "12 (see step 1)", "5 because 2 + 3 = 5".
ASIDE = re.compile(
    r"(?<!\.)[.?;](?= |$)|(?<=\w)!(?= |$)(?<!\d!)| [(\[]|"
    r",? (?:not|because|since|as|which|who|where|rather|instead|so|after|when|if|given|see)\b",
    re.IGNORECASE,
)
BREAK = re.compile(r",(?!\d)|;|: |\b(?:and|or|to|through)\b", re.IGNORECASE)
BEFORE = re.compile(  # what may not stand before a number that is said
    rf"[<>≤≥≠±√\\^_|/+×()\[\]∞°%!]|[\w.]\.?$|\b(?:not|no|never|nor|neither|wrong|incorrect|instead|except|than|{COUNTED})"
    r"\b|n't\b",
    re.IGNORECASE,
)
UNIT = re.compile(r"(?:[gGlLsh]|(?!(?:bn|mn|mil|tn|mm?ln)\b)[A-Za-z]{2,})(?![\w^])|[%°][CF]?(?!\w)|['\"](?!\w)")
AFTER = re.compile(  # nor behind it
    rf"\.\.|…|!|[^ ,.:;?)'\"/-]|:\s?\d|[-/](?! ?[A-Za-z]| ?$)|"
    rf" (?:[b-fi-kn-rt-z](?![\w.'])|(?:squared|cubed|factorial|score|point|plus|minus|times (?:a|the|as)|mod|modulo|"
    rf"divided|multiplied|bn|mn|mil|{COUNTED}|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths?)\b)|"
    rf".*(?:[+=<>≤≥±√π∞^\\×]|\b(?:and|or|to|through) (?:an? )?(?:{COUNTED})\b)",
    re.IGNORECASE,
)


def number_said(text: str, prose: bool = False) -> str | None:
    """The one number that a short text says, as written ("3.50") or as a fraction ("5/2"); None for anything else.

    `prose`: the text is a sentence of which every part counts, so that "7 apples, not 8" says two.
    """
    if len(text) > LONGEST or not re.search(r"\d|[½-¾⅐-⅞]", text):
        return None
    text = _spelled(text)
    bracketed = re.fullmatch(r"\( ?(-[^()]*)\)\W*", text)  # (-5)
    head = _head(bracketed[1] if bracketed else text, prose)
    tokens = list(TOKEN.finditer(head))
    if len(tokens) != 1:
        return None
    sign, lead = _signed(re.sub(r"\([^()\d]*\)", "", head[: tokens[0].start()]))
    rest, zeros = head[tokens[0].end() :], 0
    if lead is None or BEFORE.search(lead):
        return None
    while factor := FACTOR.match(rest):
        rest, zeros = rest[factor.end() :], zeros + ZEROS[factor[1]]
    unit = UNIT.match(rest)
    rest = rest[unit.end() :] if unit else rest
    return None if AFTER.match(rest) else _written(sign, tokens[0], zeros)


def _head(text: str, prose: bool) -> str:
    """The part of a text that says the number: without asides, of an equation the last side."""
    start = re.search(r"\d", text)
    aside = ASIDE.search(text, start.end()) if start and not prose else None
    head = text.rpartition("=")[2] if prose else text if aside is None else text[: aside.start()]
    if sum(bool(re.search(r"\d", part)) for part in BREAK.split(head)) > 1:
        return ""
    return head.rpartition("=")[2] if not re.search(r"[!<>]=", head) else ""


def _signed(lead: str) -> tuple[str, str | None]:
    """The sign at the end of what stands before a number, and what is before it; None where it may be a dash."""
    found = re.search(r"([-+])( ?)$", lead)
    if found is None:
        return "", lead
    before = lead[: found.start()]
    if (
        before.rstrip()[-1:] in ("-", "+")
        or re.search(r"[\w)]$", before)
        or (found[2] and re.search(r"[\w)] $", before))
    ):
        return "", None  # "f(x)-5", "Answer - 5", "--5"
    return found[1].replace("+", ""), before


def _written(sign: str, token: re.Match[str], zeros: int) -> str | None:
    parts = {name: value for name, value in token.groupdict().items() if value is not None}
    if len(token[0]) > DIGITS or any(abs(int(parts.get(name, "0"))) > DIGITS for name in ("e", "power", "scale")):
        return None
    chunks = [parts[name] for name in ("number", "over") if name in parts]
    if not all(DECIMAL.fullmatch(chunk) for chunk in chunks):
        return None
    if set(parts) == {"number"} and not zeros:
        return sign + parts["number"].replace(",", "")
    try:
        if "whole" in parts:
            value = Fraction(int(parts["top"]), int(parts["bottom"]))
            value = value + int(parts["whole"]) if value < 1 else None
        else:
            value, *over = (Fraction(chunk.replace(",", "")) for chunk in chunks)
            value = value ** int(parts.get("power", "1")) * Fraction(10) ** int(parts.get("e", "0"))
            value = value / over[0] if over else value
    except ZeroDivisionError:
        return None
    if value is None:
        return None
    value = value * Fraction(10) ** (int(parts.get("scale", "0")) + zeros)
    return str(-value if sign else value) if abs(value.numerator) < 10**DIGITS > value.denominator else None


def equal_numbers(a: str, b: str) -> bool:
    """Whether two numbers are equal in value ("3.50" and "7/2"); exact, no rounding. Other texts must be the same."""
    first, second = _value(a), _value(b)
    return a.strip() == b.strip() if first is None or second is None else first == second


@lru_cache(maxsize=100_000)
def _value(text: str) -> Fraction | None:
    found = number_said(text)
    return None if found is None else Fraction(found)
