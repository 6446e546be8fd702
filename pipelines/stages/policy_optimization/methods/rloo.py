"""REINFORCE with the prompt's other samples as baseline (leave one out).

A = R - mean of the other rewards of the prompt; loss = -mean(A log pi(response)); with several updates a rollout the
ratio of whole responses is clipped. With `kl_credit: to_go` a token's A holds the KL from itself on, compared with that
of the other samples from the same place on: the same expected gradient.

Source: Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipelines.schema.base import Problem
from pipelines.schema.named import Named
from pipelines.stages.policy_optimization.methods.base import LossFunction, Method, Needs, Scored

if TYPE_CHECKING:
    from pipelines.stages.policy_optimization.config import PolicyOptimization


class RlooOptions(Named):
    """What stands beside the name in `algorithm: {name: rloo, ...}`."""

    kl_credit: Literal["sequence", "to_go"] = Field(
        "sequence",
        description="A token answers for the KL of its whole response, or for that from itself on, which has less "
        "noise in long responses.",
    )


class LeaveOneOut(Method):
    """`algorithm: rloo`."""

    name = "rloo"
    summary = "the baseline is the mean of the prompt's other samples"
    page = "docs/algorithms/rloo.md"
    Options = RlooOptions
    options: RlooOptions
    needs = Needs(samples_per_prompt=2)
    metrics = {"clip_ratio": "share of responses whose gradient the clip took away"}

    @classmethod
    def problems(cls, config: "PolicyOptimization") -> Iterator[Problem]:
        """See `Method.problems`."""
        yield from super().problems(config)
        options = config.algorithm
        if isinstance(options, RlooOptions) and options.kl_credit == "to_go" and config.inner_updates > 1:
            message = (
                f"{config.inner_updates}, whose clip takes one advantage a response; expected 1 with kl_credit: to_go"
            )
            yield ("inner_updates",), message

    def batch_arrays(self, scored: Scored, config: "PolicyOptimization") -> dict[str, np.ndarray]:
        """See `Method.batch_arrays`; of each token with `kl_credit: to_go`."""
        arrays = super().batch_arrays(scored, config)
        if self.options.kl_credit == "to_go":
            arrays["advantages"] = arrays["advantages"][:, None] + scored.kl_weight * self._past(scored, config)
        return arrays

    def _past(self, scored: Scored, config: "PolicyOptimization") -> np.ndarray:
        """The KL before each token less the mean of the other samples' at the same place: float32 (n, r)."""
        from pipelines.algorithms.reward_shaping import kl_before

        past = kl_before(scored.old_log_probs, scored.reference_log_probs, scored.rollout.response_mask)
        of_prompts = past.reshape(-1, config.samples_per_prompt, past.shape[1]).swapaxes(1, 2)
        relative = self.advantages(of_prompts.reshape(-1, config.samples_per_prompt))
        return relative.reshape(of_prompts.shape).swapaxes(1, 2).reshape(past.shape)

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        """See `Method.advantages`."""
        from pipelines.algorithms.advantages import leave_one_out
        from pipelines.stages.policy_optimization.updates import on_device

        return on_device(leave_one_out, rewards).reshape(-1)

    def loss(self, config: "PolicyOptimization") -> LossFunction:
        """See `Method.loss`."""
        from pipelines.stages.policy_optimization.updates import policy_loss

        return policy_loss(config.temperature, config.trusted_range)
