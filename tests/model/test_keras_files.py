"""Keras' own files: a run of `fit` goes on from a `.keras` file in a new process, and a model is exported."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer, Sampler
from gemma_keras.backends import to_host

TEXTS = ["red cat sun", "blue dog", "one two three green moon", "cat"]
GO_ON = """
import json, sys
from gemma_keras import GemmaCausalLM  # known to Keras from here on
import keras
model = keras.saving.load_model(sys.argv[1])
texts = json.loads(sys.argv[2])
losses = model.fit(texts, batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"]
said = model.generate("red", max_length=16, seed=3)
print(json.dumps({"losses": losses, "said": said, "sampler": repr(model.sampler),
                  "sequence_length": model.preprocessor.sequence_length,
                  "rate": float(model.optimizer.learning_rate)}))
"""


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(TEXTS, 300, "gemma3")


def make_model(tokenizer, **changes):
    config = GemmaConfig(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2, num_key_value_heads=1, head_dim=8,
        hidden_dim=16, intermediate_dim=32,
    )  # fmt: skip
    return GemmaCausalLM(GemmaBackbone(config.replace(**changes), seed=3), tokenizer)


SAVING = pytest.mark.fault("Keras' own saving: weights, pickle, BackupAndRestore, ModelCheckpoint, threads")


@SAVING
@pytest.mark.parametrize("with_adapter", [pytest.param(False, marks=pytest.mark.once), True])
def test_fit_goes_on_bit_for_bit_from_the_file_of_a_checkpoint(tokenizer, tmp_path, with_adapter):
    model = make_model(tokenizer)
    if with_adapter:
        model.enable_lora(rank=2)
    model.preprocessor.sequence_length = 64
    model.compile(keras.optimizers.AdamW(3e-3), sampler=Sampler(0.7, top_k=9))
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model.fit(TEXTS, batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=[checkpoint])
    losses = model.fit(TEXTS, batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"]
    command = [sys.executable, "-c", GO_ON, str(tmp_path / "2.keras"), json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["losses"] == losses
    assert found["said"] == model.generate("red", max_length=16, seed=3)
    assert found["sampler"] == repr(Sampler(0.7, top_k=9)) and found["sequence_length"] == 64
    assert found["rate"] == pytest.approx(3e-3)


@SAVING
def test_a_users_loss_comes_back_from_the_file(tokenizer, tmp_path):
    model = make_model(tokenizer)
    with pytest.warns(UserWarning, match="logits of the whole vocabulary"):
        model.compile(
            keras.optimizers.SGD(1e-2),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="right")],
        )
    model.fit(TEXTS, batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.fit(TEXTS, batch_size=4, shuffle=False, verbose=0).history
    found = again.fit(TEXTS, batch_size=4, shuffle=False, verbose=0).history
    assert found == expected and set(found) == {"loss", "right"}


SHAPES = ((1, 5), (3, 9))


def inputs(shape):
    ids = np.random.default_rng(0).integers(3, 97, shape).astype(np.int32)
    mask = np.ones(shape, bool)
    mask[-1, :2] = False
    return {"token_ids": ids, "padding_mask": mask}


@pytest.fixture
def family_model(tiny_configs):
    return GemmaCausalLM(GemmaBackbone(tiny_configs["gemma3"], seed=2))


@pytest.mark.needs("tensorflow")
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "torch", reason="Keras writes no SavedModel from torch")
def test_an_exported_model_gives_the_logits_at_any_size(family_model, tmp_path):
    import tensorflow

    family_model.export(tmp_path / "saved", verbose=False)
    served = tensorflow.saved_model.load(str(tmp_path / "saved"))
    for shape in SHAPES:
        given = inputs(shape)
        expected = np.asarray(to_host(family_model(given)))
        real = given["padding_mask"]
        np.testing.assert_allclose(np.array(served.serve(given))[real], expected[real], atol=1e-5)


@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="PyTorch's format")
def test_on_torch_a_model_is_exported_at_a_fixed_size(family_model, tmp_path):
    import torch

    with pytest.raises(ValueError, match="Keras cannot write a SavedModel of this model on torch. Export it with"):
        family_model.export(tmp_path / "saved")
    with pytest.raises(ValueError, match="PyTorch's export needs fixed shapes. Pass input_signature="):
        family_model.export(tmp_path / "model.pt2", format="torch")
    specs = {"token_ids": "int32", "padding_mask": "bool"}
    signature = [{name: keras.InputSpec(shape=(3, 9), dtype=dtype, name=name) for name, dtype in specs.items()}]
    family_model.export(tmp_path / "model.pt2", format="torch", input_signature=signature, verbose=False)
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    given = inputs((3, 9))
    found = loaded({name: torch.tensor(value) for name, value in given.items()}).detach().numpy()
    expected = to_host(family_model(given))
    np.testing.assert_allclose(found[given["padding_mask"]], expected[given["padding_mask"]], atol=1e-5)
