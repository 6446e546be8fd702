"""Attention on PyTorch."""

import torch

from gemma_keras.backends import reference


def attention(queries, keys, values, visible, soft_cap=None):
    """As `reference.attention`, through torch's fused kernel where there is no soft cap.

    The query heads of one key-value head are laid out as further query rows, so that keys and values are never
    repeated.
    """
    if soft_cap is not None:
        return reference.attention(queries, keys, values, visible, soft_cap)
    batch, time, heads, head_dim = queries.shape
    shared = keys.shape[2]
    group = heads // shared
    rows = (
        queries.reshape(batch, time, shared, group, head_dim)
        .permute(0, 2, 3, 1, 4)
        .reshape(batch, shared, group * time, head_dim)
    )
    mask = (
        visible[:, None, None]
        .expand(batch, 1, group, time, keys.shape[1])
        .reshape(batch, 1, group * time, keys.shape[1])
    )
    mixed = torch.nn.functional.scaled_dot_product_attention(
        rows, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask, scale=1.0
    )
    return (
        mixed.reshape(batch, shared, group, time, head_dim).permute(0, 3, 1, 2, 4).reshape(batch, time, heads, head_dim)
    )
