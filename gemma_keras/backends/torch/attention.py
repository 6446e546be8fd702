"""Attention on PyTorch."""

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from gemma_keras.backends import reference
from gemma_keras.limits import BRANCHES

BLOCK = 256


def attention(queries, keys, values, visible, soft_cap=None):
    """As `reference.attention`, through torch's fused kernel where there is no soft cap.

    The query heads of one key-value head are laid out as further query rows, so that keys and values are never
    repeated.
    """
    if soft_cap is not None:
        return reference.attention(queries, keys, values, visible, soft_cap)
    batch, time, heads, head_dim = queries.shape
    shared, slots = keys.shape[2], keys.shape[1]
    group = heads // shared
    by_head = (keys.transpose(1, 2), values.transpose(1, 2))
    if time == 1:  # a token in decoding: nothing has to be laid out anew, and one mask serves all heads
        rows = queries.reshape(batch, shared, group, head_dim)
        mixed = scaled_dot_product_attention(rows, *by_head, attn_mask=visible[:, None], scale=1.0)
        return mixed.reshape(queries.shape)
    rows = (
        queries.reshape(batch, time, shared, group, head_dim)
        .permute(0, 2, 3, 1, 4)
        .reshape(batch, shared, group * time, head_dim)
    )
    mask = visible[:, None, None].expand(batch, 1, group, time, slots).reshape(batch, 1, group * time, slots)
    mixed = scaled_dot_product_attention(rows, *by_head, attn_mask=mask, scale=1.0)
    return mixed.reshape(batch, shared, group, time, head_dim).permute(0, 3, 1, 2, 4).reshape(queries.shape)


def causal_attention(queries, keys, values, tokens, soft_cap=None):
    """As `reference.causal_attention`: torch's causal kernel where nothing but the order of tokens hides a key, else a
    block of queries at a time, whose scores and mask are computed again in the backward pass."""
    if tokens.is_plain and tokens.window is None and soft_cap is None:
        return _fused(queries, keys, values, is_causal=True)
    time, positions, segments = queries.shape[1], tokens.positions, tokens.segments

    def of_block(queries, keys, values, own, seen):
        at = (positions[:, own], segments[:, own], positions[:, seen], segments[:, seen])
        visible = reference.attention_mask(*at, tokens.window)
        if soft_cap is not None:
            return reference.attention(queries, keys, values, visible, soft_cap)
        return _fused(queries, keys, values, attn_mask=visible[:, None])

    # Where other branches may lie between a query and what it sees, places are no distances.
    window = None if tokens.window is None or _has_branches(tokens) else tokens.window
    mixed = []
    for start in range(0, time, BLOCK):
        end = min(start + BLOCK, time)
        first = 0 if window is None else max(0, start - window + 1)
        own, seen = slice(start, end), slice(first, end)
        arguments = (queries[:, own], keys[:, seen], values[:, seen], own, seen)
        mixed.append(checkpoint(of_block, *arguments, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(mixed, dim=1)


def is_plain(segments):
    """Whether no row has a second segment, or padding before its tokens: then the order of places alone says who sees
    whom. One look at the device for all layers."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False  # a compiled program is not to depend on the numbers of its first call
    before, after = segments[:, :-1], segments[:, 1:]
    return bool(((after == before) | (after == 0)).all())


def _has_branches(tokens):
    return not (tokens.is_plain or torch.compiler.is_compiling()) and bool((tokens.segments >= BRANCHES).any())


def _fused(queries, keys, values, **mask):
    # Every head with keys of its own: not all of torch's kernels share them. With one key-value head nothing is copied.
    keys, values = (
        x[:, :, :, None].expand(-1, -1, -1, queries.shape[2] // x.shape[2], -1).flatten(2, 3) for x in (keys, values)
    )
    arguments = (x.transpose(1, 2) for x in (queries, keys, values))
    return scaled_dot_product_attention(*arguments, scale=1.0, **mask).transpose(1, 2)
