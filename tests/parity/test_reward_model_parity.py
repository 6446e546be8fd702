"""Raw scores of reward models that we save, against `transformers`' `AutoModelForSequenceClassification` on the same
folder.

The oracle is stored (see make_reward_oracle.py), so that no test imports a second framework beside the backend under
test; under torch it runs live too, on a folder that this test wrote.
"""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest

from gemma_keras import GemmaRewardModel

HERE = pathlib.Path(__file__).parent
NAMES = ("gemma1_mqa", "gemma1_mha", "gemma2", "gemma3")
SEED = 23


def padded(vocabulary_size, side):
    """The oracle's five sequences of 12, 7, 1, 9 and 3 tokens, padded on `side`."""
    random = np.random.default_rng(5)
    token_ids, is_token = np.zeros((5, 12), np.int32), np.zeros((5, 12), bool)
    for row, length in enumerate((12, 7, 1, 9, 3)):
        place = slice(0, length) if side == "right" else slice(12 - length, 12)
        token_ids[row, place] = random.integers(3, vocabulary_size, length)
        is_token[row, place] = True
    return token_ids, is_token


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_transformers(name, side):
    oracle = np.load(HERE / "reward_oracle.npz")[f"{name}_{side}"]
    model = GemmaRewardModel.from_preset(HERE / "transformers_oracle" / name, seed=SEED)
    token_ids, is_token = padded(model.config.vocabulary_size, side)
    inputs = {"token_ids": token_ids, "padding_mask": is_token}
    scores = keras.ops.convert_to_numpy(model(inputs))
    assert np.ptp(oracle) > 0.1
    np.testing.assert_allclose(scores, oracle, atol=1e-4, rtol=0)
    last = 11 - np.argmax(is_token[:, ::-1], axis=1)
    by_index = keras.ops.convert_to_numpy(model({**inputs, "reward_positions": last.astype(np.int32)}))
    np.testing.assert_array_equal(by_index, scores)
    # The token before the last one has another score: the index is what decides.
    earlier = keras.ops.convert_to_numpy(
        model({**inputs, "reward_positions": np.maximum(last - 1, 0).astype(np.int32)})
    )
    assert np.max(np.abs(earlier - oracle)) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_normalisation_survive_saving(name, tmp_path):
    model = GemmaRewardModel.from_preset(HERE / "transformers_oracle" / name, seed=SEED)
    model.reward_mean, model.reward_std = 0.25, 1.5
    model.save_to_preset(tmp_path)
    again = GemmaRewardModel.from_preset(tmp_path, seed=SEED + 1)
    token_ids, is_token = padded(model.config.vocabulary_size, "right")
    raw = keras.ops.convert_to_numpy(again({"token_ids": token_ids, "padding_mask": is_token}))
    np.testing.assert_array_equal(
        raw, keras.ops.convert_to_numpy(model({"token_ids": token_ids, "padding_mask": is_token}))
    )
    np.testing.assert_allclose(again.normalized(raw), (raw - 0.25) / 1.5, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="runs transformers live, which is torch; once is enough")
@pytest.mark.parametrize("name", NAMES)
def test_transformers_opens_what_we_save(name, tmp_path):
    spec = importlib.util.spec_from_file_location("make_reward_oracle", HERE / "make_reward_oracle.py")
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    model = GemmaRewardModel.from_preset(HERE / "transformers_oracle" / name, seed=SEED + 1)
    model.reward_mean = 7.0
    model.save_to_preset(tmp_path)
    for side in ("left", "right"):
        token_ids, is_token = padded(model.config.vocabulary_size, side)
        scores = keras.ops.convert_to_numpy(model({"token_ids": token_ids, "padding_mask": is_token}))
        np.testing.assert_allclose(
            oracle.oracle_scores(tmp_path, side, model.config.vocabulary_size), scores, atol=1e-4, rtol=0
        )
