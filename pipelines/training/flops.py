"""Operations that an update needs, by `pipelines.measures.model_flops`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipelines.measures.model_flops import ADAPTER_TRAINING, TRAINING, keys_of_batch, model_flops
from pipelines.training.adapters import adapter_figures

_BEARS_LOSS = ("target_mask", "response_mask")


def training_flops(model: Any) -> Callable[[Mapping[str, np.ndarray]], float]:
    """What `Trainer` counts operations with.

    Args:
        model: GemmaCausalLM, or GemmaRewardModel, which needs no vocabulary; with its adapter, if it gets one.

    Returns:
        Batch of arrays → operations of its real tokens, forwards and backwards.
    """
    adapter = adapter_figures(model).get("trainable_parameters", 0)
    passes = ADAPTER_TRAINING if adapter else TRAINING

    def count(batch: Mapping[str, np.ndarray]) -> float:
        head_tokens = sum(int(np.sum(batch[name])) for name in _BEARS_LOSS if name in batch)
        return model_flops(model.config, keys_of_batch(batch), head_tokens, passes, adapter)

    return count
