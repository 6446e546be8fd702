"""An answer as a value that can be compared: a number with its unit, a tuple, interval, set or list, a time or ratio.

A reader finds one value or none. A wording that held two would fit two answers, and a policy that is trained on the
reward would learn to write it; where a reading is in doubt there is none.

1. Numbers are exact (`0.333` is not `1/3`) and in digits: no scientific notation, no `million`, no sum that is left to
   the reader. Values are compared and not their forms: `2/4` is `1/2`, so a question about the form ("simplify") needs
   another grader. Yet `36/2` is not 18.
2. A unit is the words behind a number, or a currency before it. One that is left out agrees with any, as in the
   conventions of MATH and Minerva; another one does not, and none is converted.
3. A percentage stands for its numeral where a bare number from 1 up is expected (GSM8K writes 50 for 50 %), below 1 for
   its value. It is the one wording that fits two bare numbers, 50 and 0.5.
4. Lists and tuples are ordered, sets are not. Times and ratios are compared part by part: `2:3` is not `4:6`.

Why not math-verify 0.9, the library for this: in plain text it reads both `12:30` and `12:45` as 12, `The answer is 18
or 19 or 20` and `not 18` as 18, `18 m` as `18 km` and `0.333333` as 1/3; it knows no words. It evaluates what a
completion leaves to it: `9+9` is 18, and the question's own `\\sqrt{192}` is the right answer to "simplify".
`10^{10^{10}}` takes it five seconds, until a signal stops it that only the main thread may ask for. Measured in
`benchmarks/README.md`.
"""

import dataclasses
import math
import re
from fractions import Fraction

from pipelines.graders.notation import DECIMAL, plain
from pipelines.graders.units import unit_behind

LONGEST = 1000
"""Characters of an answer; what is longer is none. It bounds the work that a text can cause."""

_NUMBER = r"(?>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_SIGN = r"(?:(?<![\w.)\]])[+-])?"  # not between numbers: `3-4` holds no -4
_OVER = r"(?:\s?/\s?[0-9]+)?"
_MIXED = r"[0-9]+\s+[0-9]+/[0-9]+"
_ATOM = rf"{_SIGN}(?:{_MIXED}|{_NUMBER}{_OVER})"
# Between brackets every comma separates.
_ELEMENT = rf"[+-]?(?:{_MIXED}|{DECIMAL}{_OVER}|∞)"
_VALUE = re.compile(
    rf"(?P<minus>(?<![\w.)\]])-(?=[$€£]))?(?P<currency>[$€£]\s?)?(?<![\w.])(?:"
    rf"(?P<open>[(\[{{])\s*(?P<inside>{_ELEMENT}(?:\s*,\s*{_ELEMENT})+)\s*(?P<close>[)\]}}])"
    rf"|(?P<ratio>{DECIMAL}(?:(?::|\s:\s){DECIMAL})+)"
    rf"|(?P<list>{_ATOM}(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+){_ATOM})+)"
    rf"|(?P<number>{_ATOM})"
    r")(?![0-9]|[.,:/][0-9])"
)
# What says that there is another answer, anywhere in a sentence.
_HEDGE = re.compile(
    r"\b(?:or|nor|either|neither|not|never|maybe|perhaps|possibly|probably|likely|unless)\b|n['’]t\b"
    r"|[?<>≤≥≠≈~]|(?<![0-9)])!="
    r"|(?:[,;]|\band\b)\s*[^\W\d_]\s*=",  # x = 2, y = 3
    re.IGNORECASE,
)
# What says, beside a number, that it is not the answer as it stands.
_INEXACT = re.compile(
    r"\b(?:between|about|around|roughly|approx(?:imately)?|nearly|almost|up\sto|at\s(?:least|most)|dozen|pi"
    r"|(?:hundred|thousand|million|billion|trillion)(?:th)?s?|tenths?|halves|negative|plus|minus|twice|double|triple"
    r"|squared|cubed|root|factorial)\b"
    r"|\b(?:(?:more|less|fewer|greater|larger|smaller|higher|lower)\sthan|over|under|above|below|half(?:\sof)?)"
    r"\s+[$€£(-]*[.0-9]|\band\s(?:a|one)\shalf\b",
    re.IGNORECASE,
)
# An unknown that is computed with; of times (3 x 5) and units (3 m + 5 m) none is one.
_UNKNOWN = r"(?<![^\W\d_'’])[^\W\daAIgGhHlLmMsS_](?![^\W\d_])"
_ALGEBRA = re.compile(rf"(?:[0-9]|[-+*/^({{|]\s?){_UNKNOWN}|{_UNKNOWN}(?:\s?[+*/^)|]|\s-\s|\()")
_TIMES = re.compile(r"(?<=[0-9])\s?[xX]\s?(?=[.0-9$])")
_SENTENCE_END = re.compile(r"(?:(?<=[.;])|(?<=[^0-9)]!))\s+")  # `5! = 120` is one


