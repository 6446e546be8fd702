"""The peak of an accelerator, of stand-ins for two of them; a CPU has none."""

import sys

import keras
import pytest

from gemma_keras import backends
from pipelines.run import stage_main

PEAKS = [3 * 2**30, 5 * 2**30]


class Device:
    def __init__(self, peak):
        self.peak = peak

    def memory_stats(self):
        return {"bytes_in_use": 1, "peak_bytes_in_use": self.peak}


@pytest.fixture
def two_devices(monkeypatch):
    name = keras.backend.backend()
    device = sys.modules[f"gemma_keras.backends.{name}.device"]
    if name == "jax":
        monkeypatch.setattr(device.jax, "local_devices", lambda: [Device(peak) for peak in PEAKS])
    elif name == "torch":
        monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(device.torch.cuda, "device_count", lambda: len(PEAKS))
        monkeypatch.setattr(device.torch.cuda, "max_memory_allocated", lambda index: PEAKS[index])
    else:
        monkeypatch.setattr(device.tf.config, "list_logical_devices", lambda kind: PEAKS if kind == "GPU" else [])
        of_name = {f"GPU:{index}": {"current": 1, "peak": peak} for index, peak in enumerate(PEAKS)}
        monkeypatch.setattr(device.tf.config.experimental, "get_memory_info", of_name.__getitem__)


def test_the_fullest_device_counts(two_devices):
    assert backends.peak_device_memory() == 5 * 2**30
    assert stage_main.peak_memory() == (5.0, "device")


def test_a_cpu_has_none_and_the_process_counts():
    assert backends.peak_device_memory() is None
    peak, of = stage_main.peak_memory()
    assert of == "process" and 0.1 < peak < 20


def test_a_stage_without_a_backend_loads_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "gemma_keras.backends")
    assert stage_main.peak_memory()[1] == "process" and "gemma_keras.backends" not in sys.modules
