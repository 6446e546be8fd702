"""Named reward functions: the closed registry that a workflow's `reward`, `rater` and `judge` may name.

Each is a function of (completion, answer) to a float. The registry is closed on purpose: a YAML file is data and can
not name code to import.
"""

import re
from collections.abc import Callable

from pipelines.graders.statements import find_markers, last_statement
from pipelines.graders.values import expected_value, last_claim, plain, stated_value
from pipelines.host.spelling import did_you_mean


def exact_answer(completion: str, answer: str | None) -> float:
    """1.0 where the whole answer that the completion states equals the expected one, else 0.0.

    Of a completion its last statement counts (`graders/statements.py`), without one the last sentence that holds a
    digit. Numbers, tuples, times and their like are compared as values (`graders/values.py`); words and formulas as
    text, without regard to case, surrounding quotes and a trailing dot. Two numbers that differ, and hedges, earn
    nothing.

    Args:
        completion: what a model wrote. answer: what was expected: an answer alone, or a worked one that ends in a
            statement, as GSM8K's `... #### 1,234` and the solutions of MATH do.

    Raises:
        ValueError: no expected answer.
    """
    if answer is None:
        raise ValueError(
            "The reward `exact_answer` needs an answer with each prompt. Name its column: `data: {..., answer: "
            "COLUMN}`."
        )
    expected, stated = last_statement(answer), last_statement(completion)
    expected = answer if expected is None else expected
    if _text(completion if stated is None else stated, expected) == _text(expected):
        return float(_text(expected) != "")
    wanted = expected_value(expected)
    given = None if wanted is None else stated_value(last_claim(completion).rstrip("!") if stated is None else stated)
    return float(given is not None and wanted is not None and given.answers(wanted))


def answer_format(completion: str, answer: str | None = None) -> float:
    """1.0 where the completion ends in exactly one marked answer (`#### 12`, `The answer is 12.`, `\\boxed{12}`), else
    0.0.

    The answer is one number, tuple or time; a box may stand behind words. `answer` is not looked at: this rewards the
    form, whatever the number.
    """
    markers = find_markers(completion)
    boxes = [marker for marker in markers if marker.inside is not None]
    if not 1 <= len(markers) <= 2 or (len(markers) == 2 and markers[1] not in boxes):
        return 0.0
    rest = completion[markers[0].end :].strip()
    is_last = "\n" not in rest if len(markers) > len(boxes) else not re.search(r"\w", rest)
    return float(is_last and stated_value(last_statement(completion) or "") is not None)


REWARD_FUNCTIONS: dict[str, Callable[[str, str | None], float]] = {
    "exact_answer": exact_answer,
    "answer_format": answer_format,
}

JUDGES_OF_RIGHT = frozenset({"exact_answer"})
"""Those that say whether an answer is right: their mean is a share of right answers."""


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


def _text(text: str, expected: str = "=") -> str:
    """An answer in words or as a formula, for comparison; `x =` before it is left out where none is expected."""
    text = plain(text).strip("\"'").rstrip(".").strip("\"' ").casefold()
    if "=" not in expected:
        text = re.sub(r"^[a-z]\s*=\s*", "", text)
    is_formula = re.search(r"[\\^_={}()*+/]", text)
    return re.sub(r"(?<![0-9])\s|\s(?![0-9])", "", text) if is_formula else text  # 1 1/2 is not 11/2
