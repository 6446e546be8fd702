"""Products of a rollout with weights that are prepared once: the same numbers, never those of weights since changed."""

import contextlib
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM, Sampler, backends
from gemma_keras.generation import Decoding, generate_tokens
from gemma_keras.random import generator, uniforms

PROMPTS = np.array([[0, 2, 5], [2, 9, 10], [2, 6, 6], [0, 0, 2]], np.int32)
ARGUMENTS = (PROMPTS, PROMPTS > 0, 6, np.stack([uniforms(0, "draw", row, shape=6) for row in range(4)]))
only_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="jax and tensorflow prepare nothing")


@pytest.fixture(autouse=True)
def packing_of_short_rollouts(monkeypatch):
    if keras.backend.backend() == "torch":
        monkeypatch.setattr("gemma_keras.backends.torch.packed.LEAST_STEPS", 6)


def normal(*shape, key="x"):
    return generator(3, key).standard_normal(shape, dtype=np.float32)


def products(weights, x, kernel, matrix):
    """Of a second use, where there is a first."""

    def both():
        return backends.linear(x, kernel), backends.output_logits(x, matrix)

    run = backends.compile_forward(both, [])
    with weights:
        run()
        return [np.float64(backends.to_host(ops.cast(product, "float32"))) for product in run()]


@pytest.mark.parametrize("dtype, close", [("float32", 1e-6), ("bfloat16", 4e-3)])
@pytest.mark.parametrize("rows", [1, 3, 4, 16, 40])
def test_prepared_products_by_hand_and_after_a_change(rows, dtype, close):
    """Products of 80 numbers, each up to that share of the largest; logits are float32 whatever they are made from."""
    x, kernel, matrix = (
        ops.cast(each, dtype) for each in (normal(rows, 80), normal(80, 48, key="w"), normal(56, 80, key="m"))
    )
    kernel, matrix = keras.Variable(kernel, dtype=dtype), keras.Variable(matrix, dtype=dtype)
    weights = backends.decoding_weights(64)
    for _ in range(2):
        exact = [np.float64(backends.to_host(ops.cast(each, "float32"))) for each in (x, kernel.value, matrix.value)]
        found = products(weights, x, kernel, ops.convert_to_tensor(matrix))
        for ours, expected, closer in zip(
            found, (exact[0] @ exact[1], exact[0] @ exact[2].T), (close, 1e-6), strict=True
        ):
            np.testing.assert_allclose(ours, expected, atol=closer * np.abs(expected).max())
        kernel.assign(-2 * kernel.value)
        matrix.assign(3 * matrix.value)


def generated(model, temperature=0.0):
    return generate_tokens(model, *ARGUMENTS, Sampler(temperature), ())


ONCE = pytest.mark.once


@pytest.mark.parametrize(
    ("dtype", "adapted"),
    [
        ("bfloat16", True), ("float32", False),
        *(pytest.param(*case, marks=ONCE) for case in (("bfloat16", False), ("float32", True))),
        *(pytest.param("mixed_bfloat16", adapted, marks=ONCE) for adapted in (False, True)),
    ],
)  # fmt: skip
def test_a_rollout_is_that_of_plain_products_and_of_the_weights_of_its_time(tiny_configs, dtype, adapted, monkeypatch):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma3"], seed=2, dtype=dtype))
    if adapted:
        model.enable_lora(2)
        for projection in model.backbone.projections().values():
            projection.active.b.assign(normal(*projection.active.b.shape, key="b") / 8)
    close = 1e-5 if dtype == "float32" else 5e-2
    found = []
    for _ in range(2):
        found.append([generated(model), generated(model, 1.0)])
        with monkeypatch.context() as patch:
            patch.setattr(backends, "decoding_weights", contextlib.nullcontext)
            expected = [generated(model), generated(model, 1.0)]
        for ours, plain in zip(found[-1], expected, strict=True):
            if dtype == "float32":  # half precision may round to another token
                np.testing.assert_array_equal(ours.token_ids, plain.token_ids)
            same = np.cumprod(ours.token_ids == plain.token_ids, axis=1, dtype=bool)
            np.testing.assert_allclose(ours.log_probs[same], plain.log_probs[same], atol=close)
            assert same.mean() > 0.5
        kernel = model.backbone.blocks[0].feed_forward.down_proj.kernel
        kernel.assign(-4 * ops.cast(kernel.value, "float32"))
    assert np.abs(found[0][0].log_probs - found[1][0].log_probs).max() > 2 * close


