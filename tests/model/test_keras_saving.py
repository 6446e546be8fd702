"""Every way of Keras to save a model: weights bit-equal, the tokenizer equal, and one more training step as well; a
`fit` that was interrupted goes on from its backup or checkpoint."""

import copy
import pickle
import threading

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaRewardModel, GemmaTokenizer
from gemma_keras.backends import to_host

pytestmark = pytest.mark.fault("Keras' own saving: weights, pickle, BackupAndRestore, ModelCheckpoint, threads")

TEXTS = ["red cat sun", "blue dog", "one two three green moon", "cat"]
PAIRS = [{"prompt": text, "chosen": "one two", "rejected": "green"} for text in TEXTS]
ROWS = {GemmaCausalLM: TEXTS, GemmaRewardModel: PAIRS}
ONCE = pytest.mark.once
KINDS = pytest.mark.parametrize("kind", ROWS, ids=["language", "reward"])


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train([*TEXTS, "user model"] * 3, 320, "gemma3")


@pytest.fixture
def make(tokenizer):
    def make(kind, seed=3):
        config = GemmaConfig(
            vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_query_heads=2, num_key_value_heads=1,
            head_dim=8, hidden_dim=16, intermediate_dim=32,
        )  # fmt: skip
        model = kind(GemmaBackbone(config, seed=seed), tokenizer)
        if kind is GemmaCausalLM:
            model.preprocessor.sequence_length = 32
        model.compile(keras.optimizers.AdamW(1e-2))
        return model

    return make


def fit(model, epochs=1, **options):
    """Losses; an epoch has two updates."""
    history = model.fit(ROWS[type(model)], batch_size=2, epochs=epochs, shuffle=False, verbose=0, **options)
    return history.history["loss"]


def weights_of(model):
    return {variable.path: to_host(variable).copy() for variable in model.weights}


def assert_same(found, model):
    """Equal weights by name, tokenizer, and both once more after an epoch."""
    for _ in range(2):
        wanted, got = weights_of(model), weights_of(found)
        assert got.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(got[name], array, err_msg=name)
        assert found.tokenizer.get_config() == model.tokenizer.get_config()
        assert fit(found) == fit(model)


@KINDS
@pytest.mark.parametrize(
    "way", ["weights", *(pytest.param(way, marks=ONCE) for way in ("keras", "pickle", "deepcopy"))]
)
def test_a_saved_model_is_the_same_one(make, tmp_path, kind, way):
    """With its optimizer, but for files of weights alone: both get a new one."""
    model = make(kind)
    fit(model)
    if way == "weights":
        model.save_weights(tmp_path / "model.weights.h5")
        found = make(kind, seed=9)
        found.load_weights(tmp_path / "model.weights.h5")
        model.compile(keras.optimizers.AdamW(1e-2))
    elif way == "keras":
        model.save(tmp_path / "model.keras")
        found = keras.saving.load_model(tmp_path / "model.keras")
    elif way == "pickle":
        found = pickle.loads(pickle.dumps(model))
    else:
        found = copy.deepcopy(model)
    assert found is not model
    if kind is GemmaCausalLM:
        assert found.preprocessor.sequence_length == 32
    assert_same(found, model)


class Interrupted(Exception):
    """What ends a `fit` in its middle."""


class Interrupt(keras.callbacks.Callback):
    """Ends `fit` in the epoch of this number, after its first update."""

    def __init__(self, epoch):
        super().__init__()
        self.at, self.epoch = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.at:
            raise Interrupted


@KINDS
@pytest.mark.once
def test_a_fit_goes_on_from_its_backup(make, tmp_path, kind):
    """Keras' backup is of whole epochs: the one that was interrupted is done again."""
    model = make(kind)
    losses = fit(model, epochs=4)
    interrupted = make(kind)
    with pytest.raises(Interrupted):
        fit(interrupted, 4, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt(2)])
    found = make(kind, seed=9)  # other weights, which the backup takes the place of
    assert fit(found, 4, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")]) == losses[2:]
    found._initial_epoch = None  # Keras leaves the epoch there, and a later `fit` of fewer would do nothing
    assert_same(found, model)


@KINDS
@pytest.mark.parametrize("only_weights", [False, pytest.param(True, marks=ONCE)])
def test_a_fit_goes_on_from_its_checkpoint(make, tmp_path, kind, only_weights):
    model = make(kind)
    losses = fit(model, 2)
    file = tmp_path / ("newest.weights.h5" if only_weights else "newest.keras")
    interrupted = make(kind)
    checkpoint = keras.callbacks.ModelCheckpoint(file, save_weights_only=only_weights)
    with pytest.raises(Interrupted):
        fit(interrupted, 4, callbacks=[checkpoint, Interrupt(2)])
    if only_weights:
        found = make(kind, seed=9)
        fit(found)  # the optimizer has its variables, which the file holds too
        found.load_weights(file)
    else:
        found = keras.saving.load_model(file)
    assert len(losses) == 2
    assert_same(found, model)


@pytest.mark.once
def test_a_save_while_another_thread_generates(make, tmp_path):
    """Neither is disturbed: the answers are those of before, the files those of the model."""
    model = make(GemmaCausalLM)
    fit(model)
    alone = model.generate("red cat", max_length=24, seed=3)
    said, errors, ended = [], [], threading.Event()

    def generate():
        try:
            while not ended.is_set() or not said:
                said.append(model.generate("red cat", max_length=24, seed=3))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    try:
        for number in range(2):
            model.save_weights(tmp_path / f"{number}.weights.h5")
            model.save(tmp_path / f"{number}.keras")
            model.save_to_preset(tmp_path / f"preset-{number}")
    finally:
        ended.set()
        thread.join(120)
    assert not errors and set(said) == {alone}
    for number in range(2):
        saved = make(GemmaCausalLM, seed=9)
        saved.load_weights(tmp_path / f"{number}.weights.h5")
        for found in (
            saved,
            keras.saving.load_model(tmp_path / f"{number}.keras"),
            GemmaCausalLM.from_preset(tmp_path / f"preset-{number}"),
        ):
            assert [*weights_of(found)] == [*weights_of(model)]
            for name, array in weights_of(model).items():
                np.testing.assert_array_equal(weights_of(found)[name], array)
    assert found.generate("red cat", max_length=24, seed=3) == alone
