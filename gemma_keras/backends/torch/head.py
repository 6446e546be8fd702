"""Logits, and log-probabilities without all of them, on PyTorch."""

import torch

from gemma_keras.backends import reference
from gemma_keras.backends.reference import number_of_chunks
from gemma_keras.backends.torch.packed import float32_logits, transposed_product
from gemma_keras.backends.torch.products import is_for_onednn, product

# Numbers of a half-precision matrix that are float32 at a time on a CPU: 8 MiB, which a cache may hold.
BLOCK = 1 << 21


def output_logits(hidden, matrix):
    """As `reference.output_logits`."""
    if hidden.dtype == torch.float32:
        return transposed_product(hidden, matrix)
    prepared = float32_logits(hidden, matrix)
    return _HalfLogits.apply(hidden, matrix) if prepared is None else prepared


class _HalfLogits(torch.autograd.Function):
    @staticmethod
    def forward(context, hidden, matrix):
        context.save_for_backward(hidden, matrix)
        logits = torch.empty((*hidden.shape[:-1], matrix.shape[0]), dtype=torch.float32, device=hidden.device)
        _product(hidden.reshape(-1, hidden.shape[-1]), matrix, logits.view(-1, matrix.shape[0]))
        return logits

    @staticmethod
    def backward(context, gradient):
        hidden, matrix = context.saved_tensors
        slope = gradient.reshape(-1, matrix.shape[0]).to(hidden.dtype)
        rows = hidden.reshape(-1, hidden.shape[-1])
        needs_hidden, needs_matrix = context.needs_input_grad
        hidden_gradient = (slope @ matrix).reshape(hidden.shape) if needs_hidden else None
        return hidden_gradient, slope.t() @ rows if needs_matrix else None


def _product(rows, matrix, out):
    """rows (n, d) @ matrix.T in `out`, float32 (n, v)."""
    if rows.dtype == torch.float32:
        torch.mm(rows, matrix.t(), out=out)
    elif rows.is_cuda:
        torch.mm(rows, matrix.t(), out_dtype=torch.float32, out=out)
    else:
        _product_in_blocks(rows, matrix, out)


