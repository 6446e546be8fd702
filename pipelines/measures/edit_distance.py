"""How many tokens lie between two sequences."""

import numpy as np
from numpy.typing import ArrayLike


def edit_distances(first: ArrayLike, lengths: ArrayLike, second: ArrayLike) -> np.ndarray:
    """The least number of insertions, deletions and substitutions that make one sequence of another, of many pairs at
    once.

    Args:
        first: int (n, t), sequences of which row i ends after `lengths[i]` tokens. lengths: int (n,).
        second: int (n, s), whole sequences.

    Returns:
        int (n,).

    Source: Wagner and Fischer 1974, The String-to-String Correction Problem.
    """
    first, lengths, second = (np.asarray(one, np.int64) for one in (first, lengths, second))
    rows, width = second.shape
    above = np.tile(np.arange(width + 1), (rows, 1))  # from an empty beginning of the first
    found = above[:, -1].copy()
    for place in range(first.shape[1]):
        here = np.empty_like(above)
        here[:, 0] = place + 1
        for column in range(width):
            changed = above[:, column] + (first[:, place] != second[:, column])
            here[:, column + 1] = np.minimum(changed, np.minimum(above[:, column + 1], here[:, column]) + 1)
        found = np.where(lengths == place + 1, here[:, -1], found)
        above = here
    return found
