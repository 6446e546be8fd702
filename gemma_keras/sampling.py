"""From logits to a token, by inverse transform of a uniform number that the caller supplies.

A uniform has 24 bits, as many as float32 has for numbers just below 1, so a draw tells 2 ** 24 points of the
distribution apart. What that limits:

1. A token's chance is met to within 2 ** -24, 6e-8, beside the rounding of float32 sums: a token with a smaller chance
   is drawn with just that one or never. Of 262,144 tokens all such together hold less than 1/64 of the probability.
2. Equal uniforms give equal tokens only where the weights are equal: where the sums of two backends differ in a last
   bit, a uniform that falls between them draws the neighbour. The larger the vocabulary, the more often.
"""

import dataclasses
from typing import Any

from keras import ops

_BLOCK = 512
_KERAS_HUB_KINDS = {
    "GreedySampler": "greedy", "RandomSampler": "random", "TopKSampler": "top_k", "TopPSampler": "top_p",
    "BeamSampler": "beam", "ContrastiveSampler": "contrastive", "SpeculativeSampler": "speculative",
}  # fmt: skip
_NOT_HERE = {
    "beam": "there is no beam search here. Use 'greedy'; or draw several answers and keep the one with the largest sum "
    "of `token_log_probs`",
    "contrastive": "there is no contrastive search here. Use 'top_p' or 'top_k', which avoid repetitions too",
    "speculative": "there is no drafting model here. Use the sampler that it was to speed up, such as 'greedy'",
}


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a token is chosen.

    Args:
        temperature: float >= 0; logits are divided by it; 0 takes the most likely token.
        top_k: keep the k most likely tokens, or None. Ties with the k-th are kept.
        top_p: keep the smallest set of most likely tokens whose probability reaches it, in (0, 1], or None.
        seed: of `GemmaCausalLM.generate` where it is given none; or None.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"`temperature` must be >= 0. Received: temperature={self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"`top_k` must be >= 1. Received: top_k={self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1]. Received: top_p={self.top_p}")

    @classmethod
    def from_name(cls, name: Any) -> "Sampler":
        """The sampler that is meant.

        Args:
            name: a `Sampler`; "greedy", "random", "top_k" (k = 5) or "top_p" (p = 0.9); or one of KerasHub's sampler
                objects of these kinds, whose arguments and seed are taken over.

        Raises:
            ValueError: anything else; a search that is not drawn token by token says what to use.
        """
        if isinstance(name, cls):
            return name
        known = {"greedy": cls(temperature=0), "random": cls(), "top_k": cls(top_k=5), "top_p": cls(top_p=0.9)}
        kind = name if isinstance(name, str) else _kind_of_keras_hub(name)
        if kind in _NOT_HERE:
            raise ValueError(f"`sampler` {kind!r}: {_NOT_HERE[kind]}. Received: sampler={name!r}")
        if kind not in known:
            raise ValueError(
                f"`sampler` must be a `gemma_keras.Sampler`, one of {sorted(known)}, or KerasHub's sampler of such a "
                f"kind itself, no class made from it. Received: sampler={name!r}"
            )
        if isinstance(name, str):
            return known[kind]
        temperature = 0.0 if kind == "greedy" else name.temperature
        return cls(temperature, getattr(name, "k", None), getattr(name, "p", None), getattr(name, "seed", None))


def _kind_of_keras_hub(sampler: Any) -> str | None:
    """The name of the kind of one of KerasHub's own samplers, e.g. "top_k"; KerasHub need not be installed to ask."""
    kind = type(sampler)
    return _KERAS_HUB_KINDS.get(kind.__name__) if kind.__module__.startswith("keras_hub.") else None


def sample(logits, uniforms, sampler: Sampler):
    """One token a row.

    Args:
        logits: float32 (b, v).
        uniforms: float32 (b,) in [0, 1); unused at temperature 0.
        sampler: `Sampler`.

    Returns:
        token_ids: int32 (b,). log_probs: float32 (b,), of these tokens under the whole distribution at the sampler's
        temperature, whatever top_k and top_p cut off; at temperature 0, which has no distribution, at temperature 1.
    """
    logits = logits / (sampler.temperature or 1.0)
    shifted = logits - ops.max(logits, axis=-1, keepdims=True)
    weights = ops.exp(shifted)
    log_mass = ops.log(ops.sum(weights, axis=-1))
    if sampler.temperature == 0:
        token_ids = ops.cast(ops.argmax(logits, axis=-1), "int32")
    else:
        if sampler.top_k is not None and sampler.top_k < logits.shape[-1]:
            smallest_kept = ops.top_k(logits, sampler.top_k)[0][:, -1:]
            weights = ops.where(logits >= smallest_kept, weights, 0.0)
        if sampler.top_p is not None and sampler.top_p < 1:
            weights = _keep_top_p(weights, sampler.top_p)
        token_ids = inverse_transform(weights, uniforms)
    return token_ids, ops.take_along_axis(shifted, token_ids[:, None], axis=-1)[:, 0] - log_mass


def inverse_transform(weights, uniforms):
    """The token where the running sum of weights passes `uniform * total`.

    Sums run in two levels, blocks then tokens: a flat running sum over 256k float32 numbers is slow on JAX and inexact
    on TensorFlow. The result always has positive weight, also where rounding makes a running sum end below its total.

    Args:
        weights: float32 (b, v) >= 0, not all zero.
        uniforms: float32 (b,) in [0, 1).

    Returns:
        int32 (b,).
    """
    vocabulary = weights.shape[-1]
    block = min(_BLOCK, vocabulary)
    count = -(-vocabulary // block)
    blocks = ops.reshape(ops.pad(weights, ((0, 0), (0, count * block - vocabulary))), (-1, count, block))
    block_index, rest = _locate(ops.sum(blocks, axis=-1), uniforms, fraction=True)
    chosen = ops.take_along_axis(blocks, block_index[:, None, None], axis=1)[:, 0]
    token_index, _ = _locate(chosen, rest, fraction=False)
    return ops.cast(block_index * block + token_index, "int32")


def _locate(weights, point, fraction):
    """Index (b,) of the cell of weights (b, n) that holds `point`, and how far into that cell it lies."""
    ends = ops.cumsum(weights, axis=-1)
    point = point * ops.sum(weights, axis=-1) if fraction else point
    index = ops.sum(ops.cast(ends <= point[:, None], "int32"), axis=-1)
    cells = ops.arange(weights.shape[-1], dtype="int32")
    last_positive = ops.max(ops.where(weights > 0, cells, 0), axis=-1)
    index = ops.minimum(index, last_positive)
    starts = ops.take_along_axis(ends - weights, index[:, None], axis=1)[:, 0]
    return index, ops.maximum(point - starts, 0.0)


def _keep_top_p(weights, top_p):
    """Zero all but the smallest set of largest weights that holds `top_p` of the total; by bisection, never a sort of
    the vocabulary."""
    needed = top_p * ops.sum(weights, axis=-1, keepdims=True)
    low = ops.zeros_like(needed)
    high = ops.max(weights, axis=-1, keepdims=True)
    # `low` always keeps enough mass, `high` too little or just the maximum; 40 halvings end far below float32 spacing.
    for _ in range(40):
        middle = 0.5 * (low + high)
        enough = ops.sum(ops.where(weights >= middle, weights, 0.0), axis=-1, keepdims=True) >= needed
        low, high = ops.where(enough, middle, low), ops.where(enough, high, middle)
    return ops.where(weights >= low, weights, 0.0)
