"""Rows in other languages than those that are wanted, by py3langid (Lui and Baldwin 2012, langid.py, without a
network)."""

import functools
import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from gemma_keras.install_advice import install_command
from pipelines.data.canonical import Piece
from pipelines.host.errors import ConfigError
from pipelines.host.spelling import did_you_mean
from pipelines.schema.base import Problem
from pipelines.schema.named import Named
from pipelines.stages.data_filtering.filters.base import KEEP, Filter, Verdict

LEAST_LETTERS = 20
"""Of a text whose language can be told."""
MOST_LETTERS = 4000
"""From the beginning of each text, by which it is told."""


class LanguageOptions(Named):
    """What stands beside the name in `{name: language, ...}`."""

    keep: list[str] = Field(["en"], min_length=1, description="Languages by their codes (ISO 639-1): [en, de].")
    confidence: float = Field(
        0.5, gt=0, lt=1, description="Probability of another language from which a text is dropped."
    )

    def problems(self) -> Iterator[Problem]:
        """A language that is not known, or no package to know it by."""
        if importlib.util.find_spec("py3langid") is None:
            yield ("name",), f"language needs py3langid, which is not installed: {install_command('filters')}"
            return
        known = _identifier().labels
        for place, code in enumerate(self.keep):
            if code not in known:
                message = f"unknown language {code!r}.{did_you_mean(code, known)} Known: {', '.join(sorted(known))}"
                yield ("keep", place), message


class Language(Filter):
    """`filters: [language]`."""

    name = "language"
    summary = "texts in other languages"
    Options = LanguageOptions
    options: LanguageOptions

    def __init__(self, options: Any, use: Any) -> None:
        """See `Filter`."""
        super().__init__(options, use)
        self._dropped: Counter[str] = Counter()

    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """All texts of the row, each with enough letters for it; code, numbers and short answers stay."""
        for piece in pieces:
            text = piece.text[:MOST_LETTERS]
            if sum(map(str.isalpha, text)) < LEAST_LETTERS:
                continue
            language, share = _identifier().classify(text)
            if language not in self.options.keep and share >= self.options.confidence:
                return Verdict("other language", f"{piece.part}: {language} {share:.2f}", notes={"language": language})
        return KEEP

    def add(self, verdict: Verdict) -> None:
        """See `Filter.add`."""
        self._dropped.update(verdict.notes.values())

    def figures(self) -> dict[str, Any]:
        """`languages`: language → rows dropped, the most frequent first."""
        return {"languages": dict(self._dropped.most_common())}


@functools.cache
def _identifier() -> Any:
    """The model that comes with the package; its answers are probabilities over all languages."""
    try:
        from py3langid import langid
    except ImportError:
        raise ConfigError(f"language: py3langid is not installed: {install_command('filters')}") from None
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
