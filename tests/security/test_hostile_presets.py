"""KerasHub presets made to hurt: refused before KerasHub, which would import what their JSON names and allocate what
their sizes and HDF5 files claim, is asked."""

import json
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest
from preset_fixture import PARAMETERS, SIZES, backbone

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.keras_hub_preset import check_folder, check_weights

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("hostile files and settings")]


@pytest.fixture
def folder(tmp_path):
    """As KerasHub writes it, all weights in one variable."""
    (tmp_path / "config.json").write_text(json.dumps(backbone()))
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file["layers/reversible_embedding/vars/0"] = np.ones(PARAMETERS, np.float32)
    check_folder(tmp_path)
    return tmp_path


def refused(check, path) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            check(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(error.value)
    assert peak < 2**22 and "\n" not in text and len(text) < 700
    return text


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 10**400, 2**31, 1.5, True, "4", None])
def test_sizes(folder, name, value):
    (folder / "config.json").write_text(json.dumps(backbone(**{name: value})))
    assert f"config.json: `{name}` must be an integer from 1 to" in refused(check_folder, folder)


@pytest.mark.parametrize(
    "changes",
    [{"vocabulary_size": 2**31 - 1}, {"hidden_dim": 2**20}, {"intermediate_dim": 2**24}, {"num_layers": 1000}],
)
def test_sizes_that_the_files_cannot_hold(folder, changes):
    (folder / "config.json").write_text(json.dumps(backbone(**changes)))
    assert "parameters, and the weight files beside it have" in refused(check_folder, folder)


def test_parameters_are_counted(folder):
    """Two values a byte are the most that KerasHub stores."""
    (folder / "model.weights.h5").unlink()
    assert f"{PARAMETERS} parameters, and the weight files beside it have 0 bytes" in refused(check_folder, folder)


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("keras.layers", "Lambda"), ("keras", "Lambda"), (None, "Mine"), (3, 4)],
)
@pytest.mark.parametrize("place", ["itself", "dtype", "tokenizer"])
def test_classes_of_other_modules(folder, module, name, place):
    evil = {"module": module, "class_name": name, "config": {}, "registered_name": None}
    file = folder / ("tokenizer.json" if place == "tokenizer" else "config.json")
    table = {"itself": {**backbone(), **evil}, "dtype": backbone(dtype=evil), "tokenizer": {"config": [{"x": evil}]}}
    file.write_text(json.dumps(table[place]))
    text = refused(check_folder, folder)
    assert f"{file.name}: expected objects of KerasHub" in text and str(name) in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_name": "BertBackbone"}, "expected a Gemma, Gemma 2 or Gemma 3 backbone. Received: 'BertBackbone'"),
        ({"config": [1]}, "`config` must be an object"),
        ({"config": {**SIZES, "unheard_of": 1}}, "no argument 'unheard_of'"),
        ({"config": {**SIZES, "layer_norm_epsilon": "x"}}, "`layer_norm_epsilon` must be a number > 0"),
        ({"config": {**SIZES, "final_logit_soft_cap": 10**400}}, "`final_logit_soft_cap` must be a number > 0"),
    ],
)
def test_other_objects(folder, changes, message):
    (folder / "config.json").write_text(json.dumps({**backbone(), **changes}))
    assert message in refused(check_folder, folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "[]", "\xff"])
def test_config_that_is_none(folder, text):
    (folder / "config.json").write_text(text)
    assert "config.json" in refused(check_folder, folder)


def test_a_dataset_that_claims_more_than_the_file_holds(folder):
    """4 TiB of zeros take no bytes on the disk and all of them in memory."""
    with h5py.File(folder / "model.weights.h5", "a") as file:
        file.create_dataset("layers/x/vars/0", (2**40,), np.float32, chunks=(2**16,), compression="gzip")
    text = refused(check_folder, folder)
    assert "model.weights.h5: 'layers/x/vars/0' claims 4,398,046,511,104 bytes" in text


@pytest.mark.parametrize("kind", ["soft", "outer", "storage", "virtual"])
def test_a_file_that_leads_elsewhere(folder, tmp_path_factory, kind):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret"
    elsewhere.write_bytes(b"mine" * 64)
    with h5py.File(folder / "model.weights.h5", "a") as file:
        if kind == "soft":
            file["x"] = h5py.SoftLink("/layers")
        elif kind == "outer":
            file["x"] = h5py.ExternalLink(str(elsewhere), "/")
        elif kind == "storage":
            file.create_dataset("x", (64,), np.float32, external=[(str(elsewhere), 0, 256)])
        else:
            layout = h5py.VirtualLayout((64,), np.float32)
            layout[:] = h5py.VirtualSource(str(elsewhere), "x", shape=(64,))
            file.create_virtual_dataset("x", layout)
    text = refused(check_folder, folder)
    assert "model.weights.h5: 'x'" in text and ("elsewhere" in text or "another file" in text)


@pytest.mark.parametrize("kept", [0, 7, 100, -50])
def test_a_cut_file(folder, kept):
    file = folder / "model.weights.h5"
    file.write_bytes(file.read_bytes()[:kept])
    assert "model.weights.h5" in refused(check_weights, file)


def test_the_check_imports_no_keras(folder):
    code = (
        "import pathlib, sys\nfrom gemma_keras.checkpoints.keras_hub_preset import check_folder\n"
        "check_folder(pathlib.Path(sys.argv[1]))\nsys.exit(bool({'keras', 'keras_hub'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
