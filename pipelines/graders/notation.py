"""The many ways to write one answer in one notation: LaTeX, bold face and typography as plain characters."""

import re

DECIMAL = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
"""Pattern of a number without sign and thousands separators."""

_TYPOGRAPHY = str.maketrans({"−": "-", "–": "-", "—": "-", "\u00a0": " ", "\u202f": " ", "“": '"', "”": '"', "`": None})
_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<<[^<>]*>>|\*\*", ""),  # GSM8K's calculator annotations; bold face
        (r"\\(?:left|right|displaystyle|limits)(?![a-zA-Z])|\\!|\\[()\[\]]", ""),
        (r"\\[,;: ]|\\quad(?![a-zA-Z])", " "),
        (r"\{,\}", ","),
        (r"\\(?:text|mbox|mathrm|textbf|mathbf|textrm|operatorname)\s*\{([^{}]*)\}", r"\1"),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])", "°"),
        (r"\\infty(?![a-zA-Z])", "∞"),
        (r"\\%", "%"),
        (r"([0-9])\s*\\frac", r"\1 \\frac"),
        (rf"\\frac\s*(?:\{{\s*(-?{DECIMAL})\s*\}}|([0-9]))\s*(?:\{{\s*([0-9]+)\s*\}}|([0-9]))", r"\1\2/\3\4"),
        (r"(?<!\\)\$\$?([^$]*[^$\\])\$\$?", r"\1"),  # mathematics, where dollars come in pairs
        (r"\\\$", "$"),
        (r"\\([{}])", r"\1"),
        (r"(^|[=(\[{,$])(\s*)-\s+(?=[.0-9])", r"\1\2-"),
        (r"\s+", " "),
    )
]


def plain(text: str) -> str:
    """`text` without what does not change its meaning: LaTeX of numbers, spacing and text, bold face, typography."""
    text = text.translate(_TYPOGRAPHY)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text.strip()
