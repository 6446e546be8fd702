"""What an adapter is, as data: shared by the model, the files and the workflow. Imports no Keras."""

import dataclasses
import math
import numbers
from collections.abc import Iterable

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"
# KerasHub's names of the same layers, for Gemma 1 and 2 and for Gemma 3.
_ALIASES = {
    "query": "q_proj", "key": "k_proj", "value": "v_proj", "attention_output": "o_proj", "query_dense": "q_proj",
    "key_dense": "k_proj", "value_dense": "v_proj", "ffw_gating": "gate_proj", "ffw_gating_2": "up_proj",
    "ffw_linear": "down_proj",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoraOptions:
    """A low-rank adapter: `y + scale * (x @ a) @ b` beside some projections.

    Args:
        rank: r >= 1.
        alpha: numerator of the scale, > 0; default r.
        dropout: share of the path's inputs set to zero in training, in [0, 1).
        rank_stabilized: scale by alpha / sqrt(r) instead of alpha / r (arXiv:2312.03732).
        targets: "all-linear" or some of `TARGETS`; KerasHub's names are understood. Kept in the model's order.
        layers: numbers of the layers that have it; None for all.

    Raises:
        ValueError: a value out of range, an unknown target, no target.
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    rank_stabilized: bool = False
    targets: tuple[str, ...] | str = ALL_LINEAR
    layers: tuple[int, ...] | None = None

    def __post_init__(self):
        if isinstance(self.rank, bool) or not isinstance(self.rank, numbers.Integral) or self.rank < 1:
            raise ValueError(f"`rank` must be an integer >= 1. Received: rank={self.rank!r}")
        object.__setattr__(self, "rank", int(self.rank))
        alpha = self.rank if self.alpha is None else self.alpha
        if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real) or not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"`alpha` must be a number > 0. Received: alpha={self.alpha!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={self.dropout}")
        object.__setattr__(self, "alpha", float(alpha))
        object.__setattr__(self, "targets", target_names(self.targets))
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))

    @property
    def scale(self) -> float:
        """What the low-rank product is multiplied with."""
        alpha = float(self.alpha or self.rank)
        return alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def applies_to(self, full_name: str) -> bool:
        """Whether the projection called e.g. "layers.0.q_proj" has a path."""
        _, layer, target = full_name.split(".")
        return target in self.targets and (self.layers is None or int(layer) in self.layers)


def target_names(targets: str | Iterable[str]) -> tuple[str, ...]:
    """The projections that `targets` means, in the model's order.

    Args:
        targets: "all-linear", one name, or several; KerasHub's names are understood.

    Raises:
        ValueError: an unknown name, or none.
    """
    wanted = [targets] if isinstance(targets, str) else list(targets)
    if wanted == [ALL_LINEAR]:
        return TARGETS
    known = {_ALIASES.get(name, name) for name in wanted}
    unknown = sorted(known - set(TARGETS))
    if unknown or not known:
        raise ValueError(
            f"LoRA targets must be {ALL_LINEAR!r} or some of {', '.join(TARGETS)}. Received: {unknown or wanted}"
        )
    return tuple(name for name in TARGETS if name in known)
