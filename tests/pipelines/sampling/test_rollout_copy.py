"""The rounded copy of a policy that samples: what it holds, and that it follows the policy."""

import ml_dtypes
import numpy as np
import pytest
from keras import ops
from policy_fixture import world_model

from gemma_keras import GemmaCausalLM
from gemma_keras.layers.projection import Projection
from gemma_keras.lora_options import LoraOptions
from pipelines.sampling.rollout_copy import RolloutCopy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world_model(tmp_path_factory.mktemp("model"), scale=4.0) / "model"


def arrays(model):
    return {name: np.asarray(values, np.float32) for name, values in model.backbone.named_arrays()}


def is_kernel(model, name):
    return isinstance(model.backbone.named_layers()[name], Projection)


def moved(model):
    """Every weight of the model by a tenth of itself, some up and some down."""
    for number, variable in enumerate(model.trainable_variables):
        values = ops.convert_to_numpy(variable)
        variable.assign(values * (1 + 0.1 * np.sign(np.sin(number + np.arange(values.size))).reshape(values.shape)))


def assert_rounded(copied, exact, rollout_dtype, model):
    for name, values in exact.items():
        if rollout_dtype == "bfloat16":
            is_scale = "norm" in name
            expected = values if is_scale else values.astype(ml_dtypes.bfloat16).astype(np.float32)
            np.testing.assert_array_equal(copied[name], expected, name)
        elif not is_kernel(model, name):
            np.testing.assert_array_equal(copied[name], values, name)
        else:
            step = np.abs(values).max(axis=0) / 127
            assert np.all(np.abs(copied[name] - values) <= 0.5001 * step), name
            assert np.abs(copied[name] - values).max() > 0


@pytest.mark.parametrize("rollout_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_copy_holds_the_rounded_weights_and_follows_the_policy(folder, rollout_dtype, with_adapter):
    policy = GemmaCausalLM.from_preset(folder)
    if with_adapter:
        policy.add_adapter("default", LoraOptions(3, 12.0), 0)
        moved(policy)  # `a` alone, as `b` is zero
        for variable in policy.trainable_variables:
            if "lora_b" in variable.path:
                variable.assign(np.full(variable.shape, 0.03, np.float32))
    copy = RolloutCopy(policy, rollout_dtype)
    held = copy.model.backbone.named_variables()
    kinds = {variable.dtype for name, variable in held.items() if is_kernel(copy.model, name)}
    assert kinds == {rollout_dtype} and not copy.model.adapters
    assert held["embedding"].dtype == ("bfloat16" if rollout_dtype == "bfloat16" else "float32")
    before = arrays(policy)
    assert_rounded(arrays(copy.model), before, rollout_dtype, copy.model)
    moved(policy)
    after = arrays(policy)
    name = "layers.1.down_proj"
    assert np.abs(after[name] - before[name]).max() > 2 * np.abs(before[name]).max() / 127
    assert_rounded(arrays(copy.model), before, rollout_dtype, copy.model)
    copy.refresh()
    assert_rounded(arrays(copy.model), after, rollout_dtype, copy.model)
    assert all(held[name] is variable for name, variable in copy.model.backbone.named_variables().items())


def test_int8_is_what_quantize_makes(folder):
    policy, quantized = GemmaCausalLM.from_preset(folder), GemmaCausalLM.from_preset(folder)
    quantized.quantize("int8")
    copied = arrays(RolloutCopy(policy, "int8").model)
    assert all(np.array_equal(copied[name], values) for name, values in arrays(quantized).items())
