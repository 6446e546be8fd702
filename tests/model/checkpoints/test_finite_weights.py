"""Weights that are NaN or infinite are an error of the file they come from, and not of what is computed later."""

import ml_dtypes
import numpy as np
import pytest

from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.weights import StoredWeights, is_finite

pytestmark = pytest.mark.no_backend
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 1), (4, 6)])
def test_one_value_is_enough(dtype, value, place):
    array = np.linspace(-3, 3, 35).reshape(5, 7).astype(dtype)
    assert is_finite(array) and is_finite(array.T) and is_finite(array[0]) and is_finite(array[:0])
    array[place] = value
    assert not is_finite(array) and not is_finite(array.T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_are_finite(dtype):
    info = ml_dtypes.finfo(dtype)
    assert is_finite(np.array([info.min, info.max, info.tiny], dtype))


def test_blocks_of_rows_are_all_looked_at(monkeypatch):
    monkeypatch.setattr("gemma_keras.checkpoints.weights._BLOCK", 8)
    array = np.zeros((9, 4), ml_dtypes.bfloat16)
    assert is_finite(array)
    array[8, 3] = np.inf
    assert not is_finite(array)


def test_the_weight_and_its_file_are_named():
    arrays = {"good": np.ones(3, np.float32), "bad": np.float32([1, np.nan])}
    weights = StoredWeights("m/model.safetensors", {name: lambda dtype, a=a: a for name, a in arrays.items()})
    assert weights.read("good").tolist() == [1, 1, 1]
    with pytest.raises(
        CheckpointError, match=r"m/model\.safetensors: weight 'bad' has values that are NaN or infinite"
    ):
        weights.read("bad")
    with pytest.raises(CheckpointError, match="'bad'"):
        dict(weights)


def test_replaced_weights_are_read_as_the_others():
    def reader(dtype):
        return np.ones(2, dtype)

    weights = StoredWeights("m", {"a": reader}, "float16").replaced({"b": reader})
    assert [weights.read(name).dtype for name in ("a", "b")] == [np.float16, np.float16]
    assert weights.read("b", "float32").dtype == np.float32
