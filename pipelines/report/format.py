"""How the report writes numbers, times, intervals and untrusted text: one rule for each, used everywhere."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.host.visible_text import visible
from pipelines.report.records import is_finite_number

MISSING = "–"


def number(value: Any) -> str:
    """Three significant digits without exponents where they can be avoided: 1234 → `1,234`, 12.34 → `12.3`, 0.0123 →
    `0.012`."""
    if not is_finite_number(value):
        return MISSING
    if value == 0:
        return "0"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000):
        return _minus(f"{value:,.0f}")
    size = abs(value)
    if 0 < size < 0.0005:
        return _minus(f"{value:.1e}")
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return _minus(f"{value:,.{digits}f}")


def signed(value: Any) -> str:
    """A difference: `number` with a plus sign where it is above 0."""
    return f"+{number(value)}" if is_finite_number(value) and value > 0 else number(value)


def percent(value: Any, digits: int = 1) -> str:
    """A share as a percentage: 0.7134 → `71.3 %`."""
    return _minus(f"{100 * value:.{digits}f} %") if is_finite_number(value) else MISSING


def interval(bounds: Sequence[float] | None, as_percent: bool = False, digits: int = 1) -> str:
    """A 95 % interval: `[0.68, 0.74]`, or `[68.0, 74.0]` of a share; empty where there is none."""
    if not bounds or len(bounds) != 2 or not all(is_finite_number(bound) for bound in bounds):
        return ""
    low, high = (_minus(f"{100 * bound:.{digits}f}") if as_percent else number(bound) for bound in bounds)
    return f"[{low}, {high}]"


def seconds(value: Any) -> str:
    """A duration: 4.21 → `4.2 s`, 192 → `3 min 12 s`, 7500 → `2 h 05 min`."""
    if not is_finite_number(value):
        return MISSING
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def gib(value: Any) -> str:
    """Memory: 1.944 → `1.94 GiB`."""
    return f"{value:.2f} GiB" if is_finite_number(value) else MISSING


def of_device(whose: str | None) -> str:
    """Behind a peak: " of the device" where it is not that of the process."""
    return " of the device" if whose == "device" else ""


def words(name: str | None) -> str:
    """A stage kind for readers: `reward_modeling` → `reward modeling`."""
    return (name or "stage").replace("_", " ")


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names for drawings: of a model folder its last telling part, `../runs/quickstart/stages/sft/model` → `sft`.

    Args:
        names: policies as the workflow names them, stages or folders.

    Returns:
        Name to short name; names whose short forms would be equal stay as they are.
    """
    full = list(dict.fromkeys(names))
    short = {name: visible(_last_part(name)) for name in full}
    counts = Counter(short.values())
    return {name: short[name] if counts[short[name]] == 1 else visible(name) for name in full}


def _last_part(name: str) -> str:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if len(parts) > 1 and parts[-1] == "model":
        parts.pop()
    return parts[-1] if parts else name


def readable(value: Any) -> str:
    """Untrusted text as HTML may hold it, see `visible`; a list of turns becomes lines.

    Escaping of `<` and `&` is left to the template, which does it for every value.
    """
    if isinstance(value, list):
        turns = [
            f"{turn.get('role')}: {turn.get('content')}" if isinstance(turn, dict) else str(turn) for turn in value
        ]
        return visible("\n".join(turns))
    return "" if value is None else visible(str(value))


def _minus(text: str) -> str:
    """A hyphen before digits as a minus sign, as wide as the digits beside it."""
    return text.replace("-", "\u2212", 1) if text.startswith("-") else text
