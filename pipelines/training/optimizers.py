"""The optimizer and the learning-rate schedule of every training stage.

One optimizer, AdamW, in float32 (with the `mixed_bfloat16` policy variables and moments stay float32: in pure bfloat16
beta_2 = 0.999 rounds to 1 and Adam stands still). The schedule is a plain function of the update's number, computed on
the host and written into the optimizer before each update, so micro-batches never advance it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras

from pipelines.schema.base import OptimizerOptions

SCHEDULES = ("cosine", "linear", "constant")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """What `Trainer` needs to know of the optimizer.

    Args:
        learning_rate: float > 0. The rate right after warm-up.
        schedule: "cosine", "linear" or "constant".
        warmup_fraction: float in [0, 1]. Share of the updates with a linearly rising rate.
        weight_decay: float >= 0, decoupled.
        beta_2: float in [0, 1). Decay of the second moment.
        clip_norm: float. Global norm to which gradients are clipped; 0 for no clipping.
        warmup_steps: int >= 0. The same as a number of updates; None for `warmup_fraction`.
    """

    learning_rate: float = 1e-4
    schedule: str = "cosine"
    warmup_fraction: float = 0.05
    weight_decay: float = 0.0
    beta_2: float = 0.999
    clip_norm: float = 1.0
    warmup_steps: int | None = None

    @classmethod
    def of(cls, options: OptimizerOptions) -> "OptimizerSettings":
        """Those of a stage."""
        return cls(
            options.learning_rate,
            options.schedule,
            options.warmup_fraction,
            options.weight_decay,
            options.beta_2,
            options.clip_norm,
            options.warmup_steps,
        )


def learning_rate_schedule(
    kind: str, peak: float, total_updates: int, warmup_fraction: float = 0.0, warmup_steps: int | None = None
) -> Callable[[int], float]:
    """The learning rate of each update.

    Args:
        kind: "cosine" or "linear" (both fall to 0 where training ends) or "constant".
        peak: float > 0. The rate right after warm-up.
        total_updates: int >= 1. Updates of the optimizer, not micro-batches; the horizon of the decay.
        warmup_fraction: float in [0, 1]. Share of the updates over which the rate rises linearly to `peak`.
        warmup_steps: int >= 0. Their number, in place of the share.

    Returns:
        A function of the update's number (0 is the first) that gives its learning rate. Past the horizon it stays at
        its last value.

    Raises:
        ValueError: unknown kind, or a number outside its range.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"`schedule` must be one of {SCHEDULES}. Received: schedule={kind!r}")
    if total_updates < 1:
        raise ValueError(f"`total_updates` must be at least 1. Received: total_updates={total_updates}")
    if not 0.0 <= warmup_fraction <= 1.0:
        raise ValueError(f"`warmup_fraction` must lie in [0, 1]. Received: warmup_fraction={warmup_fraction}")
    warmup = round(warmup_fraction * total_updates) if warmup_steps is None else warmup_steps

    def rate(update: int) -> float:
        update = min(update, total_updates - 1)
        if update < warmup:
            return peak * (update + 1) / warmup
        progress = (update - warmup) / (total_updates - warmup)
        if kind == "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
        if kind == "linear":
            return peak * (1.0 - progress)
        return peak

    return rate


def build_optimizer(
    model: Any, learning_rate: float = 1e-4, weight_decay: float = 0.0, beta_2: float = 0.999
) -> keras.optimizers.Optimizer:
    """AdamW over the model's trainable variables, built, with vectors (norm scales, biases) kept free of weight decay.

    Args:
        model: a built Keras model.
        learning_rate: float. The rate until the first update sets its own.
        weight_decay: float >= 0. Decoupled decay, multiplied by the learning rate.
        beta_2: float in [0, 1). Decay of the second moment.

    Returns:
        keras.optimizers.AdamW, or Adam without decay, which is the same and saves a pass over the weights. Its epsilon
        is 1e-8 in Keras' place, outside the bias correction.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """
    settings: dict[str, Any] = {"learning_rate": learning_rate, "beta_2": beta_2, "epsilon": 1e-8}
    if weight_decay:
        optimizer = keras.optimizers.AdamW(weight_decay=weight_decay, **settings)
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])
    else:
        optimizer = keras.optimizers.Adam(**settings)
    optimizer.build(model.trainable_variables)
    return optimizer
