"""Causal attention a block of scores at a time, never all of them; the arithmetic that JAX and TensorFlow share.

The tokens of a row are cut into blocks of equal size, the last one filled up with tokens of no segment. A block of
queries meets one block of keys after another, from the first that its window reaches to its own: the scores above the
diagonal and outside of the window are never computed. The softmax is kept up to date by the largest score so far;
nothing but the result and the logarithm of the softmax's denominator stays for the backward pass, which computes each
block of scores again.

Source: arXiv:2205.14135, algorithms 1 and 4.

Axes beside the usual letters: i blocks, c tokens of a block, r = g * c rows of queries, as the g query heads of one
key-value head are laid out as further rows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from gemma_keras.backends.reference import HIDDEN_SCORE, attention_mask, soft_capped
from gemma_keras.limits import BRANCHES


@dataclasses.dataclass(frozen=True)
class Native:
    """What each backend has a form of its own for.

    Args:
        product: (a (..., p, q), b (..., q, s), transpose_a, transpose_b) → float32 (..., p, s), accumulated in float32.
        loop: (steps, body, carry, dtypes) → (carry, outputs stacked along a new first axis), with `body(step, carry)` →
            (carry, outputs), tuples, one step after another; `dtypes` are those of the outputs.
        add_at: (x, index, part) → x with `part` added to `x[index]`.
    """

    product: Callable[..., Any]
    loop: Callable[..., Any]
    add_at: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """One layer's attention in blocks.

    Args:
        native: the backend's operations.
        size: c. window, soft_cap: of the layer, or None.
        positions, segments: int32 (i, b, c) of the tokens.
    """

    native: Native
    size: int
    window: int | None
    soft_cap: float | None
    positions: Any
    segments: Any

    def forward(self, queries, keys, values):
        """Mixed values float (i, b, k, r, h) and log-denominators float32 (i, b, k, r, 1).

        Args:
            queries: float (i, b, k, r, h). keys, values: float (i, b, k, c, h).
        """
        product, first = self.native.product, self._first()

        def rows(i, carry):
            def block(j, state):
                largest, mass, mixed = state
                scores, _ = self._scores(queries[i], keys[j], i, j)
                newly = ops.maximum(largest, ops.max(scores, axis=-1, keepdims=True))
                powers, shrinking = ops.exp(scores - newly), ops.exp(largest - newly)
                mass = mass * shrinking + ops.sum(powers, axis=-1, keepdims=True)
                mixed = mixed * shrinking + product(ops.cast(powers, values.dtype), values[j])
                return newly, mass, mixed

            mixed = ops.zeros_like(queries[0], dtype="float32")
            mass = mixed[..., :1]
            # Whatever a row gathers before its first visible key is multiplied by exp(HIDDEN_SCORE - ...) = 0 there;
            # each sees itself, in the last block.
            largest, mass, mixed = ops.fori_loop(first(i), i + 1, block, (mass + HIDDEN_SCORE, mass, mixed))
            return carry, (ops.cast(mixed / mass, queries.dtype), largest + ops.log(mass))

        return self.native.loop(ops.shape(queries)[0], rows, (), (queries.dtype, "float32"))[1]

    def backward(self, queries, keys, values, mixed, log_mass, gradient):
        """Gradients of queries, keys and values by that of `mixed`, all shaped and typed as `forward` has them."""
        product, add_at, first = self.native.product, self.native.add_at, self._first()

        def rows(i, carry):
            row_gradient = gradient[i]
            shared = ops.sum(ops.cast(row_gradient, "float32") * ops.cast(mixed[i], "float32"), axis=-1, keepdims=True)

            def block(j, state):
                of_queries, of_keys, of_values = state
                scores, steepness = self._scores(queries[i], keys[j], i, j)
                weights = ops.exp(scores - log_mass[i])
                of_weights = product(row_gradient, values[j], transpose_b=True)
                of_scores = weights * (of_weights - shared)
                of_scores = ops.cast(of_scores if steepness is None else of_scores * steepness, queries.dtype)
                weights = ops.cast(weights, values.dtype)
                return (
                    of_queries + product(of_scores, keys[j]),
                    add_at(of_keys, j, product(of_scores, queries[i], transpose_a=True)),
                    add_at(of_values, j, product(weights, row_gradient, transpose_a=True)),
                )

            zeros = ops.zeros_like(queries[0], dtype="float32")
            of_queries, *carry = ops.fori_loop(first(i), i + 1, block, (zeros, *carry))
            return tuple(carry), (ops.cast(of_queries, queries.dtype),)

        zeros = ops.zeros_like(keys, dtype="float32")
        carry, (of_queries,) = self.native.loop(ops.shape(queries)[0], rows, (zeros, zeros), (queries.dtype,))
        of_keys, of_values = carry
        return of_queries, ops.cast(of_keys, keys.dtype), ops.cast(of_values, values.dtype)

    def _first(self) -> Callable[[Any], Any]:
        """A function of i: the first block of keys that the queries of block i see."""
        window = self.window
        if window is None:
            return lambda i: i * 0
        # Other branches may lie between a query and what it sees: then places are no distances.
        has_branches = ops.max(self.segments) >= BRANCHES
        return lambda i: ops.where(has_branches, 0, ops.maximum(i * self.size - (window - 1), 0) // self.size)

    def _scores(self, queries, keys, i, j):
        """Scores float32 (b, k, r, c) of two blocks, and what a step of the uncapped ones moves them by, None for 1."""
        scores = soft_capped(self.native.product(queries, keys, transpose_b=True), self.soft_cap)
        steepness = None if self.soft_cap is None else 1.0 - ops.square(scores / self.soft_cap)
        at = (self.positions[i], self.segments[i], self.positions[j], self.segments[j])
        visible = attention_mask(*at, self.window)[:, None, None]
        shared, rows = queries.shape[1:3]
        apart = ops.reshape(scores, (-1, shared, rows // self.size, self.size, self.size))
        hidden = ops.where(visible, apart, HIDDEN_SCORE)
        return ops.reshape(hidden, (-1, shared, rows, self.size)), steepness


def block_size(time: int | None, is_cpu: bool) -> int:
    """Tokens a block: on a CPU as many that their scores stay in a core's cache and little is filled up; a GPU wants
    larger products.

    Args:
        time: tokens a row, None where that is unknown.
    """
    if not is_cpu:
        return 512
    return 64 if time is not None and time <= 512 else 128


def cut(x, size: int):
    """Blocks of tokens: (b, t, ...) → (i, b, c, ...), the last one filled up with zeros; b and t may be unknown."""
    time, rest = ops.shape(x)[1], tuple(x.shape[2:])
    count = (time + size - 1) // size
    filled = ops.pad(x, [(0, 0), (0, count * size - time)] + [(0, 0)] * len(rest))
    blocks = ops.reshape(filled, (ops.shape(x)[0], count, size, *rest))
    return ops.transpose(blocks, (1, 0, 2, *range(3, 3 + len(rest))))


def cut_heads(x, shared: int, size: int):
    """(b, t, n, h) → (i, b, k, r, h), the heads of one key-value head as further rows."""
    heads, head_dim = x.shape[2:]
    group = heads // shared
    blocks = ops.transpose(cut(ops.reshape(x, (*ops.shape(x)[:2], shared, group, head_dim)), size), (0, 1, 3, 4, 2, 5))
    return ops.reshape(blocks, (*ops.shape(blocks)[:2], shared, group * size, head_dim))


def joined_heads(blocks, time, heads: int, size: int):
    """What `cut_heads` cut: (i, b, k, r, h) → (b, t, n, h)."""
    count, batch = ops.shape(blocks)[:2]
    shared, rows, head_dim = blocks.shape[2:]
    apart = ops.reshape(blocks, (count, batch, shared, rows // size, size, head_dim))
    whole = ops.reshape(ops.transpose(apart, (1, 0, 4, 2, 3, 5)), (batch, count * size, heads, head_dim))
    return whole[:, :time]
