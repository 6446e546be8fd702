"""Texts that no people wrote for people: the rules of Gopher and of C4.

Sources: Rae et al. 2021, arXiv:2112.11446, appendix A.1.1 (`gopher`, and `repetition` with its table A1); Raffel et al.
2020, arXiv:1910.10683, section 2.2 (`c4`). What differs:

1. Both are made for documents of the web. Of answers nothing but `repetition` counts, unless a workflow says otherwise.
2. The shares of repeated n-grams are looked at from 50 words on, as there no shorter document has come so far; of
   answers from 200 on, since three times four words are a fifth of a short one.
3. `c4` drops lines and pages as there, but for the page with a bad word, which is `toxicity`, and for repeated spans of
   three sentences, which is `duplicates`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from pipelines.data.canonical import Piece
from pipelines.schema.named import Named
from pipelines.stages.data_filtering.filters.base import KEEP, Filter, Verdict, dropping

Rule = Literal["gopher", "repetition", "c4"]

ANSWER_WORDS = 200
RULES: tuple[Rule, ...] = ("gopher", "repetition", "c4")
LEAST_WORDS, MOST_WORDS = 50, 100_000
COMMON_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "‣", "◦", "*", "-", "–")
_ELLIPSES = ("...", "…")
TOP_N_GRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
"""Words → most of a text's letters in its most frequent n-gram."""
DUPLICATE_N_GRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Words → most of a text's letters in n-grams that stand in it more than once."""
DUPLICATE_LINES, DUPLICATE_LINE_LETTERS = 0.30, 0.20
LEAST_LINE_WORDS, LEAST_SENTENCES = 5, 3
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*(?=\s|$)")
_LINE_ENDS = (".", "!", "?", '"', "”")
_LEGAL = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")


class QualityOptions(Named):
    """What stands beside the name in `{name: quality, ...}`."""

    rules: list[Rule] | None = Field(
        None, min_length=1, description="gopher, repetition, c4; default all of plain texts, repetition of answers."
    )
    least_words: int = Field(50, ge=0, description="Of a text that `gopher` keeps.")


