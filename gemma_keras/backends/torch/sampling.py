"""The draw of a token on PyTorch: the steps and sums of the reference, in memory that stays in the processor's
cache."""

import torch

from gemma_keras.backends.reference_sampling import BLOCK

_CHUNK = 2**18  # numbers, a MiB of float32


@torch.no_grad()
def draw_tokens(logits, uniforms, temperature, top_k, top_p):
    """As `reference_sampling.draw_tokens`."""
    vocabulary = logits.shape[1]
    # On a GPU all rows at once, as each operation has its price there.
    rows = max(1, _CHUNK // vocabulary) if logits.device.type == "cpu" else len(logits)
    found = [_measure(part, temperature or 1.0, top_k, top_p) for part in logits.split(rows)]
    top, log_mass, masses, least, lightest, best = (torch.cat(each) for each in zip(*found, strict=True))
    if temperature == 0:
        token_ids = best
    else:
        block = min(BLOCK, vocabulary)
        block_index, rest = _locate(masses, uniforms * masses.sum(dim=1))
        ids = block_index[:, None] * block + torch.arange(block, device=logits.device)
        chosen = logits.gather(1, ids.clamp(max=vocabulary - 1)) / temperature
        weights = (chosen - top).exp_()
        is_kept = (chosen >= least) & (weights >= lightest) & (ids < vocabulary)
        token_ids = block_index * block + _locate(weights * is_kept, rest)[0]
    log_probs = (logits.gather(1, token_ids[:, None]) / (temperature or 1.0) - top)[:, 0] - log_mass
    return token_ids.int(), log_probs


def _measure(logits, temperature, top_k, top_p):
    """Of some rows: the largest logit at the temperature, (b, 1), and the logarithm of all mass, (b,); the kept mass of
    each block, (b, n), and the least logit and weight that are kept, (b, 1); the most likely token, (b,)."""
    size, vocabulary = logits.shape
    block = min(BLOCK, vocabulary)
    # One array, filled up to whole blocks and changed in place: logits, then their weights, then the kept weights.
    padded = logits.new_empty(size, vocabulary + -vocabulary % block)
    padded[:, vocabulary:] = -torch.inf
    torch.div(logits, temperature, out=padded[:, :vocabulary])
    blocks = padded.view(size, -1, block)
    # In two levels, as a search for an index takes ten times as long as one for a maximum.
    block_tops = blocks.amax(dim=2)
    top, block_index = block_tops.max(dim=1, keepdim=True)
    first = torch.arange(size, device=logits.device)
    best = block_index[:, 0] * block + blocks[first, block_index[:, 0]].argmax(dim=1)
    least, lightest = torch.full_like(top, -torch.inf), torch.zeros_like(top)
    is_kept = None
    if top_k is not None and top_k < vocabulary:
        least = _least_of_top_k(blocks, block_tops, top_k)
        # As 0 and 1, to be multiplied: that takes a quarter of the time of `torch.where`.
        is_kept = torch.ge(padded, least, out=torch.empty_like(padded))
    weights = padded.sub_(top).exp_()[:, :vocabulary]
    log_mass = weights.sum(dim=1).log_()
    if is_kept is not None:
        padded.mul_(is_kept)
    if top_p is not None and top_p < 1:
        lightest = _cut_to_top_p(weights, top_p)
    return top, log_mass, blocks.sum(dim=2), least, lightest, best


def _least_of_top_k(blocks, block_tops, top_k):
    """The k-th largest of the numbers of each row, (b, 1)."""
    if top_k < blocks.shape[1]:
        # At least k numbers lie in the k blocks with the largest maxima, and none outside is above the least of these.
        index = block_tops.topk(top_k, dim=1, sorted=False)[1]
        blocks = blocks[torch.arange(len(blocks), device=blocks.device)[:, None], index]
    return blocks.flatten(1).topk(top_k, dim=1, sorted=False)[0].amin(dim=1, keepdim=True)


def _cut_to_top_p(weights, top_p):
    """The bisection of the reference, in place; the least weight that is kept, (b, 1)."""
    needed = top_p * weights.sum(dim=1, keepdim=True)
    low, high = torch.zeros_like(needed), weights.amax(dim=1, keepdim=True)
    kept = torch.empty_like(weights)
    for _ in range(40):
        middle = 0.5 * (low + high)
        enough = torch.ge(weights, middle, out=kept).mul_(weights).sum(dim=1, keepdim=True) >= needed
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    weights.mul_(torch.ge(weights, low, out=kept))
    return low


def _locate(weights, point):
    """As `reference_sampling.locate`."""
    ends = weights.cumsum(dim=1)
    last_positive = weights.shape[1] - 1 - (weights > 0).flip(1).int().argmax(dim=1)
    index = torch.minimum((ends <= point[:, None]).sum(dim=1), last_positive)
    starts = (ends - weights).gather(1, index[:, None])[:, 0]
    return index, (point - starts).clamp_(min=0.0)
