"""Examples to arrays: padded batches of few distinct shapes, since every new shape is compiled once.

Shape letters: b rows, t positions, m loss-bearing positions (at most t).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from gemma_keras.random import generator
from pipelines.data.packing import Encoded, PackedRow

MULTIPLE = 32  # lengths above it are rounded up to its multiples, those below to powers of two


def bucket(length: int, max_length: int | None = None) -> int:
    """The padded length of `length` >= 1: the next power of two up to 32, the next multiple of 32 above; at most `max_length`."""
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
    padding_side: str = "right",
) -> dict[str, np.ndarray]:
    """Pads examples into one batch.

    Args:
        examples: with `token_ids` and `is_target`, or PackedRow, which adds `positions` and `segment_ids` to the batch.
        pad_token_id: what padding holds.
        length: t, default the bucket of the longest. target_length: m, default the bucket of the most targets.
        rows: b, default len(examples); rows beyond the examples hold one padding token as real and no target.
        padding_side: "right" or "left".

    Returns:
        token_ids int32 (b, t). padding_mask bool (b, t), True for a real token. target_ids int32 (b, m), the ids to be predicted.
        target_positions int32 (b, m), the position whose hidden state predicts each. target_mask bool (b, m), True for a target that
        counts. Packed: positions int32 (b, t), segment_ids int32 (b, t), 0 for padding.

    Raises:
        ValueError: an example that does not fit `length` or `target_length`.
    """
    t_needed, m_needed = bucket_sizes(examples)
    t, m, b = length or t_needed, target_length or m_needed, rows or len(examples)
    longest, most = max(len(e.token_ids) for e in examples), max(sum(e.is_target[1:]) for e in examples)
    if longest > t or most > m or len(examples) > b:
        raise ValueError(
            f"Expected at most {b} examples of at most {t} tokens and {m} targets, got {len(examples)} of up to {longest} and {most}."
        )
    batch = {
        "token_ids": np.full((b, t), pad_token_id, np.int32),
        "padding_mask": np.zeros((b, t), bool),
        "target_ids": np.full((b, m), pad_token_id, np.int32),
        "target_positions": np.zeros((b, m), np.int32),
        "target_mask": np.zeros((b, m), bool),
    }
    packed = all(isinstance(example, PackedRow) for example in examples)
    if packed:
        batch |= {"positions": np.zeros((b, t), np.int32), "segment_ids": np.zeros((b, t), np.int32)}
    for row, example in enumerate(examples):
        size = len(example.token_ids)
        start = t - size if padding_side == "left" else 0
        real = slice(start, start + size)
        batch["token_ids"][row, real] = example.token_ids
        batch["padding_mask"][row, real] = True
        targets = np.flatnonzero(np.asarray(example.is_target[1:], bool)) + 1
        batch["target_ids"][row, : len(targets)] = np.asarray(example.token_ids, np.int32)[targets]
        batch["target_positions"][row, : len(targets)] = targets - 1 + start
        batch["target_mask"][row, : len(targets)] = True
        if isinstance(example, PackedRow) and packed:
            batch["positions"][row, real] = example.positions
            batch["segment_ids"][row, real] = example.segment_ids
    for row in range(len(examples), b):  # attention over no key at all is 0/0
        batch["padding_mask"][row, 0] = True
        if packed:
            batch["segment_ids"][row, 0] = 1
    return batch


def left_padded(sequences: Sequence[Sequence[int]], pad_token_id: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Prompts padded on the left, as generation takes them.

    Args:
        sequences: token ids of each prompt, at least one each.
        length: P, default the bucket of the longest.

    Returns:
        prompt_ids int32 (b, P). prompt_is_token bool (b, P), True for a real token.
    """
    longest = max(len(sequence) for sequence in sequences)
    length = length or bucket(longest)
    if longest > length or not all(sequences):
        raise ValueError(f"Expected prompts of 1 to {length} tokens, got {min(map(len, sequences))} to {longest}.")
    ids = np.full((len(sequences), length), pad_token_id, np.int32)
    is_token = np.zeros((len(sequences), length), bool)
    for row, sequence in enumerate(sequences):
        ids[row, length - len(sequence) :] = sequence
        is_token[row, length - len(sequence) :] = True
    return ids, is_token


def epoch_batches(
    examples: Sequence[Encoded], batch_size: int, pad_token_id: int, seed: int, epoch: int, max_length: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """One epoch in an order that depends on (seed, epoch) alone, in batches of one shape; the last is filled up.

    Rows that fill up hold no target, so they do not count.
    """
    t, m = bucket_sizes(examples, max_length)
    order = generator(seed, "shuffle", epoch).permutation(len(examples))
    for start in range(0, len(order), batch_size):
        chosen = [examples[i] for i in order[start : start + batch_size]]
        yield make_batch(chosen, pad_token_id, length=t, target_length=m, rows=batch_size)


def split_heldout(size: int, fraction: float, seed: int, *keys: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Splits `size` examples at random, keyed by (seed, *keys).

    Args:
        fraction: share held out, in [0, 1); at least one example is held out where it is above 0 and two or more exist.

    Returns:
        train, heldout: int arrays of indices, each in rising order, disjoint and together all.
    """
    count = min(size - 1, max(1, round(size * fraction))) if fraction > 0 and size > 1 else 0
    order = generator(seed, *keys, "heldout").permutation(size)
    return np.sort(order[count:]), np.sort(order[:count])


def count_tokens(batch: dict[str, np.ndarray]) -> dict[str, int]:
    """Real tokens and loss-bearing tokens of a batch."""
    return {"tokens": int(batch["padding_mask"].sum()), "target_tokens": int(batch["target_mask"].sum())}
