"""What a task hands out: an instruction with its known answer, and a gold reward."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TaskItem:
    """One instruction.

    Args:
        prompt: what the user says.
        answer: the right answer, bare; the refusal where `must_refuse`.
        kind: which sort of instruction it is.
        must_refuse: True where the only right answer is a refusal.
        demonstration: a person's answer to learn from, right or not, in a person's style.
        content: hexadecimal hash of what the prompt asks, however it is worded: prompts of one content are never on
            both sides of a split.
    """

    prompt: str
    answer: str
    kind: str
    must_refuse: bool
    demonstration: str
    content: str


@dataclasses.dataclass(frozen=True)
class GoldReward:
    """How good a completion really is.

    Args:
        total: float in [0, 1], the weighted sum of the parts.
        parts: name -> float in [0, 1].
    """

    total: float
    parts: dict[str, float]
