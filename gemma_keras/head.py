"""From hidden states to logits, or straight to the log-probability of chosen tokens."""

import keras
from keras import ops

from gemma_keras import backends
from gemma_keras.backends import reference
from gemma_keras.backends.reference import soft_capped
from gemma_keras.limits import DENSE_LOGITS, LEAST_CHUNK


def full_logits(hidden, matrix, soft_cap=None):
    """Logits of the whole vocabulary.

    Args:
        hidden: float (..., d). matrix: float (v, d), the output embedding.
        soft_cap: Gemma 2's final cap, or None.

    Returns:
        float32 (..., v).
    """
    return soft_capped(backends.output_logits(hidden, matrix), soft_cap)


def target_log_probs(hidden, matrix, target_ids, soft_cap=None, temperature=1.0, with_entropy=True):
    """Log-probability of each target, and the entropy at its position, without storing (b, m, v).

    The target's logit and the sum over the vocabulary come from one product accumulated in float32, in every dtype,
    `softmax_log_probs(soft_capped(hidden @ matrix.T) / temperature)`; a chunk of positions at a time once the logits
    would outgrow `DENSE_LOGITS`.

    Args:
        hidden: float (b, m, d). matrix: float (v, d).
        target_ids: int (b, m).
        soft_cap: Gemma 2's final cap, or None. temperature: float > 0, static.
        with_entropy: False saves a pass over the logits.

    Returns:
        log_probs: float32 (b, m), never above 0. entropy: float32 (b, m) in nats, without gradient, or None.
    """
    temperature = float(temperature)
    target_ids = ops.convert_to_tensor(target_ids, "int32")
    vocabulary, (batch, length) = matrix.shape[0], hidden.shape[:2]
    if batch is not None and length is not None and batch * length * vocabulary <= DENSE_LOGITS:
        return reference.softmax_log_probs(
            full_logits(hidden, matrix, soft_cap) / temperature, target_ids, with_entropy
        )
    flat, ids, chunk = _in_rows(hidden, target_ids, vocabulary)
    found = backends.chunked_log_probs(flat, matrix, ids, soft_cap, temperature, chunk, with_entropy)
    log_probs, entropy = (None if part is None else ops.reshape(part, ops.shape(target_ids)) for part in found)
    return log_probs, entropy


def weighted_log_prob(hidden, matrix, target_ids, weights, soft_cap=None, temperature=1.0):
    """Sum of the targets' log-probabilities times weights that are known before: a loss whose gradients come from the
    same logits as its value, where those of `target_log_probs` need them twice once they outgrow `DENSE_LOGITS`.

    Args:
        hidden, matrix, target_ids, soft_cap, temperature: as for `target_log_probs`.
        weights: float (b, m), constants. 0 leaves a position out.

    Returns:
        total: float32 (), differentiable. log_probs: float32 (b, m), without gradient.
    """
    target_ids = ops.convert_to_tensor(target_ids, "int32")
    weights = ops.cast(weights, "float32")
    if keras.backend.standardize_dtype(hidden.dtype) == "float16":
        # The slopes of many tokens are smaller than what float16 holds, until a loss scale has multiplied them.
        log_probs, _ = target_log_probs(hidden, matrix, target_ids, soft_cap, temperature, with_entropy=False)
        return reference.weighted_sum(log_probs, weights), ops.stop_gradient(log_probs)
    flat, ids, chunk = _in_rows(hidden, target_ids, matrix.shape[0])
    weights = ops.reshape(weights, ops.shape(ids))
    total, log_probs = backends.weighted_log_prob(flat, matrix, ids, weights, soft_cap, float(temperature), chunk)
    return total, ops.reshape(log_probs, ops.shape(target_ids))


def _in_rows(hidden, target_ids, vocabulary):
    """Hidden states and targets as (b, m, ...), and how many of the m positions are a chunk."""
    batch, length, width = hidden.shape
    if batch is None or length is None:
        # TensorFlow traces a last, smaller batch with unknown size: chunks of a fixed number of tokens, whatever row
        # they are of, and as many as may be computed at once.
        flat, ids = ops.reshape(hidden, (1, -1, width)), ops.reshape(target_ids, (1, -1))
        return flat, ids, max(LEAST_CHUNK, DENSE_LOGITS // vocabulary)
    if batch * length * vocabulary <= DENSE_LOGITS:
        return hidden, target_ids, length
    chunk = max(1, min(length, max(LEAST_CHUNK // batch, DENSE_LOGITS // (2 * batch * vocabulary))))
    return hidden, target_ids, chunk