class Quality(Filter):
    """`filters: [quality]`."""

    name = "quality"
    summary = "texts that no people wrote for people, by the rules of Gopher and C4"
    Options = QualityOptions
    options: QualityOptions

    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """Of what a model learns to say."""
        rules = self.options.rules or (RULES if self.use == "text" else ("repetition",))
        changes: dict[int, str] = {}
        for index, piece in enumerate(pieces):
            if piece.part not in ("text", "completion"):
                continue
            text = c4_lines(piece.text) if "c4" in rules else piece.text
            verdict = dropping(self._reasons(piece.text, text, rules))
            if verdict.reason:
                return verdict
            if text != piece.text:
                changes[index] = text
        return Verdict(changes=changes) if changes else KEEP

    def _reasons(self, whole: str, text: str, rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
        """`whole`: as it came; `text`: the lines of it that are left."""
        words = text.split()
        if "c4" in rules:
            yield from c4_reasons(whole, text)
        if "gopher" in rules:
            yield from gopher_reasons(text, words, self.options.least_words)
        if "repetition" in rules:
            yield from repetition_reasons(text, words, LEAST_WORDS if self.use == "text" else ANSWER_WORDS)


def gopher_reasons(text: str, words: Sequence[str], least: int) -> Iterator[tuple[str, str]]:
    """Gopher's rules that a text breaks, each with the figure.

    Args:
        words: of the text, as spaces divide it. least: number of them.
    """
    count = len(words)
    if not least <= count <= MOST_WORDS:
        yield ("few words" if count < least else "many words"), f"{count} words"
    if not count:
        return
    length = sum(map(len, words)) / count
    if not 3 <= length <= 10:
        yield "word length", f"{length:.1f} letters a word"
    symbols = text.count("#") + sum(map(text.count, _ELLIPSES))
    if symbols / count > 0.1:
        yield "symbols", f"{symbols} of # and ... in {count} words"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for reason, marks, most, is_start in (("bullets", _BULLETS, 0.9, True), ("ellipses", _ELLIPSES, 0.3, False)):
        share = sum(line.startswith(marks) if is_start else line.endswith(marks) for line in lines) / len(lines)
        if share > most:
            yield reason, f"{share:.0%} of {len(lines)} lines"
    lettered = sum(any(map(str.isalpha, word)) for word in words) / count
    if lettered < 0.8:
        yield "words without letters", f"{1 - lettered:.0%} of {count} words"
    common = COMMON_WORDS & {word.strip(".,;:!?\"'()").lower() for word in words}
    if len(common) < 2:
        yield "few common words", f"{len(common)} of {len(COMMON_WORDS)}"


def repetition_reasons(text: str, words: Sequence[str], least: int) -> Iterator[tuple[str, str]]:
    """The rules of Gopher's table A1 that a text breaks.

    Args:
        words: of the text, as spaces divide it. least: of them, from which n-grams are looked at.
    """
    for unit, parts in (("line", text.splitlines()), ("paragraph", text.split("\n\n"))):
        parts = [part.strip() for part in parts if part.strip()]
        if len(parts) < 2:
            continue
        counts = Counter(parts)
        again = len(parts) - len(counts)
        letters = sum(len(part) * (count - 1) for part, count in counts.items())
        if again / len(parts) > DUPLICATE_LINES:
            yield f"repeated {unit}s", f"{again} of {len(parts)}"
        if letters / len(text) > DUPLICATE_LINE_LETTERS:
            yield f"repeated {unit}s", f"{letters / len(text):.0%} of the letters"
    if len(words) < least:
        return
    total = sum(map(len, words))
    for n, most in TOP_N_GRAMS.items():
        grams = Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
        top, times = max(grams.items(), key=lambda one: (one[1], sum(map(len, one[0]))), default=((), 0))
        if times > 1 and times * sum(map(len, top)) / total > most:
            yield "frequent n-grams", f"{times} times {' '.join(top)!r}"
    for n, most in DUPLICATE_N_GRAMS.items():
        share = _repeated_letters(words, n) / total
        if share > most:
            yield "repeated n-grams", f"{share:.0%} of the letters in {n}-grams that were there before"


def _repeated_letters(words: Sequence[str], n: int) -> int:
    """Letters of the words in n-grams that have stood before, each word once."""
    seen: set[tuple[str, ...]] = set()
    letters, done = 0, 0
    for start in range(len(words) - n + 1):
        gram = tuple(words[start : start + n])
        if gram in seen:
            letters += sum(map(len, words[max(start, done) : start + n]))
            done = start + n
        seen.add(gram)
    return letters


def c4_lines(text: str) -> str:
    """The lines that C4 keeps: that end as sentences do, have five words, and speak of neither Javascript nor
    cookies; without Wikipedia's marks of citations."""
    kept = []
    for line in text.splitlines():
        line = _CITATION.sub("", line.strip())
        plain = line.lower()
        is_sentence = line.endswith(_LINE_ENDS) and not line.endswith(_ELLIPSES)
        is_boilerplate = "javascript" in plain or any(phrase in plain for phrase in _LEGAL)
        if is_sentence and len(line.split()) >= LEAST_LINE_WORDS and not is_boilerplate:
            kept.append(line)
    return "\n".join(kept)


def c4_reasons(whole: str, text: str) -> Iterator[tuple[str, str]]:
    """The rules of C4 that a page breaks.

    Args:
        whole: the page. text: its lines that `c4_lines` keeps.
    """
    if "lorem ipsum" in whole.lower():
        yield "lorem ipsum", ""
    if "{" in whole:
        yield "code", "a curly bracket"
    sentences = len(_SENTENCE_END.findall(text))
    if sentences < LEAST_SENTENCES:
        yield "few sentences", f"{sentences} in lines of {LEAST_LINE_WORDS} words that end as sentences do"
