"""Our logits against those of `transformers` for the same tiny random weights, and what we save against what it reads.

The oracle is stored (see make_transformers_oracle.py), so that no test imports a second framework beside the backend
under test; the way back runs live, under torch.
"""

import json
import pathlib
import shutil

import keras
import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
import numpy as np
import pytest

from gemma_keras import GemmaCausalLM

ORACLE = pathlib.Path(__file__).parent / "transformers_oracle"
NAMES = ("gemma1_mqa", "gemma1_mha", "gemma2", "gemma3")


def folder_in_dialect(name, dialect, tmp_path):
    """The oracle's folder, its config.json replaced by the older dialect where that is asked for."""
    if dialect == "v5":
        return ORACLE / name
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(ORACLE / name / "model.safetensors", folder)
    shutil.copy(ORACLE / name / "config_v4.json", folder / "config.json")
    return folder


@pytest.mark.parametrize("dialect", ["v4", "v5"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_transformers(name, dialect, tmp_path):
    oracle = np.load(ORACLE / name / "oracle.npz")
    model = GemmaCausalLM.from_preset(folder_in_dialect(name, dialect, tmp_path))
    ours = keras.ops.convert_to_numpy(model({"token_ids": oracle["token_ids"], "padding_mask": oracle["padding_mask"]}))
    real = oracle["padding_mask"]
    assert oracle["token_ids"].shape[1] > (model.config.sliding_window or 0)
    np.testing.assert_allclose(ours[real], oracle["logits"][real], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(half, marks=pytest.mark.slow) for half in ("bfloat16", "float16"))]
)
@pytest.mark.parametrize("name", NAMES)
def test_saved_tensors_equal_the_source_byte_for_byte(name, dtype, tmp_path):
    from safetensors.numpy import load_file, save_file

    source = {key: values.astype(dtype) for key, values in load_file(ORACLE / name / "model.safetensors").items()}
    (tmp_path / "source").mkdir()
    save_file(source, tmp_path / "source" / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(ORACLE / name / "config.json", tmp_path / "source")
    GemmaCausalLM.from_preset(tmp_path / "source", dtype=dtype).save_to_preset(tmp_path / "saved", dtype=dtype)
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(source) == set(saved)
    for key, values in source.items():
        assert (saved[key].dtype, saved[key].shape) == (values.dtype, values.shape)
        assert saved[key].tobytes() == values.tobytes(), key


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="runs transformers live, which is torch; once is enough")
@pytest.mark.parametrize("name", NAMES)
def test_transformers_opens_what_we_save(name, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    GemmaCausalLM.from_preset(ORACLE / name).save_to_preset(tmp_path)
    oracle = np.load(ORACLE / name / "oracle.npz")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    real = oracle["padding_mask"]
    positions = np.where(real, real.cumsum(1) - 1, 0)
    with torch.no_grad():
        logits = model(
            torch.tensor(oracle["token_ids"]).long(),
            attention_mask=torch.tensor(real).long(),
            position_ids=torch.tensor(positions).long(),
        ).logits.numpy()
    np.testing.assert_allclose(logits[real], oracle["logits"][real], atol=1e-4, rtol=0)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [1, 106 if name == "gemma3" else 107]
