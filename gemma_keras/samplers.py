"""Samplers under KerasHub's names, with its arguments and defaults; each is a `gemma_keras.Sampler`.

They differ from KerasHub's in this:

1. Tokens whose logit ties with the k-th are kept; KerasHub keeps k of them.
2. With `p` and `k` together `p` is a share of what the k tokens hold; KerasHub's is one of the whole distribution.
3. The bare name "top_p" is p = 0.9 as ever here; KerasHub's is that of `TopPSampler()`, 0.1.
4. A seed names the draws by the number of the call since `compile`, and by the row: the same calls give the same texts,
   whatever the batch. KerasHub's counts the draws.
"""

from gemma_keras.sampling import Sampler

__all__ = ["GreedySampler", "RandomSampler", "Sampler", "TopKSampler", "TopPSampler"]


def GreedySampler(temperature: float = 1.0) -> Sampler:
    """The most likely token.

    Args:
        temperature: > 0; taken because KerasHub takes it, the most likely token is the same at each.

    Raises:
        ValueError: a temperature out of range.
    """
    Sampler(temperature)
    return Sampler(0.0)


def RandomSampler(seed: int | None = None, temperature: float = 1.0) -> Sampler:
    """A token of the whole distribution.

    Args:
        seed: of the draws, None for new ones each call. temperature: >= 0, logits are divided by it.

    Raises:
        ValueError: a temperature out of range.
    """
    return Sampler(temperature, seed=seed)


def TopKSampler(k: int = 5, seed: int | None = None, temperature: float = 1.0) -> Sampler:
    """A token of the k most likely ones.

    Args:
        k: >= 1. seed, temperature: as `RandomSampler`.

    Raises:
        ValueError: a value out of range.
    """
    return Sampler(temperature, top_k=k, seed=seed)


def TopPSampler(p: float = 0.1, k: int | None = None, seed: int | None = None, temperature: float = 1.0) -> Sampler:
    """A token of the smallest set of most likely ones that holds the share `p`.

    Args:
        p: in (0, 1]. k: only the k most likely tokens are looked at, or None.
        seed, temperature: as `RandomSampler`.

    Raises:
        ValueError: a value out of range.
    """
    return Sampler(temperature, top_k=k, top_p=p, seed=seed)
