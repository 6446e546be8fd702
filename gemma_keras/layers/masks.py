"""Who may attend to whom, from positions and segments alone."""

from keras import ops


def attention_mask(query_positions, query_segments, key_positions, key_segments, window: int | None = None):
    """True where a query may see a key.

    A key is visible when it lies in the query's segment, not later than it and, in a local layer, less than `window`
    positions before it.
    Segment 0 is padding: padded queries see padded keys only, so no row is empty and no softmax divides by zero.

    Args:
        query_positions, query_segments: int (b, t).
        key_positions, key_segments: int (b, s).
        window: keys with `query position - key position >= window` are hidden; None for a global layer.

    Returns:
        bool (b, t, s).
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    visible = ops.logical_and(distance >= 0, query_segments[:, :, None] == key_segments[:, None, :])
    if window is not None:
        visible = ops.logical_and(visible, distance < window)
    return visible


def positions_from_padding(padding_mask):
    """Position of each token among the real tokens of its row: int32 (b, t); padding gets 0.

    Args:
        padding_mask: bool (b, t), True is a real token, padding on either side.
    """
    counts = ops.cumsum(ops.cast(padding_mask, "int32"), axis=1)
    return ops.where(padding_mask, counts - 1, 0)
