"""A Gemma of our own as judge of pairs: by the chances of the two labels, or by an answer with reasoning."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma_keras.sampling import Sampler
from gemma_keras.text.chat import encode_prompt
from pipelines.host.parts import Keep, compute_now
from pipelines.measures.judges import TIE
from pipelines.sampling.answers_until import Question, UntilGenerator
from pipelines.sampling.continuation_batches import Continuation
from pipelines.sampling.continuations import ContinuationScorer
from pipelines.scoring.pairwise.base import (
    READ,
    TOO_LONG,
    Advance,
    Comparison,
    PairwiseJudge,
    Verdicts,
    advance_nothing,
    by_odds,
)
from pipelines.scoring.pairwise.questions import LABELS, LEAD, question_text, read_answers

NEXT_REQUEST = "\n[Request]"
"""Where a model that was not tuned to turns begins a question of its own."""


class LocalJudge(PairwiseJudge):
    """Abstract: how a question becomes ids, and which are too long.

    Args:
        source: what figures call it. model: GemmaCausalLM with a tokenizer.
        with_turns: ask in a turn, as of a model that was tuned to them.
        max_length: tokens of a question and its answer.
    """

    def __init__(self, source: str, model: Any, with_turns: bool, max_length: int) -> None:
        self.source, self._tokenizer, self._with_turns, self._max_length = (
            source,
            model.tokenizer,
            with_turns,
            max_length,
        )

    def _ids(self, one: Comparison, with_reasoning: bool) -> list[int]:
        text = question_text(one, with_reasoning)
        if self._with_turns:
            return encode_prompt(self._tokenizer, text)
        end = "\n" if with_reasoning else f"\n\n{LEAD}"
        return [self._tokenizer.bos_token_id, *self._tokenizer.encode(text + end)]


class LikelihoodJudge(LocalJudge):
    """Prefers the answer whose label is the likelier continuation of the question; log-odds within 1e-6 are a tie.

    Args:
        batch_tokens: positions of a forward pass.
    """

    def __init__(self, source: str, model: Any, with_turns: bool, max_length: int, batch_tokens: int) -> None:
        super().__init__(source, model, with_turns, max_length)
        self._labels = [self._tokenizer.encode(label if with_turns else f" {label}") for label in LABELS]
        self._score = ContinuationScorer(model, batch_tokens, max_length)

    def decide(
        self, asked: Sequence[Comparison], keep: Keep = compute_now, advance: Advance = advance_nothing
    ) -> Verdicts:
        """See `PairwiseJudge.decide`."""
        contexts = [self._ids(one, False) for one in asked]
        fits = np.array([len(ids) + max(map(len, self._labels)) <= self._max_length for ids in contexts], bool)
        continuations = [
            Continuation(contexts[number], label, item=number, group=asked[number].rubric)
            for number in np.flatnonzero(fits).tolist()
            for label in self._labels
        ]
        log_odds = np.full(len(asked), np.nan)
        if continuations:
            in_pairs: Advance = lambda labels, tokens: advance(labels // 2, tokens)  # noqa: E731
            log_probs = self._score(continuations, keep, in_pairs).log_probs.reshape(-1, 2)
            log_odds[fits] = log_probs[:, 0] - log_probs[:, 1]
        state = np.where(fits, READ, TOO_LONG).astype(np.int8)
        return Verdicts(by_odds(log_odds, TIE), state, log_odds, [""] * len(asked))


class ReasoningJudge(LocalJudge):
    """Writes what it thinks, greedily, and then a verdict, see `read_verdict`.

    Args:
        max_new_tokens: of an answer. batch_tokens: of the questions and answers of a batch.
    """

    def __init__(
        self, source: str, model: Any, with_turns: bool, max_length: int, batch_tokens: int, max_new_tokens: int
    ) -> None:
        super().__init__(source, model, with_turns, max_length)
        self._max_new_tokens = max_new_tokens
        self._write = UntilGenerator(model, batch_tokens, max_length, seed=0)  # greedy: nothing is drawn

    def decide(
        self, asked: Sequence[Comparison], keep: Keep = compute_now, advance: Advance = advance_nothing
    ) -> Verdicts:
        """See `PairwiseJudge.decide`."""
        contexts = [self._ids(one, True) for one in asked]
        fits = [len(ids) + self._max_new_tokens <= self._max_length for ids in contexts]
        until = () if self._with_turns else (NEXT_REQUEST,)
        questions = [
            Question(ids, until, self._max_new_tokens, Sampler(temperature=0.0), (), one.rubric)
            for ids, one, is_asked in zip(contexts, asked, fits, strict=True)
            if is_asked
        ]
        written = iter(self._write(questions, keep, advance)[0] if questions else [])
        return read_answers([next(written) if is_asked else None for is_asked in fits])
