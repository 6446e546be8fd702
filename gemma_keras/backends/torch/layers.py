"""Norm, rotation and the cache on PyTorch."""

import torch

from gemma_keras.backends.torch.packed import norm_factor


def reshape(x, shape):
    """As `reference.reshape`. Keras would search the shape for symbols, which takes longer than a small product."""
    return x.reshape(shape)


def rms_norm(x, scale, epsilon):
    """As `reference.rms_norm`.

    One kernel on a GPU. On a CPU torch has none and makes eight operations of it; here they are half as many.
    """
    x32, size = x.float(), x.shape[-1]
    if x.device.type != "cpu":
        return torch.nn.functional.rms_norm(x32, (size,), norm_factor(scale), epsilon).to(x.dtype)
    # The length of the row, epsilon included: sqrt(size) times the root of the mean square.
    length = torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square().add_(size * epsilon).sqrt_()
    return (x32 / length * norm_factor(scale, size**0.5)).to(x.dtype)


def rotate(x, cos, sin):
    """As `reference.rotate`."""
    turned = torch.cat(x.chunk(2, dim=-1)[::-1], dim=-1)
    return torch.addcmul(x * cos.to(x.dtype), turned, sin.to(x.dtype))


def gated_gelu(gate, x):
    """As `reference.gated_gelu`."""
    return torch.nn.functional.gelu(gate, approximate="tanh") * x


def update_cache(cache, new, index):
    """As `reference.update_cache`, in place: `ops.slice_update` would copy the whole cache at every token."""
    cache[:, index : index + new.shape[1]] = new.to(cache.dtype)
    return cache
