"""Attention in blocks against the whole mask: every way in which a token can be hidden, forwards and backwards."""

import importlib
import types

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import backends
from gemma_keras.backends import reference
from gemma_keras.layers.masks import RowTokens
from gemma_keras.limits import BRANCHES
from gemma_keras.random import generator

LENGTH, SIZE = 21, 8  # two and a half blocks, and a bit
ALL = [1] * LENGTH
A, B = BRANCHES + 1, 2 * BRANCHES + 1
LAYOUTS = {
    "full": [ALL, ALL],
    "left": [[0] * 9 + [1] * 12, ALL],
    "right": [ALL, [1] * 5 + [0] * 16],
    # The second branch of the first row sees its beginning two blocks back, behind another: within its window of 5.
    "branches": [[1] * 6 + [A] * 10 + [B] * 5, [1] * 3 + [B] * 4 + [2] * 4 + [A + 1] * 3 + [B + 1] * 5 + [0] * 2],
    "packed": [[1] * 7 + [2] * 10 + [0] * 4, [1] * 2 + [2] * 17 + [3] * 2],
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 8 tokens, on every backend."""
    native = importlib.import_module(f"gemma_keras.backends.{keras.backend.backend()}.attention")
    if keras.backend.backend() == "torch":
        monkeypatch.setattr(native, "BLOCK", SIZE)
    else:
        monkeypatch.setattr(native, "block_size", lambda time, is_cpu: SIZE)
    return native


class Arrays(keras.Model):
    """Queries, keys and values as weights, so that their gradients can be asked for."""

    def __init__(self, *arrays):
        super().__init__()
        self.parts = [self.add_weight(shape=x.shape, initializer="zeros", name=f"x{i}") for i, x in enumerate(arrays)]
        for part, array in zip(self.parts, arrays, strict=True):
            part.assign(array)
        self.built = True


def normal(*shape, key):
    return generator(5, key).standard_normal(shape, dtype=np.float32)


def model_of(key_value_heads):
    shapes = [(2, LENGTH, heads, 8) for heads in (4, key_value_heads, key_value_heads)]
    return Arrays(*(normal(*shape, key=name) for shape, name in zip(shapes, "qkv", strict=True)))


def positions_of(segments):
    """Counted anew in every segment, onwards in every branch, 0 in padding."""
    positions = np.zeros_like(segments)
    for row, column in np.argwhere(segments > 0):
        segment = segments[row, column]
        if column and segments[row, column - 1] == segment:
            positions[row, column] = positions[row, column - 1] + 1
        elif segment > BRANCHES:
            positions[row, column] = (segments[row] == segment % BRANCHES).sum()
    return positions


def tokens_of(layout, window):
    segments = np.array(LAYOUTS[layout], np.int32)
    tensors = [ops.convert_to_tensor(x) for x in (positions_of(segments), segments)]
    return RowTokens(*tensors, window, backends.is_plain(tensors[1])), segments > 0


def results(module, model, layout, window, soft_cap):
    """Mixed values of real tokens, and the gradients of a weighted sum of these."""
    segments = np.array(LAYOUTS[layout], np.int32)
    weights = ops.convert_to_tensor(normal(2, LENGTH, 4, 8, key="w") * (segments > 0)[:, :, None, None])

    def loss():
        tokens, _ = tokens_of(layout, window)
        mixed = module.causal_attention(*(ops.convert_to_tensor(x) for x in model.parts), tokens, soft_cap)
        return ops.sum(mixed * weights), mixed

    _, mixed, gradients = backends.compile_gradients(loss, model)()
    return [backends.to_host(mixed)[segments > 0], *map(backends.to_host, gradients)]


@pytest.mark.parametrize(
    ("layout", "window", "soft_cap", "key_value_heads"),
    [
        ("full", None, None, 1),
        ("left", 5, None, 4),
        ("right", None, 1.5, 2),
        ("packed", 11, 1.5, 1),
        ("branches", 5, None, 2),
    ],
)
def test_blocks_equal_the_whole_mask_forwards_and_backwards(layout, window, soft_cap, key_value_heads):
    model = model_of(key_value_heads)
    found, expected = (results(module, model, layout, window, soft_cap) for module in (backends, reference))
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert all(np.abs(gradient).max() > 0.1 for gradient in expected[1:])


@pytest.mark.parametrize("layout", ["packed", "branches"])
def test_blocks_equal_a_loop_over_tokens(layout):
    model = model_of(2)
    queries, keys, values = (backends.to_host(part.value).astype(np.float64) for part in model.parts)
    segments, expected = LAYOUTS[layout], []
    for row in range(2):
        for t in range(LENGTH):
            # Five tokens back at most, of the same document or, in a branch, of what it continues, and itself.
            own = segments[row][t]
            sequence = [s for s in range(t + 1) if segments[row][s] in (own, own % BRANCHES)]
            seen = sequence[-5:] if own else []
            for head in range(4) if seen else ():
                scores = keys[row, seen, head // 2] @ queries[row, t, head]
                weights = np.exp(scores - scores.max())
                expected.append(weights / weights.sum() @ values[row, seen, head // 2])
    found = results(backends, model, layout, 5, None)[0]
    np.testing.assert_allclose(found.reshape(-1, 8), expected, atol=1e-5)


def test_in_half_precision_within_its_rounding():
    tokens, is_real = tokens_of("packed", None)
    arrays = [ops.cast(ops.convert_to_tensor(part), "bfloat16") for part in model_of(2).parts]
    found, rounded, exact = (
        backends.to_host(ops.cast(function(*given, tokens), "float32"))[is_real]
        for function, given in (
            (backends.causal_attention, arrays),
            (reference.causal_attention, arrays),
            (reference.causal_attention, [ops.cast(x, "float32") for x in arrays]),
        )
    )
    assert found.shape == exact.shape and np.abs(found - exact).max() < 2 * np.abs(rounded - exact).max() < 0.1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces unknown sizes")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_batch_and_length_may_be_unknown(jit_compile):
    import tensorflow as tf

    tokens, is_real = tokens_of("packed", 11)
    arrays = [ops.convert_to_tensor(part) for part in model_of(2).parts]

    def gradients(*given):
        queries, keys, values, positions, segments = given
        with tf.GradientTape() as tape:
            tape.watch(given[:3])
            mixed = backends.causal_attention(queries, keys, values, RowTokens(positions, segments, 11))
            loss = tf.reduce_sum(tf.where(segments[:, :, None, None] > 0, mixed**2, 0.0))
        return mixed, *tape.gradient(loss, given[:3])

    given = (*arrays, tokens.positions, tokens.segments)
    signature = [tf.TensorSpec((None, None, *x.shape[2:]), x.dtype) for x in given]
    unknown = tf.function(gradients, input_signature=signature, jit_compile=jit_compile)
    for rows in (2, 1):
        part = [x[:rows] for x in given]
        for ours, theirs in zip(unknown(*part), gradients(*part), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's kernel")
@pytest.mark.parametrize(
    ("layout", "window", "soft_cap", "is_fused"),
    [
        ("full", None, None, True),
        ("right", None, None, True),
        ("left", None, None, False),
        ("packed", None, None, False),
        ("full", 5, None, False),
        ("full", None, 2.0, False),
    ],
)
def test_torch_takes_its_causal_kernel_where_only_order_hides(
    small_blocks, monkeypatch, layout, window, soft_cap, is_fused
):
    calls, kernel = [], small_blocks.scaled_dot_product_attention

    def record(*arguments, **options):
        calls.append(options.get("is_causal", False))
        return kernel(*arguments, **options)

    monkeypatch.setattr(small_blocks, "scaled_dot_product_attention", record)
    arrays = [ops.convert_to_tensor(part) for part in model_of(1).parts]
    backends.causal_attention(*arrays, tokens_of(layout, window)[0], soft_cap)
    assert calls == ([True] if is_fused else [] if soft_cap else [False] * 3)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's kernel")
@pytest.mark.parametrize("layout", ["right", "left"])
@pytest.mark.parametrize("window", [None, 5])
def test_jax_takes_the_kernel_of_a_gpu_where_only_order_hides(small_blocks, monkeypatch, layout, window):
    import jax

    model, asked = model_of(2), []
    expected = results(reference, model, layout, window, None)

    def kernel(queries, keys, values, **options):
        """Plain XLA, and ten times as much, so that its result is known again."""
        asked.append(options)
        return 10.0 * plain(queries, keys, values, **{**options, "implementation": "xla"})

    plain = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    monkeypatch.setattr(small_blocks.jax, "default_backend", lambda: "gpu")
    found = results(backends, model, layout, window, None)
    assert asked and asked[0]["implementation"] == "cudnn" and asked[0]["is_causal"]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs * (10.0 if layout == "right" else 1.0), atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's kernel")
def test_jax_leaves_what_the_kernel_refuses_and_soft_caps_to_blocks(small_blocks, monkeypatch):
    import jax

    def refuse(*arguments, **options):
        raise NotImplementedError("The head dim must be a multiple of 8")

    expected = results(backends, model_of(1), "full", None, None)
    monkeypatch.setattr(jax.nn, "dot_product_attention", refuse)
    monkeypatch.setattr(small_blocks.jax, "default_backend", lambda: "gpu")
    for ours, theirs in zip(results(backends, model_of(1), "full", None, None), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    tokens = types.SimpleNamespace(**{**tokens_of("full", None)[0].__dict__, "is_plain": None})
    arrays = [ops.convert_to_tensor(part) for part in model_of(1).parts]
    backends.causal_attention(*arrays, tokens, 2.0)  # and does not ask whether these are plain


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX's compiler tells")
def test_memory_grows_with_tokens_and_not_with_their_square(monkeypatch):
    import jax

    monkeypatch.undo()  # blocks of their own size

    def temporaries(length):
        arrays = [jax.ShapeDtypeStruct((1, length, heads, 8), "float32") for heads in (4, 1, 1)]
        places = [jax.ShapeDtypeStruct((1, length), "int32")] * 2

        def loss(queries, keys, values, positions, segments):
            tokens = RowTokens(positions, segments, None, False)
            return ops.sum(backends.causal_attention(queries, keys, values, tokens) ** 2)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arrays, *places).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(4096) < 2.2 * temporaries(2048) < 4 * 2048 * 2048
