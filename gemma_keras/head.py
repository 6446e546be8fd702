"""From hidden states to logits, or straight to the log-probability of chosen tokens."""

from keras import ops

from gemma_keras import backends
from gemma_keras.backends import reference
from gemma_keras.backends.reference import soft_capped

# Logits of at most this many floats (64 MiB) are computed at once; above it, in chunks of about half as many.
DENSE_LOGITS = 1 << 24
# But a chunk has at least this many positions: each adds its share to a gradient as large as the matrix, (v, d), and
# with 32 positions at v = 262,144 those additions took twice the time of the whole model.
LEAST_CHUNK = 256


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
    batch, length = hidden.shape[:2]
    vocabulary, temperature = matrix.shape[0], float(temperature)
    target_ids = ops.convert_to_tensor(target_ids, "int32")
    if batch is None or length is None:
        # TensorFlow traces a last, smaller batch with unknown size: chunks of a fixed number of tokens, whatever row
        # they are of.
        flat, ids = ops.reshape(hidden, (1, -1, hidden.shape[-1])), ops.reshape(target_ids, (1, -1))
        chunk = max(LEAST_CHUNK, DENSE_LOGITS // (2 * vocabulary))
        found = backends.chunked_log_probs(flat, matrix, ids, soft_cap, temperature, chunk, with_entropy)
        log_probs, entropy = (None if part is None else ops.reshape(part, ops.shape(target_ids)) for part in found)
        return log_probs, entropy
    if batch * length * vocabulary <= DENSE_LOGITS:
        return reference.softmax_log_probs(
            full_logits(hidden, matrix, soft_cap) / temperature, target_ids, with_entropy
        )
    chunk = max(1, min(length, max(LEAST_CHUNK // batch, DENSE_LOGITS // (2 * batch * vocabulary))))
    return backends.chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy)