@dataclasses.dataclass(frozen=True)
class Value:
    """What an answer says.

    Attributes:
        form: "number", "list", ":" of a time or ratio, or the two brackets of a tuple, interval or set.
        items: its exact numbers; of an interval also ±inf.
        unit: words in one spelling each, a currency first; () where none is said.
        is_unfinished: True for a division that comes out even, such as `36/2`.
    """

    form: str
    items: tuple[Fraction | float, ...]
    unit: tuple[str, ...] = ()
    is_unfinished: bool = False

    def answers(self, expected: "Value") -> bool:
        """True where this is what was expected; units agree as far as both say one."""
        if self.is_unfinished or self.form != expected.form:
            return False
        mine, theirs = (_sorted(value) for value in (self, expected))
        if self.form == "number" and "%" in (*self.unit[:1], *expected.unit[:1]) and self.unit != expected.unit:
            return _percentage_answers(self, expected)
        return mine == theirs and all(a == b for a, b in zip(self.unit, expected.unit, strict=False))


def expected_value(text: str) -> Value | None:
    """The value that `text`, a known answer, is from end to end; None for words and formulas ("room 12")."""
    text = re.sub(r"^[^\W\d_]\s*=\s*", "", plain(text)[: LONGEST + 1]).rstrip(".")
    is_exact = len(text) <= LONGEST and not _HEDGE.search(text) and not _INEXACT.search(text)
    found = _VALUE.match(text) if is_exact else None
    if found is None:
        return None
    unit, end = unit_behind(text, found)
    return _value(found, unit) if unit is not None and end == len(text) else None


def stated_value(text: str) -> Value | None:
    """The one value that `text`, a completion's statement of its answer, holds; None for no or several, or a hedge.

    Words may stand around it. Of a sum or `x =` the last side counts. What another sentence says must be the same.
    """
    text = plain(text)
    if len(text) > LONGEST or _HEDGE.search(text):
        return None
    values = [_sentence_value(sentence) for sentence in _SENTENCE_END.split(text) if _has_digit(sentence)]
    if None in values or len({(value.form, value.items) for value in values if value}) != 1:
        return None
    return values[0]


def last_claim(text: str) -> str:
    """The last sentence of `text` that holds a digit, of its last line that does; "" where none does."""
    line = next((line for line in reversed(text.splitlines()) if _has_digit(line)), "")
    if len(line) > LONGEST:
        return ""
    line = re.sub(r"^\s*[-*•]\s+", "", line)  # an item of a list
    return next(sentence for sentence in reversed(_SENTENCE_END.split(line)) if _has_digit(sentence)) if line else ""


def _sentence_value(sentence: str) -> Value | None:
    *sides, side = sentence.split("=")
    if any(_ALGEBRA.search(_TIMES.sub("*", left)) for left in sides):  # of `x + y = 18` 18 is no answer
        return None
    match = _VALUE.search(side)
    unit, end = unit_behind(side, match) if match else (None, 0)
    if match is None or unit is None or _INEXACT.search(side):
        return None
    before, behind = side[: match.start()], side[end:]
    # A letter before a bracket is a function, a minus before the value a difference or a sign that was not read.
    is_operand = re.search(r"-\s*\(?\s*$|\w\($", before) is not None
    is_alone = all(c.isalpha() or c in " .,;:'’\"()[]&-%$" for c in before + behind)
    return _value(match, unit) if is_alone and not is_operand else None


def _value(match: re.Match, unit: tuple[str, ...]) -> Value | None:
    try:
        if match["inside"] is not None:
            items = tuple(_number(item) for item in match["inside"].split(","))
            return Value(match["open"] + match["close"], items, unit)
        if match["ratio"] is not None:
            return Value(":", tuple(_number(item) for item in match["ratio"].split(":")), unit)
        if match["list"] is not None:
            return Value("list", tuple(_number(atom[0]) for atom in re.finditer(_ATOM, match["list"])), unit)
        number = _number(match["number"])
    except ZeroDivisionError:
        return None
    is_unfinished = "/" in match["number"] and isinstance(number, Fraction) and number.denominator == 1
    return Value("number", (-number if match["minus"] else number,), unit, is_unfinished)


def _number(text: str) -> Fraction | float:
    text = text.strip().removeprefix("+").replace(",", "")
    if text.endswith("∞"):
        return -math.inf if text.startswith("-") else math.inf
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    above, _, below = text.partition("/")
    whole, _, above = above.strip().rpartition(" ")
    return sign * (Fraction(whole.strip() or 0) + Fraction(above) / Fraction(below.strip() or 1))


def _percentage_answers(given: Value, expected: Value) -> bool:
    """A percentage against a number that is none, or that says more than it."""
    if given.unit[:1] == expected.unit[:1]:
        return given.items == expected.items
    if given.unit and expected.unit:
        return False
    number, wanted = given.items[0], expected.items[0]
    if expected.unit:  # 50 %: 50 and 0.5 say so
        return number in (wanted, wanted / 100)
    return number == (wanted * 100 if -1 < wanted < 1 else wanted)


def _sorted(value: Value) -> list:
    return sorted(value.items) if value.form == "{}" else list(value.items)


def _has_digit(text: str) -> bool:
    return any(c.isdigit() for c in text)
