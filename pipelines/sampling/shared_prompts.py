"""Answers beside the prompt that they share: where a policy drew several answers to a prompt, the prompt is read once
for all that stand in a row, forwards and backwards, and not once an answer (`pipelines/data/branches.py`).

Shape letters: n responses, b rows, t positions, m response slots.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.branches import Branches, lay_out_branches
from pipelines.data.layout import step_shapes
from pipelines.data.packing import best_fit
from pipelines.data.shapes import ONE_SHAPE

if TYPE_CHECKING:
    from pipelines.sampling.parts import Arrays
    from pipelines.sampling.rollout import Rollout

SHARES = tuple(0.75**power for power in range(12, 0, -1))
"""Of what padding takes: the shapes that a step may have, of which the responses of a stage meet two or three."""


@dataclasses.dataclass(frozen=True)
class SharedPart:
    """The answers of one micro-batch.

    Args:
        answers: int (k,), which responses, in the order of the batch. pieces: prompts with those of their answers that
            stand together, these as places in `answers`. rows: of each row the pieces in it.
    """

    answers: np.ndarray
    pieces: list[list[int]]
    rows: list[list[int]]


def shared_parts(rollout: "Rollout", micro_batch_size: int) -> Iterator[tuple["Arrays", np.ndarray]] | None:
    """As `scoring_parts`, of a rollout whose answers share prompts; None where that saves nothing.

    Args:
        rollout: n responses, of which each `answers_per_prompt` in turn have one prompt.
        micro_batch_size: responses of a forward pass, one a row: as many positions one of these has at most.
    """
    full = rollout.prompt_ids.shape[1] + rollout.response_ids.shape[1]
    width, groups = max(full, ONE_SHAPE), len(rollout) // rollout.answers_per_prompt
    for count, rows in step_shapes(len(rollout), full, micro_batch_size, SHARES):
        if count > groups:
            return None  # a part would hold less than all answers to a prompt
        parts = _dealt(rollout, count, width)
        if max(len(part.rows) for part in parts) <= rows:
            most = max(len(part.answers) for part in parts)
            return ((_laid_out(rollout, part, (rows, width), most), part.answers) for part in parts)
    return None


def _dealt(rollout: "Rollout", count: int, width: int) -> list[SharedPart]:
    """Prompts with all their answers dealt to parts, the longest first, so that all hold about as many tokens."""
    k = rollout.answers_per_prompt
    answers = _read_tokens(rollout).reshape(-1, k)
    prompts = rollout.prompt_is_token[::k].sum(axis=1)
    ordered = np.argsort(-(prompts + answers.sum(axis=1)), kind="stable")
    parts = []
    for hand in (ordered[first::count] for first in range(count)):
        pieces, lengths = [], []
        for place, group in enumerate(hand.tolist()):
            for chosen in best_fit(answers[group].tolist(), width - int(prompts[group])):
                pieces.append([place * k + answer for answer in chosen])
                lengths.append(int(prompts[group] + answers[group][chosen].sum()))
        parts.append(SharedPart((hand[:, None] * k + np.arange(k)).reshape(-1), pieces, best_fit(lengths, width)))
    return parts


def _read_tokens(rollout: "Rollout") -> np.ndarray:
    """Tokens of each response that a model has to read, int (n,): nothing is asked after the last one."""
    return np.maximum(rollout.lengths - 1, 0)


def _laid_out(rollout: "Rollout", part: SharedPart, shape: tuple[int, int], most: int) -> "Arrays":
    """The arrays of `scoring_parts`, (b, t) as `shape` says, for up to `most` answers."""
    mask = np.zeros((most, rollout.response_ids.shape[1]), bool)
    target_ids, target_rows, target_positions = np.zeros((3, *mask.shape), np.int32)
    mask[: len(part.answers)] = rollout.response_mask[part.answers]
    target_ids[: len(part.answers)] = rollout.response_ids[part.answers]
    families = []
    for piece in part.pieces:
        answers = [rollout.response_list(int(part.answers[place]))[:-1] for place in piece]
        families.append(Branches(rollout.prompt_list(int(part.answers[piece[0]])), answers))
    arrays, places = lay_out_branches(families, part.rows, shape)
    for piece, place, family in zip(part.pieces, places, families, strict=True):
        for number, answer in enumerate(piece):
            asked = place.length - 1 + np.arange(len(family.ends[number]) + 1)
            target_rows[answer] = place.row
            target_positions[answer, : len(asked)] = place.positions(number, asked)
    return {
        **arrays,
        "target_ids": target_ids,
        "target_rows": target_rows,
        "target_positions": np.where(mask, target_positions, 0),
        "response_mask": mask,
    }
