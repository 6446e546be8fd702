"""A reward model's own parts: which token is scored, and the dtype that it is loaded in."""

import numpy as np

from gemma_keras import GemmaBackbone, GemmaRewardModel
from gemma_keras.backends import to_host
from gemma_keras.reward_model import last_token_positions


def test_the_last_real_token_is_scored_wherever_the_padding_lies():
    ids = np.zeros((3, 4), np.int32)
    is_token = np.array([[True, True, False, False], [False, True, True, True], [True, True, True, True]])
    assert to_host(last_token_positions(ids, is_token)).tolist() == [1, 3, 3]
    assert to_host(last_token_positions(ids)).tolist() == [3, 3, 3]


def test_it_is_loaded_in_the_dtype_that_is_asked_for(tiny_configs, tmp_path):
    GemmaRewardModel(GemmaBackbone(tiny_configs["gemma3"], seed=1), seed=2).save_to_preset(tmp_path)
    for dtype in ("float32", "bfloat16"):
        assert GemmaRewardModel.from_preset(tmp_path, dtype=dtype).backbone.compute_dtype == dtype
