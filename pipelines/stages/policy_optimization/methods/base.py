"""What an algorithm of policy optimization says about itself. Naming one, as `validate` does, loads no Keras.

An algorithm is one file here and one line in `registry.py`. The file imports its formulas (`pipelines/algorithms/`)
where it computes with them: that is what keeps `config.py`, which reads `needs` and `Options`, light.

What an algorithm must say is its `loss`, and nearly always `advantages`. Where it differs in more, it says that too:
what is charged to the reward (`returns`), which prompts are learned from (`counts`), what the loss reads beside the
advantages (`batch_arrays`), what the loss is a sum over (`count_units`), what is logged of it (`figures`), what it
trains beside the policy (`set_up`, `learn`, `trainers`), and what it keeps from step to step (`memory`, `remember`).
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipelines.schema.base import Problem
from pipelines.schema.named import Named

if TYPE_CHECKING:
    from pipelines.sampling.rollout import Rollout
    from pipelines.stages.context import StageContext
    from pipelines.stages.policy_optimization.config import PolicyOptimization
    from pipelines.training.loop import Trainer

LossFunction = Callable[[Any, Mapping[str, Any]], tuple[Any, dict[str, Any]]]
"""(model, micro-batch) → (loss (), aux), a sum over what `Method.count_units` counts, as `Trainer` takes it."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a workflow must give an algorithm.

    Args:
        samples_per_prompt: at least so many responses a prompt.
        most_inner_updates: at most so many updates on a rollout; None for any number.
    """

    samples_per_prompt: int = 1
    most_inner_updates: int | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """A rollout with all that is known of it before anything is learned from it.

    Attributes:
        rollout: n = p * k responses. rewards: float (n,), of the raters, cut and scaled as the stage says, nothing
            charged.
        old_log_probs: float32 (n, r), of the sampled tokens under the policy. reference_log_probs: float32 (n, r),
            under the tuned model. kl: float (n,), the sum of their differences over each response, in nats.
        kl_weight: float, of this step.
    """

    rollout: "Rollout"
    rewards: np.ndarray
    old_log_probs: np.ndarray
    reference_log_probs: np.ndarray
    kl: np.ndarray
    kl_weight: float


class Method(abc.ABC):
    """An algorithm at work in one stage: it may keep state between steps. Abstract; the files beside this one are
    final.

    Args:
        options: what the workflow says of the algorithm alone, of `Options`; default its defaults.

    Attributes:
        name: as in `algorithm: NAME`. summary: half a sentence for the field's description.
        page: what documents it, from the root of the repository: its formula, papers and figures.
        Options: the options, read from `algorithm: {name: NAME, ...}`.
        needs: what a workflow must give it.
        trains_values: whether a model as large as the policy is trained beside it.
        metrics: name → meaning of what it logs beside the figures of every rollout; 0 where a step has no such figure.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    page: ClassVar[str]
    Options: ClassVar[type[Named]] = Named
    needs: ClassVar[Needs] = Needs()
    trains_values: ClassVar[bool] = False
    metrics: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: Named | None = None) -> None:
        self.options = self.Options() if options is None else options

    @classmethod
    def problems(cls, config: "PolicyOptimization") -> Iterator[Problem]:
        """What is wrong between the algorithm and the stage's settings; the least is what `needs` asks for. Rules
        between its own options are `Options.problems`."""
        least, most = cls.needs.samples_per_prompt, cls.needs.most_inner_updates
        if config.samples_per_prompt < least:
            message = f"{cls.name} compares the samples of a prompt; expected at least {least}, or another algorithm"
            yield ("samples_per_prompt",), message
        if most is not None and config.inner_updates > most:
            message = (
                f"{cls.name} cannot learn from a rollout more often; expected at most {most}, or another algorithm"
            )
            yield ("inner_updates",), message

    def set_up(  # noqa: B027  most algorithms train the policy alone
        self, config: "PolicyOptimization", context: "StageContext", micro_batch_size: int
    ) -> None:
        """Called once, before anything else, for what an algorithm trains beside the policy.

        Args:
            micro_batch_size: responses of a forward pass.
        """

    def start(self, first_reward: float) -> None:  # noqa: B027  most algorithms have nothing to start
        """Called once, before the first rollout.

        Args:
            first_reward: mean reward of the tuned model, on prompts that are not trained on.
        """

    @property
    def most_redraws(self) -> int:
        """Further rollouts in a step, at most, to fill the places of prompts that do not count."""
        return 0

    def counts(self, rewards: np.ndarray) -> np.ndarray:
        """Which prompts are learned from.

        Args:
            rewards: float (p, k), of the k responses to each of p prompts, nothing charged.

        Returns:
            bool (p,); here True.
        """
        return np.ones(len(rewards), bool)

    @property
    def charges_kl(self) -> bool:
        """Whether the KL to the tuned model is charged to the rewards."""
        return True

    def returns(self, scored: Scored, config: "PolicyOptimization") -> np.ndarray:
        """The rewards with everything charged to them: here the KL to the tuned model, unless the algorithm has a place
        of its own for it, and the missing stop; and with the entropy bonus.

        Returns:
            float (n,).
        """
        from pipelines.algorithms.reward_shaping import surprise

        charged = scored.rewards - scored.kl_weight * scored.kl if self.charges_kl else scored.rewards
        if config.entropy_weight:
            charged = charged + config.entropy_weight * surprise(scored.old_log_probs, scored.rollout.response_mask)
        return charged - self.penalties(scored, config)

    @staticmethod
    def penalties(scored: Scored, config: "PolicyOptimization") -> np.ndarray:
        """What the stage takes off the reward of a response for its form: float (n,)."""
        rollout = scored.rollout
        return config.missing_stop_penalty * ~rollout.finished + config.length_penalty * rollout.lengths

    def advantages(self, rewards: np.ndarray) -> np.ndarray:
        """How much better each response was than what it is compared with; here than nothing. An algorithm with a
        number for each token makes its `batch_arrays` itself.

        Args:
            rewards: float (p, k), the `returns` of the k responses to each of p prompts.

        Returns:
            float32 (p * k,).
        """
        return rewards.astype(np.float32).reshape(-1)

    def batch_arrays(self, scored: Scored, config: "PolicyOptimization") -> dict[str, np.ndarray]:
        """What the loss reads of a micro-batch beside its tokens, `old_log_probs` and `importance_weights`.

        Returns:
            Name → float32 (n,) of each response, or (n, r) of each token; here `advantages`.
        """
        return {"advantages": self.advantages(self.returns(scored, config).reshape(-1, config.samples_per_prompt))}

    @abc.abstractmethod
    def loss(self, config: "PolicyOptimization") -> LossFunction:
        """The loss of a micro-batch of `updates.update_batches`, with the arrays of `batch_arrays`.

        Args:
            config: the stage's; `temperature` is that of the sampling, `trusted_range` None where each rollout is
                learned from once.
        """

    def count_units(self, batch: Mapping[str, np.ndarray]) -> int:
        """What the loss of a micro-batch is a sum over; an update divides by their number in all of its micro-batches.
        Here its responses."""
        from pipelines.stages.policy_optimization.updates import count_responses

        return count_responses(batch)

    def learn(self, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """Called after each update of the policy, with its micro-batches, for what is trained beside it.

        Returns:
            Some of `metrics`; here none.
        """
        return {}

    def trainers(self) -> dict[str, "Trainer"]:
        """What trains beside the policy, by name: saved and taken back with the stage's state. Here nothing."""
        return {}

    def memory(self) -> dict[str, Any]:
        """What the next step needs of the earlier ones, as plain JSON; here nothing."""
        return {}

    def remember(self, memory: Mapping[str, Any]) -> None:  # noqa: B027  most algorithms have no memory
        """Take back what `memory` gave, in place of `start`."""

    def figures(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """What an update logs of the loss' aux, beside its scalars.

        Args:
            arrays: aux with the batch as first axis, the rows of all micro-batches.

        Returns:
            Those of `updates.ratio_figures`, which every step needs; an algorithm may add to them.
        """
        from pipelines.stages.policy_optimization.updates import ratio_figures

        return ratio_figures(arrays)
