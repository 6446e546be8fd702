"""A model and its adapter as one model, added up tensor by tensor while the weights are read."""

import dataclasses

import numpy as np

from gemma_keras.checkpoints import peft
from gemma_keras.checkpoints.format import StoredModel
from gemma_keras.checkpoints.weights import Reader, StoredWeights


def merged(model: StoredModel) -> StoredModel:
    """The sum of a model and the adapter that it was opened with; itself where there was none.

    The sum is formed in float32 and rounded once. An adapter that holds a reward head makes a reward model, whose
    scores are not normalised.

    Raises:
        CheckpointError: the adapter does not fit the model.

    Source: arXiv:2106.09685, equation 3.
    """
    if model.adapter is None:
        return model
    options, pairs, score = peft.read_adapter(model.adapter, model.config)
    reward = model.reward if score is None else {"reward_mean": 0.0, "reward_std": 1.0}
    weights = model.weights
    if isinstance(weights, StoredWeights):
        changed = {name: _sum(weights, name, options.scale, pair) for name, pair in pairs.items()}
        if score is not None:
            changed["score"] = _constant(score)
        weights = weights.replaced(changed)
    return dataclasses.replace(model, weights=weights, reward=reward, adapter=None)


def _sum(weights: StoredWeights, name: str, scale: float, pair: tuple[np.ndarray, np.ndarray]) -> Reader:
    def read(dtype: np.dtype | None) -> np.ndarray:
        # Asked for as stored only where the result goes back to that dtype: rounding comes after the sum.
        stored = weights.read(name, None if dtype is None else "float32")
        total = stored.astype(np.float32) + np.float32(scale) * (pair[0] @ pair[1])
        return total.astype(dtype or stored.dtype, copy=False)

    return read


def _constant(values: np.ndarray) -> Reader:
    def read(dtype: np.dtype | None) -> np.ndarray:
        return values.astype(dtype or values.dtype, copy=False)

    return read
