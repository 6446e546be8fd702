"""Numbers of JSON files from elsewhere, where an integer may be larger than any float."""

import math
from typing import Any


def finite_number(value: Any) -> float | None:
    """A JSON number as a float; None for any other value, for NaN and infinities, and for what no float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
