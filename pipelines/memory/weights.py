"""Bytes of a model's weights, and how many of them are trained."""

from gemma_keras.config import GemmaConfig
from gemma_keras.lora_options import LoraOptions

FLOAT, HALF = 4, 2
# A kernel in 4 bits has a float32 scale for every 128 numbers of a column; one in 8 bits one a column.
QUANTIZED = {"int8": 1.0, "int4": 0.5 + FLOAT / 128}


def compute_bytes(dtype: str) -> int:
    """Bytes of a number that is computed with, under a Keras dtype policy."""
    return FLOAT if dtype == "float32" else HALF


def weight_bytes(config: GemmaConfig, dtype: str, quantize: str | None = None) -> float:
    """A model as `dtype` holds it: float32 weights in all but bfloat16, kernels in fewer bits where `quantize` says so;
    embedding and norms are never quantized."""
    size = HALF if dtype == "bfloat16" else FLOAT
    kernels = kernel_count(config)
    return size * (config.parameter_count - kernels) + kernels * (size if quantize is None else QUANTIZED[quantize])


def frozen_bytes(config: GemmaConfig, dtype: str, quantize: str | None = None) -> float:
    """A model that no stage trains: under mixed_bfloat16 in bfloat16, see `sampling/frozen.py`; but kernels are
    quantized from all their digits, and the rest of such a model stays in float32."""
    is_rounded = dtype == "mixed_bfloat16" and quantize is None
    return weight_bytes(config, "bfloat16" if is_rounded else dtype, quantize)


def trained_count(config: GemmaConfig, lora: LoraOptions | None) -> int:
    """Weights with a gradient: all, or those of the adapter, (inputs + outputs) * rank a projection."""
    if lora is None:
        return config.parameter_count
    shapes = kernel_shapes(config)
    return config.num_layers * sum(sum(shapes[target]) * lora.rank for target in lora.targets)


def kernel_shapes(config: GemmaConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each projection of a block."""
    d, f = config.hidden_dim, config.intermediate_dim
    queries, keys = config.num_query_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return {
        "q_proj": (d, queries), "k_proj": (d, keys), "v_proj": (d, keys), "o_proj": (queries, d),
        "gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d),
    }  # fmt: skip


def kernel_count(config: GemmaConfig, blocks: int | None = None) -> int:
    """Numbers in the projections of so many blocks, default all."""
    layers = config.num_layers if blocks is None else blocks
    return layers * sum(inputs * outputs for inputs, outputs in kernel_shapes(config).values())


def embedding_count(config: GemmaConfig) -> int:
    """Numbers in the embedding, which is the output matrix too."""
    return config.vocabulary_size * config.hidden_dim
