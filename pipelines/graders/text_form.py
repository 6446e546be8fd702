"""What form a text has, whatever it says: a pattern in it, its length, what it repeats. All give from 0 to 1."""

import re
from collections.abc import Hashable, Sequence


def has_pattern(text: str, pattern: re.Pattern[str], whole: bool = False) -> float:
    """1.0 where a pattern occurs in a text, else 0.0.

    Args:
        whole: True asks that the pattern is the whole text, blanks around it left out.
    """
    return float((pattern.fullmatch(text.strip()) if whole else pattern.search(text)) is not None)


def length_within(length: int, at_least: int | None, at_most: int | None, fade: int) -> float:
    """1.0 for a length within limits, falling linearly outside of them: `max(0, 1 - distance / fade)`.

    Args:
        at_least, at_most: int >= 0, both still within; None is no limit.
        fade: int >= 0, the distance at which the score reaches 0; 0 gives 0 right outside.
    """
    below = 0 if at_least is None else at_least - length
    above = 0 if at_most is None else length - at_most
    distance = max(below, above, 0)
    return float(distance == 0) if fade == 0 else max(0.0, 1.0 - distance / fade)


def distinct_share(items: Sequence[Hashable], n: int) -> float:
    """Distinct n-grams over all n-grams: 1.0 where nothing is repeated, as in what is shorter than n.

    Source: Yeo et al. 2025, arXiv:2502.03373, appendix C.2, whose penalty is this minus 1.

    Args:
        items: such as token ids. n: int >= 1.
    """
    grams = [tuple(items[start : start + n]) for start in range(len(items) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
