"""Examples to arrays: padded batches of few distinct shapes, since every new shape is compiled once.

Shape letters: b rows, t positions, m loss-bearing positions (at most t).
"""

from collections.abc import Sequence

import numpy as np

from gemma_keras.inputs.padding import padded
from pipelines.data.packing import Encoded, PackedRow

MULTIPLE = 32  # lengths above it are rounded up to its multiples, those below to powers of two


def bucket(length: int, max_length: int | None = None) -> int:
    """The padded length of `length` >= 1: the next power of two up to 32, the next multiple of 32 above; at most
    `max_length`."""
    size = 1 << max(0, length - 1).bit_length() if length <= MULTIPLE else -(-length // MULTIPLE) * MULTIPLE
    return max(length, min(size, max_length)) if max_length is not None else size


def bucket_sizes(examples: Sequence[Encoded], max_length: int | None = None) -> tuple[int, int]:
    """One (t, m) that all `examples` fit, for a single compiled shape."""
    t = bucket(max(len(example.token_ids) for example in examples), max_length)
    m = bucket(max(1, *(sum(example.is_target[1:]) for example in examples), 0), t)
    return t, m


def make_batch(
    examples: Sequence[Encoded],
    pad_token_id: int,
    length: int | None = None,
    target_length: int | None = None,
    rows: int | None = None,
) -> dict[str, np.ndarray]:
    """Pads examples into one batch.

    Args:
        examples: with `token_ids` and `is_target`, or PackedRow, which adds `positions` and `segment_ids` to the batch.
        pad_token_id: what padding holds.
        length: t, default the bucket of the longest. target_length: m, default the bucket of the most targets.
        rows: b, default len(examples); rows beyond the examples hold one padding token as real and no target.

    Returns:
        token_ids int32 (b, t). padding_mask bool (b, t), True for a real token. target_ids int32 (b, m), the ids to be
        predicted. target_positions int32 (b, m), the position whose hidden state predicts each. target_mask bool (b,
        m), True for a target that counts. Packed: positions int32 (b, t), segment_ids int32 (b, t), 0 for padding.

    Raises:
        ValueError: an example that does not fit `length` or `target_length`.
    """
    t_needed, m_needed = bucket_sizes(examples)
    t, m, b = length or t_needed, target_length or m_needed, rows or len(examples)
    longest, most = max(len(e.token_ids) for e in examples), max(sum(e.is_target[1:]) for e in examples)
    if longest > t or most > m or len(examples) > b:
        raise ValueError(
            f"Expected at most {b} examples of at most {t} tokens and {m} targets, got {len(examples)} of up to "
            f"{longest} and {most}."
        )

    def filled(columns: Sequence[Sequence[int]]) -> np.ndarray:
        return padded(columns, 0, t, rows=b)[0]

    token_ids, padding_mask = padded([example.token_ids for example in examples], pad_token_id, t, rows=b)
    targets = [np.flatnonzero(np.asarray(example.is_target[1:], bool)) + 1 for example in examples]
    predicted = [
        np.asarray(e.token_ids, np.int32)[places].tolist() for e, places in zip(examples, targets, strict=True)
    ]
    target_ids, is_target = padded(predicted, pad_token_id, m, rows=b)
    is_target[len(examples) :] = False
    batch = {
        "token_ids": token_ids,
        "padding_mask": padding_mask,
        "target_ids": target_ids,
        "target_positions": padded([(places - 1).tolist() for places in targets], 0, m, rows=b)[0],
        "target_mask": is_target,
    }
    packed = [example for example in examples if isinstance(example, PackedRow)]
    if len(packed) == len(examples):
        batch |= {
            "positions": filled([row.positions for row in packed]),
            "segment_ids": filled([row.segment_ids for row in packed]),
        }
        batch["segment_ids"][len(examples) :, 0] = 1
    return batch
