"""Units behind a number, in one spelling each."""

import re

_UNIT = re.compile(r"(\s*/?\s*)([%°€£¢]|[ap]\.m\b\.?|[^\W\d_]+(?:\^\{?[23]\}?|[²³])?)")
_NAMES = {
    **dict.fromkeys(("percent", "pct"), "%"),
    **dict.fromkeys(("dollar", "dollars", "usd"), "$"),
    **dict.fromkeys(("euro", "euros", "eur"), "€"),
    **dict.fromkeys(("pound", "pounds", "lb", "lbs", "£"), "pound"),
    **dict.fromkeys(("cent", "cents"), "¢"),
    **dict.fromkeys(("degree", "degrees"), "°"),
    **dict.fromkeys(("am", "a.m", "a.m."), "am"),
    **dict.fromkeys(("pm", "p.m", "p.m."), "pm"),
    **dict.fromkeys(("km", "kms", "kilometre", "kilometres"), "kilometer"),
    **dict.fromkeys(("m", "metre", "metres"), "meter"),
    **dict.fromkeys(("cm", "centimetre", "centimetres"), "centimeter"),
    **dict.fromkeys(("mm", "millimetre", "millimetres"), "millimeter"),
    **dict.fromkeys(("mi",), "mile"),
    **dict.fromkeys(("ft", "feet"), "foot"),
    **dict.fromkeys(("in", "inches"), "inch"),
    **dict.fromkeys(("kg", "kgs"), "kilogram"),
    **dict.fromkeys(("g",), "gram"),
    **dict.fromkeys(("l", "litre", "litres"), "liter"),
    **dict.fromkeys(("ml",), "milliliter"),
    **dict.fromkeys(("h", "hr", "hrs"), "hour"),
    **dict.fromkeys(("min", "mins"), "minute"),
    **dict.fromkeys(("s", "sec", "secs"), "second"),
}
_KNOWN = {*_NAMES.values()}


def unit_behind(text: str, match: re.Match) -> tuple[tuple[str, ...] | None, int]:
    """The unit of a value that was found in `text`, and where it ends.

    Args:
        match: the value, with its group `currency`, a sign or None.

    Returns:
        Its words, () where there are none; None where what follows is no unit, such as the x of `2x`.
    """
    unit = [] if match["currency"] is None else [unit_name(match["currency"].strip())]
    end = match.end()
    while found := _UNIT.match(text, end):
        word = found[2].casefold()
        is_first, is_letter = end == match.end(), len(word) == 1 and word != "a"
        if unit_name(word) in _KNOWN:
            is_factor = is_letter and "/" in found[1]  # 1/s
        else:
            is_factor = is_letter or found[1] == ""
        if is_first and is_factor:
            return None, end
        unit.append(unit_name(word))
        end = found.end()
    return tuple(unit), end


def unit_name(word: str) -> str:
    """One spelling of a word in lower case: `km²` and `kilometres^2` are `kilometer^2`, `apples` is `apple`."""
    base, power = re.fullmatch(r"(.*?)(?:\^?\{?([23²³])\}?)?", word, re.DOTALL).groups()  # type: ignore[union-attr]
    name = _NAMES.get(base, base.removesuffix("s"))
    return name if power is None else f"{name}^{'2' if power in '2²' else '3'}"
