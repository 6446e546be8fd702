"""The guides that spread a model over devices, distributed_tuning and Finetune_distributed, on two simulated ones."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, pathlib, sys, warnings
import keras
import numpy as np
from gemma_keras.models import GemmaBackbone, GemmaCausalLM
from gemma_keras.samplers import GreedySampler

preset, folder, layout, backbone = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], {}
devices = keras.distribution.list_devices()
if layout != "none":
    device_mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], devices=devices)
    if layout == "ours":
        layout_map = GemmaBackbone.get_layout_map(device_mesh)
    else:
        layout_map = keras.distribution.LayoutMap(device_mesh)
        layout_map["token_embedding/embeddings"] = ("model", None)
        layout_map["decoder_block.*attention.*(query|key|value).*kernel"] = ("model", None, None)
        layout_map["decoder_block.*attention_output.*kernel"] = ("model", None, None)
        layout_map["decoder_block.*ffw_gating.*kernel"] = (None, "model")
        layout_map["decoder_block.*ffw_linear.*kernel"] = ("model", None)
    model_parallel = keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")
    keras.distribution.set_distribution(model_parallel)
gemma_lm = GemmaCausalLM.from_preset(preset)
gemma_lm.compile(sampler=GreedySampler())

def places(layer):
    return {variable.path.split("decoder_block_1/")[-1]: [str(variable.value.sharding.spec), list(variable.shape),
            list(variable.value.addressable_shards[0].data.shape)] for variable in layer.weights}

specs = {**places(gemma_lm.backbone.get_layer("decoder_block_1")), **places(gemma_lm.backbone.get_layer("token_embedding"))}
ids = [[2, *gemma_lm.tokenizer.encode("Best comedy movies in the 90s ")]]
texts = ["The universe is wide.", "Hello, my name is Anna.", "What should I do?", "Keras is a library."]
before = gemma_lm.generate(ids, max_length=64)["token_ids"].tolist()
gemma_lm.backbone.enable_lora(rank=4)
gemma_lm.preprocessor.sequence_length = 128
optimizer = keras.optimizers.AdamW(learning_rate=1e-2, weight_decay=0.01)
optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
warnings.simplefilter("ignore")
gemma_lm.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer=optimizer,
                 weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()], sampler=GreedySampler())
history = gemma_lm.fit(texts, batch_size=2, epochs=2, shuffle=False, verbose=0).history
adapters = {variable.path.split("layers_1/")[-1]: list(variable.value.addressable_shards[0].data.shape)
            for variable in gemma_lm.trainable_weights if "layers_1/" in variable.path}
after = gemma_lm.generate(ids, max_length=64)["token_ids"].tolist()
gemma_lm.backbone.save_lora_weights(folder / f"{layout}.lora.safetensors")
print(json.dumps({"devices": len(devices), "specs": specs, "before": before, "after": after, "history": history,
                  "adapters": adapters}))
"""

pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="Keras distributes on JAX")


def tuned(presets, folder, layout):
    count = 1 if layout == "none" else 2
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    command = [sys.executable, "-c", PROGRAM, presets["gemma2_instruct_2b_en"], str(folder), layout]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def on_one_device(presets, folder):
    return tuned(presets, folder, "none")


def losses(found):
    return pytest.approx(found["history"]["loss"], rel=1e-5)


def test_a_model_on_two_devices_is_tuned_as_on_one(presets, folder, on_one_device):
    found = tuned(presets, folder, "ours")
    assert (on_one_device["devices"], found["devices"]) == (1, 2)
    # Half of each projection's heads or width on either device, and half of the vocabulary; norms on both.
    for name, whole, part in [
        ("attention/q_proj/kernel", [16, 16], [16, 8]),
        ("attention/k_proj/kernel", [16, 8], [16, 4]),
        ("attention/v_proj/kernel", [16, 8], [16, 4]),
        ("attention/o_proj/kernel", [16, 16], [8, 16]),
        ("feed_forward/gate_proj/kernel", [16, 24], [16, 12]),
        ("feed_forward/up_proj/kernel", [16, 24], [16, 12]),
        ("feed_forward/down_proj/kernel", [24, 16], [12, 16]),
        ("token_embedding/embeddings", [364, 16], [182, 16]),
        ("attention_norm/scale", [16], [16]),
    ]:
        assert found["specs"][name][1:] == [whole, part], name
    assert "'model'" in found["specs"]["attention/q_proj/kernel"][0]
    assert on_one_device["specs"]["attention/q_proj/kernel"][1:] == [[16, 16], [16, 16]]
    assert found["history"]["loss"] == losses(on_one_device)
    assert found["history"]["loss"][1] < found["history"]["loss"][0]
    assert (found["before"], found["after"]) == (on_one_device["before"], on_one_device["after"])


def test_adapters_of_two_devices_are_those_of_one(presets, folder, on_one_device):
    import numpy as np
    from safetensors.numpy import load_file

    files = [folder / f"{layout}.lora.safetensors" for layout in ("none", "ours")]
    if not files[1].exists():
        tuned(presets, folder, "ours")
    one, two = map(load_file, files)
    assert one.keys() == two.keys() and len(one) == 2 * 7 * 2
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=2e-4, err_msg=name)


def test_a_map_for_keras_hub_s_names_splits_the_embedding_alone(presets, folder, on_one_device):
    """The layouts that the guides spell out name KerasHub's kernels: here they match nothing, and all is still right."""
    found = tuned(presets, folder, "theirs")
    split = [name for name, (_, whole, part) in found["specs"].items() if whole != part]
    assert split == ["token_embedding/embeddings"]
    assert found["history"]["loss"] == losses(on_one_device)
