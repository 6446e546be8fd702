"""The parts of memory, and what stands of each at one moment of a stage."""

import dataclasses
from collections.abc import Callable

from gemma_keras.config import GemmaConfig

GIB = 2**30
PARTS = ("weights", "gradients", "moments", "frozen", "cache", "activations", "logits")


@dataclasses.dataclass(frozen=True)
class Usage:
    """Bytes at one moment.

    Args:
        doing: what the stage does then, such as "updating".
        weights: of the model that is trained, or of the one that a stage without training works with.
        gradients: the sum of an update, and what adds itself to it.
        moments: Adam's two a weight.
        frozen: reference, reward models, another policy.
        cache: keys and values of the tokens that are sampled.
        activations: what is kept for the backward pass, one block's working space, weights cast to half precision.
        logits: one chunk of them, and the output matrix cast to half precision.
    """

    doing: str
    weights: float = 0.0
    gradients: float = 0.0
    moments: float = 0.0
    frozen: float = 0.0
    cache: float = 0.0
    activations: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts().values())

    @property
    def standing(self) -> float:
        """What stands however few rows are computed at once: weights, gradients, moments and frozen models."""
        return self.weights + self.gradients + self.moments + self.frozen

    def parts(self) -> dict[str, float]:
        """Each by its name, in the order of `PARTS`."""
        return {part: vars(self)[part] for part in PARTS}


def largest(usages: list[Usage]) -> Usage:
    """The moment that decides."""
    return max(usages, key=lambda usage: usage.total)


@dataclasses.dataclass(frozen=True)
class Sized:
    """What a stage's need depends on beside its own settings.

    Args:
        backend: "jax", "tensorflow" or "torch".
        config_of: the sizes of a model by the name that the stage has for it; None is the workflow's model.
    """

    backend: str
    config_of: Callable[[str | None], GemmaConfig]
