"""What a text states as its answer: behind `####`, behind `The answer is`, or in a `\\boxed{}`.

1. The last statement counts, as is usual for GSM8K and MATH; markers that share a sentence make one statement, so that
   `\\boxed{18} or \\boxed{19}` is a hedge and not the answer 19.
2. Behind a marker the rest of the line counts, all of it. A box says where it ends: its contents count.
"""

import dataclasses
import re

_MARKER = re.compile(r"####|\bthe\s+(?:final\s+|correct\s+)?answer\s+is\b:?", re.IGNORECASE)
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_ALTERNATIVE = re.compile(r"[\s$)\]\\]*(?:and/)?or\b", re.IGNORECASE)
_BREAK = re.compile(r"[.!?;][\"')\]*$]*\s|\n")


@dataclasses.dataclass(frozen=True)
class Marker:
    """A sign of the answer in a text.

    Attributes:
        start, end: characters of `####`, the words, or the box with its braces.
        inside: start and end of a box's contents, else None.
    """

    start: int
    end: int
    inside: tuple[int, int] | None = None

    def cuts(self) -> list[tuple[int, int]]:
        """The characters that are no part of an answer."""
        if self.inside is None:
            return [(self.start, self.end)]
        return [(self.start, self.inside[0]), (self.inside[1], self.end)]


def find_markers(text: str) -> list[Marker]:
    """All markers of `text` in the order in which they start; a box that is not closed is none."""
    markers = [Marker(*found.span()) for found in _MARKER.finditer(text)]
    opened: list[re.Match] = []
    for brace in _BRACE.finditer(text):
        if brace[0].endswith("{") and brace[0] != "\\{":
            opened.append(brace)
        elif brace[0] == "}" and opened:
            box = opened.pop()
            if box[0] != "{":
                markers.append(Marker(box.start(), brace.end(), (box.end(), brace.start())))
    return sorted(markers, key=lambda marker: marker.start)


def last_statement(text: str) -> str | None:
    """The last statement of an answer in `text`, without its markers; None where there is no marker.

    An empty string is a marker with nothing behind it.
    """
    markers = find_markers(text)
    if not markers:
        return None
    first = len(markers) - 1
    while first and not _BREAK.search(text[markers[first - 1].end : markers[first].start]):
        first -= 1
    group = markers[first:]
    start, end = group[0].start, max(marker.end for marker in group)
    is_line = any(marker.inside is None for marker in group) or _ALTERNATIVE.match(text, end) is not None
    if is_line:
        end += len(text[end:]) - len(text[end:].lstrip())  # what a colon announces may stand on the next line
        end = text.find("\n", end) if "\n" in text[end:] else len(text)
    edges = [start, *(at for cut in sorted(cut for marker in group for cut in marker.cuts()) for at in cut), end]
    statement = "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip()
    return statement.rstrip("!") if is_line else statement  # in a box it is a factorial
