"""The loss of a micro-batch whose tokens count one by one: what GRPO minimizes, and whatever else clips the ratio of
tokens."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import backend, ops

from pipelines.algorithms.importance import with_weighted_gradients
from pipelines.algorithms.token_losses import (
    Aggregation,
    RatioOf,
    aggregated_loss,
    aggregation_weights,
    clipped_token_losses,
    first_update_weights,
    kl_token_losses,
)
from pipelines.sampling.parts import Arrays
from pipelines.stages.policy_optimization.updates import count_responses, ratio_arrays, ratio_figures

UNCLIPPED = 1.0  # the half-width where every ratio is 1, and none is clipped


@dataclasses.dataclass(frozen=True)
class TokenLoss:
    """The loss that `Trainer` takes, as a sum over what `count_units` counts.

    Attributes:
        temperature: float > 0, the sampling temperature.
        clip_range: the ratio is trusted down to 1 minus this; None where each rollout is learned from once. There the
            gradient is that of every other update at ratio 1, for less work.
        most_tokens: tokens that a response may have.
        aggregation: what losses of tokens add up to, see `pipelines.algorithms.token_losses`.
        clip_range_high: the ratio is trusted up to 1 plus this; None is `clip_range`.
        ratio_of: whose ratio is clipped.
        kl_weight: of the estimator k3 in the loss; with 0 there is none.
    """

    temperature: float
    clip_range: float | None
    most_tokens: int
    aggregation: Aggregation = "tokens"
    clip_range_high: float | None = None
    ratio_of: RatioOf = "token"
    kl_weight: float = 0.0

    def __call__(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The loss and aux of a micro-batch.

        Args:
            batch: `advantages` float (b,), or (b, t) of each token; `old_log_probs`, `reference_log_probs` where the
                KL is in the loss, and perhaps `importance_weights`, float (b, t).

        Returns:
            loss (); aux: what `ratio_arrays` gives, and where ratios are clipped (b,) each `clipped_low` and
            `clipped_high`, how many the clip took the gradient of, and `clippable`, of how many.
        """
        mask, weights = batch["response_mask"], batch.get("importance_weights")
        if self.clip_range is not None:
            log_probs = ops.where(mask, model.score(batch, self.temperature), 0)
            if weights is not None:
                log_probs = with_weighted_gradients(log_probs, weights)
            return self._of(log_probs, batch)
        gains = self._first_gains(batch) * (1 if weights is None else weights)
        total, log_probs = model.weighted_score(batch, gains, self.temperature)
        loss, aux = self._of(ops.where(mask, ops.stop_gradient(log_probs), 0), batch)
        # The formula's value, with the gradient of the sum.
        return loss - (total - ops.stop_gradient(total)), aux

    def _of(self, log_probs: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask, old = batch["response_mask"], batch["old_log_probs"]
        losses, is_low, is_high = clipped_token_losses(
            log_probs, old, _by_token(batch["advantages"]), mask, self.clip_range or UNCLIPPED,
            self.clip_range_high if self.clip_range is not None else None, self.ratio_of,
        )  # fmt: skip
        if self.kl_weight:
            losses = losses + self.kl_weight * kl_token_losses(log_probs, batch["reference_log_probs"], mask)
        loss = aggregated_loss(losses, mask, self.aggregation, self.most_tokens, count=1)
        aux = ratio_arrays(log_probs, old, mask)
        if self.clip_range is not None:
            counted = {"clipped_low": is_low, "clipped_high": is_high, "clippable": mask}
            # Those of one response are clipped together, where its ratio is one.
            count = ops.any if self.ratio_of == "sequence" else ops.sum
            aux |= {name: ops.cast(count(found, axis=-1), "float32") for name, found in counted.items()}
        return loss, aux

    def _first_gains(self, batch: Mapping[str, Any]) -> Any:
        mask, old = batch["response_mask"], batch["old_log_probs"]
        kl = old - batch["reference_log_probs"] if self.kl_weight else None
        gains = first_update_weights(_by_token(batch["advantages"]), mask, self.kl_weight, kl)
        dtype = backend.standardize_dtype(gains.dtype)
        return gains * aggregation_weights(mask, self.aggregation, self.most_tokens, dtype)


def count_units(batch: Mapping[str, np.ndarray], aggregation: Aggregation) -> int:
    """Tokens or responses of a micro-batch, whichever its `TokenLoss` is a mean over."""
    return int(batch["response_mask"].sum()) if aggregation == "tokens" else count_responses(batch)


def token_figures(arrays: Arrays) -> dict[str, float]:
    """What an update logs of a `TokenLoss`.

    Returns:
        `ratio_figures`; where ratios are clipped `clip_ratio`, the share of tokens, or of responses where these have
        one ratio, whose gradient the clip took away, and its parts `clip_ratio/low_mean` and `clip_ratio/high_mean`.
    """
    figures = ratio_figures(arrays)
    if "clippable" in arrays:
        low, high = (
            float(arrays[name].sum(dtype=np.float64) / arrays["clippable"].sum(dtype=np.float64))
            for name in ("clipped_low", "clipped_high")
        )
        figures |= {"clip_ratio": low + high, "clip_ratio/low_mean": low, "clip_ratio/high_mean": high}
    return figures


def _by_token(advantages: Any) -> Any:
    return advantages if len(advantages.shape) == 2 else ops.expand_dims(advantages, -1)
