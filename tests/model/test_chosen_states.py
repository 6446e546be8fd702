"""States of chosen positions against NumPy's indices."""

import numpy as np
import pytest
from keras import ops

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaRewardModel, backends
from gemma_keras.inputs.padding import padded
from gemma_keras.layers.chosen_states import chosen_states

HIDDEN = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
LONG, SHORT = [5, 9, 4, 7], [8, 6]
# Both in one row, and a row that holds nothing.
PACKED = {
    "token_ids": np.array([[*LONG, *SHORT, 0], [0] * 7], np.int32),
    "padding_mask": np.array([[True] * 6 + [False], [False] * 7]),
    "positions": np.array([[0, 1, 2, 3, 0, 1, 0], [0] * 7], np.int32),
    "segment_ids": np.array([[1, 1, 1, 1, 2, 2, 0], [0] * 7], np.int32),
}


@pytest.fixture(scope="module")
def backbone():
    config = GemmaConfig(
        vocabulary_size=17, num_layers=2, num_query_heads=2, num_key_value_heads=1, head_dim=8, hidden_dim=16,
        intermediate_dim=32, sliding_window=2, local_layers=(True, False),
    )  # fmt: skip
    return GemmaBackbone(config, seed=1)


def test_positions_in_each_row_or_in_any():
    positions = np.array([[4, 0, 0], [1, 3, 2]])
    own = ops.convert_to_numpy(chosen_states(HIDDEN, positions))
    assert (own == HIDDEN[[[0], [1]], positions]).all()
    rows = np.array([[1, 1, 0], [0, 1, 0]])
    assert (ops.convert_to_numpy(chosen_states(HIDDEN, positions, rows)) == HIDDEN[rows, positions]).all()


def test_packed_sequences_get_the_numbers_that_they_get_alone(backbone):
    model, reward = GemmaCausalLM(backbone), GemmaRewardModel(backbone, seed=2)
    targets = {"target_ids": [[9, 4], [6, 0]], "target_rows": [[0, 0], [0, 1]], "target_positions": [[0, 1], [4, 0]]}
    packed = {**PACKED, **{name: np.array(values, np.int32) for name, values in targets.items()}}
    alone = padded([LONG, SHORT], 0, 7)
    score = backends.compile_forward(lambda inputs: model.score(inputs), [model])
    each = backends.compile_forward(lambda arrays: model.token_log_probs(*arrays), [model])
    found, (long, short) = backends.to_host(score(packed)), backends.to_host(each(alone))
    assert np.allclose(found[0], long[1:3], atol=1e-5) and found[1, 0] == pytest.approx(short[1], abs=1e-5)
    rewards = backends.compile_forward(lambda inputs: reward(inputs), [reward])
    ends = {"reward_rows": np.array([0, 0], np.int32), "reward_positions": np.array([5, 3], np.int32)}
    scores = backends.to_host(rewards({**PACKED, **ends}))
    of_each = backends.to_host(rewards({"token_ids": alone[0], "padding_mask": alone[1]}))
    assert scores == pytest.approx(of_each[::-1], abs=1e-5) and abs(scores[0] - scores[1]) > 1e-3
