"""Rows in which a model would learn to be toxic, by a scorer of `scoring/toxicity.py`.

A list of swear words finds no hatred without them: on the lines of ToxiGen it tells hateful from neutral no better
than chance. The stage's report says so.
"""

import importlib.util
from collections.abc import Iterator, Sequence

from pydantic import Field

from gemma_keras.install_advice import install_command
from pipelines.data.canonical import Piece
from pipelines.schema.base import Problem
from pipelines.schema.named import Named
from pipelines.schema.scoring import ToxicityModel
from pipelines.scoring.toxicity import Scorer, lexicon
from pipelines.stages.data_filtering.filters.base import KEEP, Filter, Surroundings, Verdict

LEXICON_WARNING = (
    "toxicity by a list of swear words: it finds no hatred without them, and on ToxiGen's lines it tells hateful "
    "from neutral no better than chance; name a `classifier` for that"
)


class ToxicityOptions(Named, ToxicityModel):
    """What stands beside the name in `{name: toxicity, ...}`."""

    threshold: float = Field(0.5, gt=0, le=1, description="Rows with a text of that score or more are dropped.")

    def problems(self) -> Iterator[Problem]:
        """Two scorers, or one that is not installed."""
        if self.classifier is not None and self.hub is not None:
            yield ("hub",), "expected one of classifier and hub; without both it is the list of swear words"
        if not self.has_model and importlib.util.find_spec("better_profanity") is None:
            yield ("name",), f"the list of swear words is not installed: {install_command('toxicity')}"


class Toxicity(Filter):
    """`filters: [toxicity]`."""

    name = "toxicity"
    summary = "toxic texts that a model would learn to say"
    Options = ToxicityOptions
    options: ToxicityOptions
    _score: Scorer | None = None

    def open(self, surroundings: Surroundings) -> None:
        """Opens the model where one scores."""
        if not self.options.has_model:
            surroundings.warn(LEXICON_WARNING)
            return
        from pipelines.scoring.raters import open_scorer

        _, self._score = open_scorer(self.options, surroundings, "float32")  # type: ignore[arg-type]

    def judge(self, pieces: Sequence[Piece]) -> Verdict:
        """What a model learns to say counts; not the prompt, and not the answer that it learns to avoid."""
        if self._score is None:
            self._score = lexicon()  # in each process, as the list cannot be handed over
        for piece in pieces:
            if piece.part in ("text", "completion"):
                score = self._score("", piece.text)
                if score >= self.options.threshold:
                    return Verdict("toxic", f"{piece.part}: {score:.2f}")
        return KEEP
