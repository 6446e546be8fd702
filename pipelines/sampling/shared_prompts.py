"""Answers beside the prompt that they share: where a policy drew several answers to a prompt, the prompt is read once
for all that stand in a row, forwards and backwards, and not once an answer.

Each answer continues the prompt's segment as a branch of its own (`gemma_keras.limits.BRANCHES`): it sees the prompt
and itself, at the positions that it has alone, so its log-probabilities are those that it has alone.

Shape letters: n responses, b rows, t positions, m response slots.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gemma_keras.limits import BRANCHES
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
        answers: int (k,), which responses, in the order of the batch. rows: of each row the prompts in it, each as the
            places in `answers` of those of its answers that stand in this row.
    """

    answers: np.ndarray
    rows: list[list[list[int]]]


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
        rows = [[pieces[i] for i in row] for row in best_fit(lengths, width)]
        parts.append(SharedPart((hand[:, None] * k + np.arange(k)).reshape(-1), rows))
    return parts


def _read_tokens(rollout: "Rollout") -> np.ndarray:
    """Tokens of each response that a model has to read, int (n,): nothing is asked after the last one."""
    return np.maximum(rollout.lengths - 1, 0)


def _laid_out(rollout: "Rollout", part: SharedPart, shape: tuple[int, int], most: int) -> "Arrays":
    """The arrays of `scoring_parts`, (b, t) as `shape` says, for up to `most` answers."""
    token_ids, positions, segments = np.zeros((3, *shape), np.int32)
    mask = np.zeros((most, rollout.response_ids.shape[1]), bool)
    target_ids, target_rows, target_positions = np.zeros((3, *mask.shape), np.int32)
    mask[: len(part.answers)] = rollout.response_mask[part.answers]
    target_ids[: len(part.answers)] = rollout.response_ids[part.answers]
    for row, prompts in enumerate(part.rows):
        end = 0
        for segment, places in enumerate(prompts, 1):
            prompt = rollout.prompt_list(int(part.answers[places[0]]))
            start, end = end, end + len(prompt)
            last = end - 1
            token_ids[row, start:end], segments[row, start:end] = prompt, segment
            positions[row, start:end] = np.arange(len(prompt))
            for branch, place in enumerate(places, 1):
                answer = rollout.response_list(int(part.answers[place]))[:-1]
                start, end = end, end + len(answer)
                token_ids[row, start:end], segments[row, start:end] = answer, branch * BRANCHES + segment
                positions[row, start:end] = len(prompt) + np.arange(len(answer))
                target_rows[place] = row
                target_positions[place, : len(answer) + 1] = [last, *range(start, end)]
    return {
        "token_ids": token_ids,
        "padding_mask": segments > 0,
        "positions": positions,
        "segment_ids": segments,
        "target_ids": target_ids,
        "target_rows": target_rows,
        "target_positions": np.where(mask, target_positions, 0),
        "response_mask": mask,
    }
