"""From logits to a token, by inverse transform of a uniform number that the caller supplies.

A uniform has 24 bits, as many as float32 has for numbers just below 1, so a draw tells 2 ** 24 points of the
distribution apart. What that limits:

1. A token's chance is met to within 2 ** -24, 6e-8, beside the rounding of float32 sums: a token with a smaller chance
   is drawn with just that one or never. Of 262,144 tokens all such together hold less than 1/64 of the probability.
2. Equal uniforms give equal tokens only where the weights are equal: where the sums of two backends differ in a last
   bit, a uniform that falls between them draws the neighbour. The larger the vocabulary, the more often.
"""

import dataclasses
from typing import Any

from gemma_keras.backends import draw_tokens

_KERAS_HUB_KINDS = {
    "GreedySampler": "greedy", "RandomSampler": "random", "TopKSampler": "top_k", "TopPSampler": "top_p",
    "BeamSampler": "beam", "ContrastiveSampler": "contrastive", "SpeculativeSampler": "speculative",
}  # fmt: skip
_NOT_HERE = {
    "beam": "there is no beam search here. Use 'greedy'; or draw several answers and keep the one with the largest sum "
    "of `token_log_probs`",
    "contrastive": "there is no contrastive search here. Use 'top_p' or 'top_k', which avoid repetitions too",
    "speculative": "there is no drafting model here. Use the sampler that it was to speed up, such as 'greedy'",
}


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a token is chosen.

    Args:
        temperature: float >= 0; logits are divided by it; 0 takes the most likely token.
        top_k: keep the k most likely tokens, or None. Ties with the k-th are kept.
        top_p: keep the smallest set of most likely tokens whose probability reaches it, in (0, 1], or None.
        seed: of `GemmaCausalLM.generate` where it is given none; or None.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"`temperature` must be >= 0. Received: temperature={self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"`top_k` must be >= 1. Received: top_k={self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1]. Received: top_p={self.top_p}")

    @classmethod
    def from_name(cls, name: Any) -> "Sampler":
        """The sampler that is meant.

        Args:
            name: a `Sampler`; "greedy", "random", "top_k" (k = 5) or "top_p" (p = 0.9); or one of KerasHub's sampler
                objects of these kinds, whose arguments and seed are taken over.

        Raises:
            ValueError: anything else; a search that is not drawn token by token says what to use.
        """
        if isinstance(name, cls):
            return name
        known = {"greedy": cls(temperature=0), "random": cls(), "top_k": cls(top_k=5), "top_p": cls(top_p=0.9)}
        kind = name if isinstance(name, str) else _kind_of_keras_hub(name)
        if kind in _NOT_HERE:
            raise ValueError(f"`sampler` {kind!r}: {_NOT_HERE[kind]}. Received: sampler={name!r}")
        if kind not in known:
            raise ValueError(
                f"`sampler` must be a `gemma_keras.Sampler`, one of {sorted(known)}, or KerasHub's sampler of such a "
                f"kind itself, no class made from it. Received: sampler={name!r}"
            )
        if isinstance(name, str):
            return known[kind]
        temperature = 0.0 if kind == "greedy" else name.temperature
        return cls(temperature, getattr(name, "k", None), getattr(name, "p", None), getattr(name, "seed", None))


def _kind_of_keras_hub(sampler: Any) -> str | None:
    """The name of the kind of one of KerasHub's own samplers, e.g. "top_k"; KerasHub need not be installed to ask."""
    kind = type(sampler)
    return _KERAS_HUB_KINDS.get(kind.__name__) if kind.__module__.startswith("keras_hub.") else None


def sample(logits, uniforms, sampler: Sampler):
    """One token a row.

    Args:
        logits: float32 (b, v).
        uniforms: float32 (b,) in [0, 1); unused at temperature 0.
        sampler: `Sampler`.

    Returns:
        token_ids: int32 (b,). log_probs: float32 (b,), of these tokens under the whole distribution at the sampler's
        temperature, whatever top_k and top_p cut off; at temperature 0, which has no distribution, at temperature 1.
    """
    return draw_tokens(logits, uniforms, sampler.temperature, sampler.top_k, sampler.top_p)
