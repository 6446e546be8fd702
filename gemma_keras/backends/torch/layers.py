"""Norm, rotation and the cache on PyTorch."""

import keras
import torch


def reshape(x, shape):
    """As `reference.reshape`. Keras would search the shape for symbols, which takes longer than a small product."""
    return x.reshape(shape)


def rms_norm(x, scale, epsilon):
    """As `reference.rms_norm`, one operation of torch instead of eight of Keras."""
    scale = keras.ops.convert_to_tensor(scale).float()
    return torch.nn.functional.rms_norm(x.float(), scale.shape, 1.0 + scale, epsilon).to(x.dtype)


def rotate(x, cos, sin):
    """As `reference.rotate`."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def update_cache(cache, new, index):
    """As `reference.update_cache`, in place: `ops.slice_update` would copy the whole cache at every token."""
    cache[:, index : index + new.shape[1]] = new.to(cache.dtype)
    return cache
