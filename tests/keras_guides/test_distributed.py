"""The guides that spread a model over devices, distributed_tuning and Finetune_distributed, on two simulated ones."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, pathlib, sys, warnings
import keras
import numpy as np
from gemma_keras.models import GemmaBackbone, GemmaCausalLM
from gemma_keras.samplers import GreedySampler

warnings.simplefilter("ignore")
preset, folder = sys.argv[1], pathlib.Path(sys.argv[2])
devices = keras.distribution.list_devices()
device_mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], devices=devices)

spelled_out = keras.distribution.LayoutMap(device_mesh)
spelled_out["token_embedding/embeddings"] = ("model", None)
spelled_out["decoder_block.*attention.*(query|key|value).*kernel"] = ("model", None, None)
spelled_out["decoder_block.*attention_output.*kernel"] = ("model", None, None)
spelled_out["decoder_block.*ffw_gating.*kernel"] = (None, "model")
spelled_out["decoder_block.*ffw_linear.*kernel"] = ("model", None)

def places(model):
    layers = [model.backbone.get_layer(name) for name in ("token_embedding", "decoder_block_1")]
    return {variable.path: [list(variable.shape), list(variable.value.addressable_shards[0].data.shape)]
            for layer in layers for variable in layer.weights}

def tuned(name):
    gemma_lm = GemmaCausalLM.from_preset(preset)
    gemma_lm.backbone.enable_lora(rank=4)
    gemma_lm.preprocessor.sequence_length = 128
    optimizer = keras.optimizers.AdamW(learning_rate=1e-2, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
    gemma_lm.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer=optimizer,
                     weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()], sampler=GreedySampler())
    texts = ["The universe is wide.", "Hello, my name is Anna.", "What should I do?", "Keras is a library."]
    history = gemma_lm.fit(texts, batch_size=2, epochs=2, shuffle=False, verbose=0).history
    gemma_lm.backbone.save_lora_weights(folder / f"{name}.lora.safetensors")
    ids = [[2, *gemma_lm.tokenizer.encode("Best comedy movies in the 90s ")]]
    return {"places": places(gemma_lm), "history": history,
            "said": gemma_lm.generate(ids, max_length=64)["token_ids"].tolist()}

found = {"devices": len(devices), "one": tuned("one")}
for name, layout_map in (("ours", GemmaBackbone.get_layout_map(device_mesh)), ("theirs", spelled_out)):
    model_parallel = keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")
    keras.distribution.set_distribution(model_parallel)
    found[name] = tuned(name)
print(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="Keras distributes on JAX")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def found(presets, folder):
    """What three models are and say: on one device, under our layout, under the one that the guides spell out."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", PROGRAM, presets["gemma2_instruct_2b_en"], str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kernel_is_split_by_the_layout_map(found):
    assert found["devices"] == 2
    # Half of each projection's heads or width on either device, and half of the vocabulary; norms on both.
    for name, whole, part in [
        ("layers_1/q_proj/kernel", [16, 16], [16, 8]),
        ("layers_1/k_proj/kernel", [16, 8], [16, 4]),
        ("layers_1/v_proj/kernel", [16, 8], [16, 4]),
        ("layers_1/o_proj/kernel", [16, 16], [8, 16]),
        ("layers_1/gate_proj/kernel", [16, 24], [16, 12]),
        ("layers_1/up_proj/kernel", [16, 24], [16, 12]),
        ("layers_1/down_proj/kernel", [24, 16], [12, 16]),
        ("layers_1/q_proj/lora_b_default", [4, 16], [4, 8]),
        ("layers_1/q_proj/lora_a_default", [16, 4], [16, 4]),
        ("layers_1/down_proj/lora_a_default", [24, 4], [12, 4]),
        ("token_embedding/embeddings", [364, 16], [182, 16]),
        ("layers_1/attention_norm/scale", [16], [16]),
    ]:
        (split,) = (place for path, place in found["ours"]["places"].items() if path.endswith(name))
        assert split == [whole, part], name
    assert all(whole == part for whole, part in found["one"]["places"].values())


def test_a_model_on_two_devices_is_tuned_as_on_one(found, folder):
    from safetensors.numpy import load_file

    one, ours = found["one"], found["ours"]
    np.testing.assert_allclose(ours["history"]["loss"], one["history"]["loss"], rtol=1e-5)
    assert ours["history"]["loss"][1] < ours["history"]["loss"][0]
    right = "sparse_categorical_accuracy"
    np.testing.assert_allclose(ours["history"][right], one["history"][right], atol=1e-6)
    assert ours["said"] == one["said"]
    adapters = {name: load_file(folder / f"{name}.lora.safetensors") for name in ("one", "ours")}
    assert adapters["one"].keys() == adapters["ours"].keys() and len(adapters["one"]) == 2 * 7 * 2
    for name, values in adapters["one"].items():
        # Adam divides by a gradient's size: where that is all rounding, so is the step.
        assert np.median(np.abs(adapters["ours"][name] - values)) < 1e-5, name


def test_a_map_for_keras_hub_s_names_splits_the_embedding_alone(found):
    """The layouts that the guides spell out name KerasHub's kernels: here they match nothing, and no value changes."""
    split = [path for path, (whole, part) in found["theirs"]["places"].items() if whole != part]
    assert [path.split("/", 1)[-1] for path in split] == ["token_embedding/embeddings"] or split == [
        "token_embedding/embeddings"
    ]
    np.testing.assert_allclose(found["theirs"]["history"]["loss"], found["one"]["history"]["loss"], rtol=1e-5)
