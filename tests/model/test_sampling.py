"""Sampling against hand-computed cumulative sums and exact frequencies."""

import numpy as np
import pytest
from keras import ops

from gemma_keras import Sampler
from gemma_keras.backends import to_host
from gemma_keras.random import generator
from gemma_keras.sampling import inverse_transform, sample

GRID = ((np.arange(1000) + 0.5) / 1000).astype(np.float32)


def frequencies(logits, sampler):
    """Share of each token over a uniform grid of draws: the exact distribution up to 1e-3."""
    drawn = to_host(
        sample(ops.convert_to_tensor(np.tile(np.float32(logits), (1000, 1))), ops.convert_to_tensor(GRID), sampler)
    )
    return np.bincount(drawn, minlength=len(logits)) / 1000


def softmax(logits):
    weights = np.exp(np.float64(logits) - np.max(logits))
    return weights / weights.sum()


LOGITS = [1.0, 3.0, -2.0, 2.0, 0.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax_at_the_temperature(temperature):
    np.testing.assert_allclose(
        frequencies(LOGITS, Sampler(temperature)), softmax(np.array(LOGITS) / temperature), atol=2e-3
    )


def test_temperature_zero_takes_the_maximum():
    assert frequencies(LOGITS, Sampler(0.0))[1] == 1.0


def test_top_k_keeps_the_k_largest():
    kept = softmax([1.0, 3.0, -np.inf, 2.0, -np.inf])
    np.testing.assert_allclose(frequencies(LOGITS, Sampler(top_k=3)), kept, atol=2e-3)


@pytest.mark.parametrize("top_p, kept", [(0.5, [1]), (0.7, [1, 3]), (0.94, [0, 1, 3]), (1.0, [0, 1, 2, 3, 4])])
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, kept):
    # Cumulative probabilities of the sorted tokens: 0.641 (token 1), 0.877 (3), 0.964 (0), 0.996 (4), 1.
    expected = softmax([x if i in kept else -np.inf for i, x in enumerate(LOGITS)])
    np.testing.assert_allclose(frequencies(LOGITS, Sampler(top_p=top_p)), expected, atol=2e-3)


def test_large_vocabulary_agrees_with_float64_sums():
    weights = generator(0, "w").random((64, 5000), dtype=np.float32)
    weights[:, 100:3000] = 0
    draws = generator(0, "u").random(64, dtype=np.float32)
    drawn = to_host(inverse_transform(ops.convert_to_tensor(weights), ops.convert_to_tensor(draws)))
    ends = np.cumsum(weights.astype(np.float64), -1)
    expected = (ends <= (draws.astype(np.float64) * ends[:, -1])[:, None]).sum(-1)
    assert (drawn == expected).mean() >= 0.98
    assert np.abs(drawn - expected).max() <= 2901


def test_extreme_draws_land_on_tokens_of_positive_weight():
    weights = np.zeros((3, 1300), np.float32)
    weights[:, [5, 700, 1200]] = [0.1, 0.2, 0.7]
    draws = np.array([0.0, np.nextafter(np.float32(1), np.float32(0)), 0.15], np.float32)
    drawn = to_host(inverse_transform(ops.convert_to_tensor(weights), ops.convert_to_tensor(draws)))
    assert drawn.tolist() == [5, 1200, 700]


@pytest.mark.parametrize(
    "arguments", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"temperature": float("nan")}]
)
def test_values_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        Sampler(**arguments)


def test_unknown_sampler_names_are_refused():
    with pytest.raises(ValueError, match="greedy"):
        Sampler.from_name("beam")
