"""Instructions and their right answers, without any style: a kind draws (prompt, answer) from a random generator."""

from typing import Any

import numpy as np

from pipelines.tasks.small_world.world import RELATIONS, THINGS

# How often each kind is drawn, in percent.
KINDS = {"copy": 14, "first": 10, "last": 10, "reverse": 14, "largest": 12, "count": 10, "fact": 20, "two_facts": 10}
WORDINGS = {
    "copy": ("copy: {}", "say again: {}"),
    "first": ("first of: {}", "what is first: {}"),
    "last": ("last of: {}", "what is last: {}"),
    "reverse": ("reverse: {}", "turn around: {}"),
    "largest": ("largest of: {}", "what is largest: {}"),
    "count": ("count: {}", "how many: {}"),
}
# A question about one fact opens in one of these ways: part of its wording, hence of its content.
OPENINGS = ("", "tell me, ", "now, ", "please, ")


def draw_kind(random: np.random.Generator) -> str:
    """A kind, by the shares in `KINDS`."""
    point = random.random() * sum(KINDS.values())
    for kind, share in KINDS.items():
        point -= share
        if point < 0:
            return kind
    return kind


def draw_instruction(kind: str, random: np.random.Generator) -> tuple[str, str]:
    """A prompt of this kind and its right answer."""
    if kind == "fact":
        relation = _choice(random, tuple(RELATIONS.values()))
        subject = _choice(random, tuple(relation.values))
        question = _choice(random, OPENINGS) + _choice(random, relation.questions).format(subject=subject)
        return question, relation.values[subject]
    if kind == "two_facts":
        relation = _choice(random, tuple(RELATIONS.values()))
        subjects = tuple(relation.values)
        first, second = (subjects[i] for i in random.choice(len(subjects), 2, replace=False))
        prompt = relation.pair_question.format(first=first, second=second)
        return prompt, f"{relation.values[first]} and {relation.values[second]}"
    values = _draw_list(kind, random)
    return _choice(random, WORDINGS[kind]).format(" ".join(values)), answer_of_list(kind, values)


def answer_of_list(kind: str, values: list[str]) -> str:
    """The right answer to an instruction about the list `values`."""
    if kind == "copy":
        return " ".join(values)
    if kind == "first":
        return values[0]
    if kind == "last":
        return values[-1]
    if kind == "reverse":
        return " ".join(reversed(values))
    if kind == "largest":
        return max(values, key=int)
    return str(len(values))


def _draw_list(kind: str, random: np.random.Generator) -> list[str]:
    if kind == "largest":
        size = int(random.integers(3, 6))
        return [str(x) for x in random.choice(10, size, replace=False)]
    low, high = {"copy": (2, 5), "reverse": (2, 4), "count": (1, 6)}.get(kind, (3, 5))
    size = int(random.integers(low, high + 1))
    # Of the numbers of the things: choosing among texts would make an array of them first.
    return [THINGS[i] for i in random.choice(len(THINGS), size, replace=kind == "count")]


def _choice(random: np.random.Generator, options: tuple) -> Any:
    return options[int(random.integers(len(options)))]
