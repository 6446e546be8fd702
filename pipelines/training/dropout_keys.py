"""What an adapter drops its inputs by: a key a row, which does not depend on the batch around it."""

import numpy as np

from gemma_keras.random import generator

DROPOUT_KEYS = "dropout_keys"
"""Name of the keys in a model's inputs."""


def dropout_keys(seed: int, stage: str, step: int, row_index: np.ndarray, rows: int) -> np.ndarray:
    """What each row of a batch drops its adapter's inputs by: int32 (rows,).

    Args:
        seed, stage, step: of the update.
        row_index: int (b,), the rows of the data, -1 for filling: a row's key does not depend on the batch around it.
        rows: a multiple of b. A batch of pairs has two sequences a row, first all chosen, then all rejected ones.
    """
    sides = range(rows // len(row_index))
    keys = [
        generator(seed, stage, "dropout", step, row, side).integers(2**31)
        for side in sides
        for row in row_index.tolist()
    ]
    return np.array(keys, np.int32)
