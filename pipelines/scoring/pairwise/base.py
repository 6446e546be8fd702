"""What every judge of pairs is asked, and what it gives."""

import abc
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipelines.data.hh_rlhf import Message
from pipelines.host.parts import Keep, compute_now

READ, UNREADABLE, TOO_LONG = 0, 1, 2
"""What became of a question: it has a verdict, the answer holds none, or the judge cannot read so much."""

FIRST, NEITHER, SECOND = 1, 0, -1

Advance = Callable[[int, int], None]
"""Called with how many questions are done since, and how many tokens that took."""


def advance_nothing(questions: int, tokens: int) -> None:
    """An `Advance` that shows nothing."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A question to a judge.

    Args:
        rubric: what makes an answer good. prompt: text or turns. first, second: the answers in the order shown.
        origin: where the prompt stands, for messages. key: what draws of a judge are keyed by, beside the seed.
    """

    rubric: str
    prompt: str | list[Message]
    first: str
    second: str
    origin: str
    key: tuple[int | str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """Of n questions.

    Args:
        choice: int8 (n,): `FIRST`, `SECOND` or `NEITHER`; what has no verdict is `NEITHER`, never a win.
        state: int8 (n,): `READ`, `UNREADABLE` or `TOO_LONG`.
        log_odds: float64 (n,), of the first over the second in nats; NaN where the judge does not say.
        answers: what the judge wrote, "" where it only chose.
    """

    choice: np.ndarray
    state: np.ndarray
    log_odds: np.ndarray
    answers: list[str]

    def __len__(self) -> int:
        return len(self.choice)

    def arrays(self) -> dict[str, np.ndarray]:
        """As one part of a stage's work."""
        texts = np.frombuffer(json.dumps(self.answers).encode(), np.uint8)
        return {"choice": self.choice, "state": self.state, "log_odds": self.log_odds, "answers": texts}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Verdicts":
        """The other way."""
        answers = json.loads(bytes(arrays["answers"]).decode())
        return cls(arrays["choice"], arrays["state"], arrays["log_odds"], answers)

    @classmethod
    def joined(cls, parts: Sequence["Verdicts"]) -> "Verdicts":
        """Those of several parts, in their order."""
        none = [cls(np.zeros(0, np.int8), np.zeros(0, np.int8), np.zeros(0), [])]
        parts = list(parts) or none
        return cls(
            np.concatenate([part.choice for part in parts]),
            np.concatenate([part.state for part in parts]),
            np.concatenate([part.log_odds for part in parts]),
            [answer for part in parts for answer in part.answers],
        )


class PairwiseJudge(abc.ABC):
    """Prefers one of two answers. `source`: what figures call it."""

    source: str

    @abc.abstractmethod
    def decide(
        self, asked: Sequence[Comparison], keep: Keep = compute_now, advance: Advance = advance_nothing
    ) -> Verdicts:
        """The verdicts, in the order asked.

        Args:
            keep: keeps the arrays of each part, for when this is interrupted. advance: called after each part.
        """


def by_odds(log_odds: np.ndarray, tie: float) -> np.ndarray:
    """The choice that log-odds stand for, int8 (n,): neither within `tie` of 0, and where they are NaN."""
    known = np.nan_to_num(log_odds, nan=0.0)
    return (np.sign(known) * (np.abs(known) > tie)).astype(np.int8)