def _product_in_blocks(rows, matrix, out):
    """As `_product`, for a CPU, where a half-precision product is rounded to half precision: a block of the matrix is
    float32 at a time."""
    rows = rows.float()
    block = torch.empty((min(len(matrix), max(1, BLOCK // matrix.shape[1])), matrix.shape[1]), device=rows.device)
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    if matrix.dtype == torch.bfloat16:
        # What was cast from bfloat16 loses nothing when the product casts it back, on its way into instructions that
        # multiply bfloat16 and add in float32: twice as fast where a processor has them.
        settings.fp32_precision = "bf16"
    try:
        for start in range(0, len(matrix), len(block)):
            part = matrix[start : start + len(block)]
            torch.mm(rows, block[: len(part)].copy_(part).t(), out=out[:, start : start + len(part)])
    finally:
        settings.fp32_precision = before


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(context, hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy):
        # Under a frozen matrix, as with an adapter, the states' gradient is all there is: taken here it spares the
        # second pass.
        context.is_frozen = context.needs_input_grad[:2] == (True, False)
        settings = soft_cap, temperature, chunk
        needs = (context.is_frozen, False)
        log_probs, entropy, slopes, _ = _forward(hidden, matrix, target_ids, None, settings, with_entropy, needs)
        context.save_for_backward(*((slopes,) if context.is_frozen else (hidden, matrix, target_ids, log_probs)))
        context.settings = settings
        if with_entropy:
            context.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(context, gradient, _):
        if context.is_frozen:
            (slopes,) = context.saved_tensors
            return slopes * gradient[:, :, None].to(slopes.dtype), *[None] * 6
        hidden, matrix, target_ids, log_probs = context.saved_tensors
        soft_cap, temperature, chunk = context.settings
        hidden_gradient = torch.empty_like(hidden)
        matrix_gradient = torch.zeros(matrix.shape, dtype=torch.float32, device=matrix.device)
        buffer = _buffer(hidden, matrix, chunk)
        for part, rows, ids in _chunks(hidden, target_ids, chunk):
            logits = _logits(rows, matrix, soft_cap, temperature, buffer)
            steepness = _steepness(logits, soft_cap, temperature)
            total = logits.gather(1, ids) - log_probs[:, part].reshape(-1, 1)
            factor = gradient[:, part].reshape(-1, 1) / temperature
            slope = _slope(logits.sub_(total).exp_(), ids, 1.0, factor, steepness).to(hidden.dtype)
            hidden_gradient[:, part] = product(slope, matrix.t()).reshape(hidden[:, part].shape)
            _add_product(matrix_gradient, slope, rows)
        return hidden_gradient, matrix_gradient.to(matrix.dtype), *[None] * 5


def _forward(hidden, matrix, target_ids, factors, settings, with_entropy, needs):
    """Log-probabilities and entropy, and gradients of the former times `factors` (b, m), or 1, from the same logits.

    Args:
        needs: pair of bool, whether the gradients of states and matrix are asked for.

    Returns:
        log_probs, entropy or None; the states' gradient (b, m, d) or None, the matrix's, float32 (v, d), or None.
    """
    soft_cap, temperature, chunk = settings
    log_probs = torch.empty(hidden.shape[:2], dtype=torch.float32, device=hidden.device)
    entropy = torch.empty_like(log_probs) if with_entropy else None
    hidden_gradient = torch.empty_like(hidden) if any(needs) else None
    matrix_gradient = torch.zeros(matrix.shape, dtype=torch.float32, device=matrix.device) if needs[1] else None
    buffer = _buffer(hidden, matrix, chunk)
    weights = torch.empty_like(buffer) if with_entropy else None
    for part, rows, ids in _chunks(hidden, target_ids, chunk):
        logits = _logits(rows, matrix, soft_cap, temperature, buffer)
        steepness = _steepness(logits, soft_cap, temperature) if any(needs) else None
        logits.sub_(logits.amax(dim=-1, keepdim=True))
        chosen = logits.gather(1, ids)[:, 0]
        powers = torch.exp(logits, out=weights[: len(rows)] if weights is not None else logits)
        mass = powers.sum(dim=-1)
        shape = log_probs[:, part].shape
        log_probs[:, part] = (chosen - mass.log()).reshape(shape)
        if entropy is not None:
            entropy[:, part] = (mass.log() - torch.linalg.vecdot(powers, logits) / mass).reshape(shape)
        if hidden_gradient is None:
            continue
        factor = (torch.ones_like(mass) if factors is None else factors[:, part].reshape(-1))[:, None] / temperature
        slope = _slope(powers, ids, 1.0 / mass[:, None], factor, steepness).to(hidden.dtype)
        hidden_gradient[:, part] = product(slope, matrix.t()).reshape(hidden[:, part].shape)
        if matrix_gradient is not None:
            _add_product(matrix_gradient, slope, rows)
    return log_probs, entropy, hidden_gradient, matrix_gradient


def _add_product(total, slope, rows):
    """Add slope.T @ rows, (v, n) by (n, d), to the float32 total."""
    if slope.dtype == torch.float32:
        total.addmm_(slope.t(), rows)
        return
    # torch makes a float32 copy of what is added, which on a CPU took longer than the product: of a block it stays in
    # the processor's cache.
    size = len(total) if total.is_cuda else max(1, BLOCK // total.shape[1])
    for of_block, slopes in zip(total.split(size), slope.split(size, dim=1), strict=True):
        of_block += slopes.t() @ rows


def chunked_log_probs(hidden, matrix, target_ids, soft_cap, temperature, chunk, with_entropy=True):
    """As `reference.chunked_log_probs`, one chunk of logits alive at a time in both passes."""
    return _ChunkedLogProbs.apply(hidden, matrix, target_ids.long(), soft_cap, temperature, chunk, with_entropy)


class _WeightedLogProb(torch.autograd.Function):
    @staticmethod
    def forward(context, hidden, matrix, target_ids, weights, soft_cap, temperature, chunk, needs):
        log_probs, _, *context.gradients = _forward(
            hidden, matrix, target_ids, weights, (soft_cap, temperature, chunk), False, needs
        )
        context.dtype = matrix.dtype
        context.mark_non_differentiable(log_probs)
        return reference.weighted_sum(log_probs, weights), log_probs

    @staticmethod
    def backward(context, scale, _):
        if context.gradients is None:
            raise RuntimeError(
                "The gradient of `weighted_log_prob` was asked for twice: expected one backward pass, as the first one "
                "gave its memory away. Compute the loss anew."
            )
        # Multiplied in place: another array of the matrix's size would raise the peak.
        hidden_gradient, matrix_gradient = (None if each is None else each.mul_(scale) for each in context.gradients)
        context.gradients = None
        return hidden_gradient, None if matrix_gradient is None else matrix_gradient.to(context.dtype), *[None] * 6


def weighted_log_prob(hidden, matrix, target_ids, weights, soft_cap, temperature, chunk):
    """As `reference.weighted_log_prob`; the gradients come from the forward pass' logits, a chunk at a time.

    Raises:
        RuntimeError: in a second backward pass through one result.
    """
    needs = tuple(torch.is_grad_enabled() and each.requires_grad for each in (hidden, matrix))
    return _WeightedLogProb.apply(
        hidden, matrix, target_ids.long(), weights.detach(), soft_cap, temperature, chunk, needs
    )


def _chunks(hidden, target_ids, chunk):
    """Triples of a slice of time, its rows (b * chunk, d) and their targets (b * chunk, 1)."""
    for i in range(number_of_chunks(hidden.shape[1], chunk)):
        part = slice(i * chunk, (i + 1) * chunk)
        yield part, hidden[:, part].reshape(-1, hidden.shape[2]), target_ids[:, part].reshape(-1, 1)


def _slope(powers, target_ids, scale, factor, steepness):
    """Gradient of weighted log-probabilities by the raw product, (one-hot - softmax) * factor * steepness, in place.

    Args:
        powers: exponentials (n, v), which times `scale` (n, 1) are the softmax. target_ids: (n, 1). factor: (n, 1).
    """
    slope = powers.mul_(-(scale * factor))
    slope[torch.arange(len(slope), device=slope.device), target_ids[:, 0]] += factor[:, 0]
    return slope if steepness is None else slope.mul_(steepness)


def _buffer(hidden, matrix, chunk):
    # One block of memory for all chunks: fresh pages for each would cost more time than the arithmetic.
    rows = hidden.shape[0] * min(chunk, hidden.shape[1])
    return torch.empty((rows, matrix.shape[0]), dtype=torch.float32, device=hidden.device)


def _logits(rows, matrix, soft_cap, temperature, buffer):
    """Logits (n, v) of rows (n, d), in the buffer where the product can write there."""
    if is_for_onednn(rows, matrix):
        logits = product(rows, matrix)  # which takes no `out`
    else:
        logits = buffer[: len(rows)]
        _product(rows, matrix, logits)
    if soft_cap is not None:
        logits.div_(soft_cap).tanh_().mul_(soft_cap)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _steepness(logits, soft_cap, temperature):
    """What a step of the raw product moves the capped logits by: (n, v), or None without a cap."""
    # d capped / d raw = 1 - tanh^2, and logits = soft_cap * tanh / temperature.
    return None if soft_cap is None else (logits * (temperature / soft_cap)).square_().neg_().add_(1.0)
