"""The micro-batches in which a model scores a rollout: answers beside the prompt that they share, else several
responses a row where it saves work, else one a row."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.layout import Layout, Part, lay_out, may_pack, step_layout
from pipelines.sampling.shared_prompts import shared_parts
from pipelines.sampling.widths import part_shapes

if TYPE_CHECKING:
    from pipelines.sampling.rollout import Rollout

Arrays = dict[str, np.ndarray]


def scoring_parts(rollout: "Rollout", micro_batch_size: int) -> Iterator[tuple[Arrays, np.ndarray]]:
    """What `model.score` takes, in at most 4 shapes in a stage, or in the few of `shared_parts`.

    Args:
        rollout: n responses. micro_batch_size: responses of a forward pass without packing; with it a pass holds no
            more positions.

    Yields:
        arrays: as of `Rollout.model_inputs`, `target_ids` and what goes with it of k responses, True in `response_mask`
        where one is real; with several in a row also positions and segment_ids int32 (b, t) and target_rows int32 (k,
        m).
        rows: int (at most k,), which responses these are.
    """
    prompt_slots, response_slots = rollout.prompt_ids.shape[1], rollout.response_ids.shape[1]
    full = prompt_slots + response_slots
    shared = shared_parts(rollout, micro_batch_size) if rollout.answers_per_prompt > 1 else None
    layout = step_layout(_lengths(rollout), full, micro_batch_size) if shared is None else None
    if shared is not None:
        yield from shared
    elif layout is not None:
        for part in layout.parts[0]:
            yield _packed(rollout, part, layout), part.items
    elif may_pack(len(rollout), full, micro_batch_size):  # other steps are packed: one shape more
        yield from plain_parts(rollout, micro_batch_size, [(full, response_slots)])
    else:
        yield from plain_parts(rollout, micro_batch_size, part_shapes(prompt_slots, response_slots))


def plain_parts(
    rollout: "Rollout", size: int, shapes: Sequence[tuple[int, int]]
) -> Iterator[tuple[Arrays, np.ndarray]]:
    """As `scoring_parts`, one response a row: those of alike length together, in parts of exactly `size` rows, each as
    wide as its own need it; the last is filled up with rows that do not count.

    Args:
        shapes: (t, m) of rows, rising; the last holds every response.
    """
    lengths = _lengths(rollout)
    which = np.argmax([(lengths <= t) & (rollout.lengths <= m) for t, m in shapes], axis=0)
    order = np.argsort(which, kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        arrays = rollout.model_inputs(
            np.concatenate([rows, np.repeat(rows[:1], size - len(rows))]), *shapes[which[rows[-1]]]
        )
        arrays["response_mask"][len(rows) :] = False
        arrays["padding_mask"][len(rows) :, 1:] = False
        yield arrays, rows


def _lengths(rollout: "Rollout") -> np.ndarray:
    return rollout.prompt_is_token.sum(axis=1) + rollout.lengths


def _packed(rollout: "Rollout", part: Part, layout: Layout) -> Arrays:
    items, count = part.items, layout.most_items()
    sequences = [rollout.prompt_list(item) + rollout.response_list(item) for item in items]
    arrays, row_of, start_of = lay_out(sequences, part, layout.width, layout.rows_of(part))
    shape = (count, rollout.response_ids.shape[1])
    mask = np.zeros(shape, bool)
    target_ids, target_rows, target_positions = np.zeros((3, *shape), np.int32)
    mask[: len(items)] = rollout.response_mask[items]
    target_ids[: len(items)] = rollout.response_ids[items]
    target_rows[: len(items)] = row_of[:, None]
    first = start_of + rollout.prompt_is_token[items].sum(axis=1) - 1
    target_positions[: len(items)] = first[:, None] + np.arange(shape[1])
    return {
        **arrays,
        "target_ids": target_ids,
        "target_rows": target_rows,
        "target_positions": np.where(mask, target_positions, 0),
        "response_mask": mask,
    }


def full_parts(arrays: Arrays, rows: int) -> Iterator[tuple[Arrays, int]]:
    """Cuts arrays into parts of exactly `rows` rows, the last one filled up by repeating its first row.

    Yields:
        The part, and how many of its rows are real.
    """
    total = len(next(iter(arrays.values())))
    for start in range(0, total, rows):
        size = min(rows, total - start)
        index = np.arange(start, start + rows)
        index[size:] = start
        yield {name: values[index] for name, values in arrays.items()}, size
