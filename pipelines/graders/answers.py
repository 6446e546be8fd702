"""Named reward functions: the closed registry that a workflow's `reward`, `rater` and `judge` may name.

Each is a function of (completion, answer) to a float. The registry is closed on purpose: a YAML file is data and can
not name code to import.
"""

import re
from collections.abc import Callable
from decimal import Decimal

from pipelines.host.spelling import did_you_mean

# A sign counts only where it does not stand between two digits or letters ("3-4" holds 3 and 4, not -4).
_NUMBER = re.compile(
    r"(?<![\w.])-?\$?\s?(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)(?:\.\d+)?|(?<![\w.])-?\$?\.\d+|\d+(?:\.\d+)?"
)
_MARKER = re.compile(r"####|\bthe\s+(?:final\s+)?answer\s+is\b:?", re.IGNORECASE)


def final_answer(text: str) -> str:
    """What `text` states as its answer: the rest of the line behind the last `####` or `The answer is`, else all of
    it."""
    markers = list(_MARKER.finditer(text))
    if not markers:
        return text.strip()
    rest = text[markers[-1].end() :].strip()
    return rest.splitlines()[0].strip() if rest else ""


def final_number(text: str) -> Decimal | None:
    """The number that `text` gives as its answer, or None.

    Behind a marker (`####`, `The answer is`) it is the first number of that line, elsewhere the last number of the
    text. Thousands separators, a dollar sign, a unit behind it and a trailing dot do not matter.
    """
    numbers = _NUMBER.findall(final_answer(text))
    if not numbers:
        return None
    number = numbers[0] if _MARKER.search(text) else numbers[-1]
    return Decimal(re.sub(r"[,$\s]", "", number))


def exact_answer(completion: str, answer: str | None) -> float:
    """1.0 where the completion's answer equals the expected one, else 0.0.

    Numbers are compared as numbers (GSM8K's `... #### 1,234` is read for both), other answers as text without regard to
    case, surrounding quotes and a trailing dot.

    Raises:
        ValueError: no expected answer.
    """
    if answer is None:
        raise ValueError(
            "The reward `exact_answer` needs an answer with each prompt. Name its column: `data: {..., answer: "
            "COLUMN}`."
        )
    expected = final_number(answer) if _is_numeric(answer) else None
    if expected is not None:
        return float(final_number(completion) == expected)
    return float(_plain(final_answer(completion)) == _plain(final_answer(answer)))


def answer_format(completion: str, answer: str | None = None) -> float:
    """1.0 where the completion ends in exactly one marked answer (`#### 12` or `The answer is 12.`), else 0.0.

    `answer` is not looked at: this rewards the form, whatever the number.
    """
    markers = list(_MARKER.finditer(completion))
    if len(markers) != 1:
        return 0.0
    rest = completion[markers[0].end() :].strip()
    return float("\n" not in rest and len(_NUMBER.findall(rest)) == 1)


REWARD_FUNCTIONS: dict[str, Callable[[str, str | None], float]] = {
    "exact_answer": exact_answer,
    "answer_format": answer_format,
}


def reward_function(name: str) -> Callable[[str, str | None], float]:
    """The function registered as `name`.

    Raises:
        ValueError: unknown name; says which exist and the closest one.
    """
    if name not in REWARD_FUNCTIONS:
        raise ValueError(
            f"Unknown reward function {name!r}.{did_you_mean(name, REWARD_FUNCTIONS)} Known: "
            f"{', '.join(REWARD_FUNCTIONS)}."
        )
    return REWARD_FUNCTIONS[name]


def _is_numeric(answer: str) -> bool:
    """True for GSM8K's worked answers and for plain numbers; "room 12" is text."""
    return "####" in answer or _NUMBER.fullmatch(answer.strip().rstrip(".%")) is not None


def _plain(text: str) -> str:
    return text.strip().strip("\"'`").rstrip(".").strip().casefold()
