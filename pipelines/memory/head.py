"""The head: one chunk of logits at a time, and the output matrix as it is multiplied with."""

from gemma_keras.config import GemmaConfig
from gemma_keras.limits import DENSE_LOGITS, LEAST_CHUNK
from pipelines.memory.activations import compiler
from pipelines.memory.weights import FLOAT, HALF, compute_bytes, embedding_count


def chunk_targets(rows: int, targets: int, vocabulary: int) -> int:
    """How many targets of (rows, targets) have their logits computed at once, see `gemma_keras.head`."""
    if rows * targets * vocabulary <= DENSE_LOGITS:
        return rows * targets
    return rows * max(1, min(targets, max(LEAST_CHUNK // rows, DENSE_LOGITS // (2 * rows * vocabulary))))


def head_bytes(
    config: GemmaConfig, backend: str, dtype: str, rows: int, targets: int, is_trained: bool, has_entropy: bool = False
) -> float:
    """What stands while the log-probabilities of (rows, targets) and their gradients are computed.

    Args:
        is_trained: whether the output matrix has a gradient. has_entropy: whether the softmax stands beside the logits.

    XLA holds a chunk's logits and their slopes; PyTorch turns the one into the other in place, and casts them in half
    precision. Each chunk's share of the matrix' gradient is a product of its own before it is added.
    """
    chunks = chunk_targets(rows, targets, config.vocabulary_size)
    size = compute_bytes(dtype)
    is_xla = compiler(backend) == "xla"
    copies = FLOAT + (FLOAT if is_xla else 0) + (HALF if size == HALF else 0)
    copies += FLOAT * (config.final_logit_soft_cap is not None and not is_xla) + FLOAT * has_entropy
    share = 0.0
    if is_trained and chunks < rows * targets:
        share = (FLOAT if is_xla else HALF * (size == HALF)) * embedding_count(config)
    return chunks * config.vocabulary_size * copies + share + cast_bytes(config, dtype)


def cast_bytes(config: GemmaConfig, dtype: str) -> float:
    """The output matrix in half precision beside that in float32."""
    return HALF * embedding_count(config) if dtype == "mixed_bfloat16" else 0.0


def exact_kl_bytes(config: GemmaConfig, rows: int, new_tokens: int) -> float:
    """What `ExactKL` holds of two models' distributions: of each logits, their logarithm, and the products of both."""
    positions = min(DENSE_LOGITS // (2 * config.vocabulary_size), rows * new_tokens)
    return 6 * FLOAT * positions * config.vocabulary_size
