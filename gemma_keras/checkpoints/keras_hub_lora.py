"""KerasHub's `.lora.h5` files, through KerasHub's own reader."""

from pathlib import Path

import numpy as np

from gemma_keras.checkpoints import keras_hub, keras_hub_preset
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.config import GemmaConfig
from gemma_keras.lora_options import LoraOptions

_LAYERS = {"q_proj": "query_dense", "v_proj": "value_dense"}


def read_file(file: str | Path, config: GemmaConfig) -> tuple[LoraOptions, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """An adapter that KerasHub's `backbone.save_lora_weights` wrote, as ours.

    KerasHub gives each of the n heads its own `a` (d, r) under one `b` (r, h): here that is one path of rank n r, its
    second factor block by block. Those of the fewer value heads are filled up with zeros. KerasHub holds the whole
    model meanwhile.

    Returns:
        options; full name → (a (inputs, n r), b (n r, outputs)), float32.

    Raises:
        CheckpointError: KerasHub cannot read the file, or it is of another model.
        ModuleNotFoundError: the extra `keras-hub` is not installed.
    """
    if Path(file).is_file():
        keras_hub_preset.check_weights(Path(file))
    backbone = keras_hub.build(config)
    try:
        backbone.load_lora_weights(str(file))
    except (ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file}: KerasHub cannot read it as an adapter of this model: {reason[:300]}") from error
    pairs = {}
    for index, layer in enumerate(backbone.transformer_layers):
        for target, name in _LAYERS.items():
            dense = getattr(layer.attention, name)
            a, b = (np.asarray(keras_hub.host_array(v), np.float32) for v in (dense.lora_kernel_a, dense.lora_kernel_b))
            pairs[f"layers.{index}.{target}"] = _as_one_path(a, b, config.num_query_heads)
    rank = next(iter(pairs.values()))[0].shape[1]
    return LoraOptions(rank=rank, targets=tuple(_LAYERS)), pairs


def _as_one_path(a: np.ndarray, b: np.ndarray, most_heads: int) -> tuple[np.ndarray, np.ndarray]:
    heads, width, rank = a.shape
    head_dim = b.shape[1]
    wide_a = np.zeros((width, most_heads * rank), np.float32)
    wide_b = np.zeros((most_heads * rank, heads * head_dim), np.float32)
    for head in range(heads):
        ranks, columns = slice(head * rank, (head + 1) * rank), slice(head * head_dim, (head + 1) * head_dim)
        wide_a[:, ranks], wide_b[ranks, columns] = a[head], b
    return wide_a, wide_b
