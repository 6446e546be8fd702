"""Reading the hidden states of chosen positions, also where several sequences lie in one row."""

from keras import ops


def chosen_states(hidden, positions, rows=None):
    """The states at `positions`.

    Args:
        hidden: float (b, t, d).
        positions: int (b, m), places in each row; or, with `rows`, int of any shape.
        rows: int, of the shape of `positions`: the row that each is read from.

    Returns:
        float (*positions.shape, d), differentiable.
    """
    positions = ops.cast(positions, "int32")
    if rows is None:
        return ops.take_along_axis(hidden, positions[:, :, None], axis=1)
    flat = ops.reshape(hidden, (-1, hidden.shape[-1]))
    return ops.take(flat, ops.cast(rows, "int32") * ops.shape(hidden)[1] + positions, axis=0)