@pytest.mark.parametrize("name, factor, shift", [("embedding", -1.0, 0.0), ("final_norm", -1.0, -2.0)])
def test_weights_may_change_between_the_steps_of_a_decoding(tiny_configs, name, factor, shift):
    """In float32, and with rows enough that torch packs."""
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma"], seed=2))
    weight = model.backbone.named_variables()[name]
    decodings = [Decoding(model, *ARGUMENTS, Sampler(0.0), ()) for _ in range(2)]
    decodings[0].advance(2)
    weight.assign(factor * weight.value + shift)
    decodings[0].advance(1)
    decodings[1].advance(2)
    weight.assign(factor * weight.value + shift)
    # Both have three more tokens; a negated embedding, or a final norm with a factor of -1 - scale, turns the logits
    # about, in the step that it is there for.
    for decoding in decodings:
        decoding.advance(1)
    changed, unchanged = decodings[0].generated(), generate_tokens(model, *ARGUMENTS, Sampler(0.0), ())
    np.testing.assert_array_equal(changed.token_ids[:, :3], unchanged.token_ids[:, :3])
    assert (changed.token_ids[:, 3] != unchanged.token_ids[:, 3]).any()


@only_torch
def test_copies_are_made_once_and_go_with_the_rollout(tiny_configs, monkeypatch):
    from gemma_keras.backends.torch import packed

    if not packed._can_pack(ops.convert_to_tensor(np.zeros(1, np.float32)).dtype):
        pytest.skip("this torch packs nothing")
    made, pack = [], packed._pack

    def noted(matrix, rows):
        result = pack(matrix, rows)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(packed, "_pack", noted)
    config = tiny_configs["gemma"]
    generated(GemmaBackbone(config, seed=2))
    assert len(made) == 7 * config.num_layers + 1, "every projection and the output embedding"
    assert not any(reference() is not None for reference in made)
    made.clear()
    generate_tokens(GemmaBackbone(config, seed=2), *ARGUMENTS[:2], 5, ARGUMENTS[3][:, :5], Sampler(0.0), ())
    assert not made, "a rollout too short to be worth it"


@only_torch
@pytest.mark.parametrize("fault", ["raises", "wrong"])
def test_where_packing_fails_products_are_plain(fault, monkeypatch):
    from gemma_keras.backends.torch import packed

    def product(x, matrix):
        if fault == "raises":
            raise AttributeError("no such operator")
        return x @ matrix.t() + 1

    monkeypatch.setattr(packed, "_pack", lambda matrix, rows: matrix)
    monkeypatch.setattr(packed, "onednn_product", product)
    packed._can_pack.cache_clear()
    try:
        x, kernel = ops.convert_to_tensor(normal(5, 8)), keras.Variable(normal(8, 3, key="w"))
        found, _ = products(backends.decoding_weights(64), x, kernel, x)
        np.testing.assert_allclose(found, normal(5, 8) @ normal(8, 3, key="w"), atol=1e-5)
    finally:
        packed._can_pack.cache_clear()


@only_torch
def test_half_precision_logits_are_laid_out_once_and_stay_float32(monkeypatch):
    """For few rows of many steps, and only where these operators multiply."""
    import torch

    from gemma_keras.backends.torch import half_logits

    if not half_logits.is_possible():
        pytest.skip("this torch has no such products")
    monkeypatch.setattr(half_logits, "BLOCK", 24)
    made, pack = [], half_logits._pack
    monkeypatch.setattr(half_logits, "_pack", lambda block: made.append(len(block)) or pack(block))
    matrix = keras.Variable(normal(56, 80, key="m"), dtype="bfloat16")
    exact = np.float64(backends.to_host(ops.cast(matrix.value, "float32")))
    for steps, rows, blocks in ((64, 16, [24, 24, 8]), (64, 33, []), (5, 16, [])):
        x = ops.cast(normal(rows, 80), "bfloat16")
        with torch.no_grad(), backends.decoding_weights(steps):
            for _ in range(3):
                found = backends.output_logits(x, ops.convert_to_tensor(matrix))
        assert made == blocks, (steps, rows)
        made.clear()
        assert found.dtype == torch.float32
        expected = np.float64(backends.to_host(ops.cast(x, "float32"))) @ exact.T
        np.testing.assert_allclose(backends.to_host(found), expected, atol=1e-5)
    monkeypatch.setattr(half_logits, "_pack", None)  # calling it raises TypeError
    monkeypatch.setattr(half_logits, "is_possible", lambda: False)
    with torch.no_grad(), backends.decoding_weights(64):
        for _ in range(3):
            backends.output_logits(x, ops.convert_to_tensor(matrix))


@only_torch
def test_operators_that_are_missing_or_wrong_are_not_used(monkeypatch):
    from gemma_keras.backends.torch import half_logits

    def missing(block):
        raise AttributeError("no such operator")

    for pack in (missing, lambda block: half_logits.torch.ops.quantized.linear_prepack_fp16(1 + block.float(), None)):
        monkeypatch.setattr(half_logits, "_pack", pack)
        assert not half_logits.is_possible.__wrapped__()


@only_torch
def test_a_step_waits_for_the_device_once(tiny_configs):
    """To learn whether every row has ended."""
    import torch

    model = GemmaBackbone(tiny_configs["gemma3"], seed=2)
    decoding = Decoding(model, *ARGUMENTS, Sampler(), (1,))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        decoding.advance(4)
    counts = {event.key: event.count for event in profile.key_averages()}
    # And a few times a call, but not for every layer.
    assert 4 <= counts["aten::_local_scalar_dense"] < 2 * 4
