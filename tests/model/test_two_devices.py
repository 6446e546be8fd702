"""Two devices in one process, simulated on the CPU: what a model computes does not depend on how many there are."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import jax
import keras
import numpy as np
from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig
from gemma_keras.backends import to_host

config = GemmaConfig(vocabulary_size=97, num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=8,
                     hidden_dim=16, intermediate_dim=32)
model = GemmaCausalLM(GemmaBackbone(config, seed=3))
ids = np.random.default_rng(0).integers(3, 97, (4, 9)).astype(np.int32)
model.compile(optimizer=keras.optimizers.SGD(1e-2))
losses = model.fit({"token_ids": ids}, batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"]
generated = model.generate({"token_ids": ids[:2]}, max_length=14, stop_token_ids=None, seed=5)
logits = np.asarray(to_host(model({"token_ids": ids})), np.float64)
devices = jax.devices()
placed = {str(device): np.asarray(to_host(model({"token_ids": jax.device_put(ids, device)})), np.float64).sum()
          for device in devices[:1]}
print(json.dumps({"devices": len(devices), "losses": losses, "ids": np.asarray(generated["token_ids"]).tolist(),
                  "logits": logits.sum().hex(), "first": sorted(value.hex() for value in placed.values())}))
"""


def with_devices(count):
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


only_jax = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="JAX alone simulates devices")


@only_jax
def test_every_test_of_this_process_sees_two_devices():
    import jax

    assert jax.device_count() == 2


@pytest.mark.slow
@only_jax
def test_a_second_device_changes_no_bit():
    one, two = with_devices(1), with_devices(2)
    assert (one.pop("devices"), two.pop("devices")) == (1, 2)
    assert one == two
