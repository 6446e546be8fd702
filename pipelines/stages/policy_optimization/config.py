"""What a policy optimization stage is asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, Tag

from pipelines.schema.base import Bits, Encoding, OptimizerOptions, Problem, Settings, Use, response_room_problems
from pipelines.schema.data import Data
from pipelines.schema.ensembles import AnEnsemble, Ensemble, ensemble_tag, or_ensemble
from pipelines.schema.functions import ScoringFunction, named_or_function
from pipelines.schema.named import Named, one_of
from pipelines.schema.roles import FUNCTION_PREFIX, Product
from pipelines.schema.scoring import gold_problems, scorer_problems
from pipelines.stages.policy_optimization.methods.registry import METHODS, OPTIONS

MOST_TOKEN_DEVIATION = 0.02
"""How far from 1 the ratio of a token may lie, in the mean, before anything was learned from its rollout. Over a
hundred tokens such noise adds up to the default `clip_range` of a whole response."""

Correction = Literal["token", "sequence", "none"]

if TYPE_CHECKING:
    Algorithm = Named
else:
    Algorithm = one_of(OPTIONS)


if TYPE_CHECKING:
    PartOfSum = str | ScoringFunction | Ensemble
else:
    PartOfSum = or_ensemble("reward")


class WeightedReward(Settings):
    """One part of a summed reward."""

    reward: PartOfSum = Field(
        description="Stage, model folder, function, {function: ...} with its settings, or {ensemble: [...]}."
    )
    weight: float = Field(1.0, description="Its factor.")

    @property
    def label(self) -> str:
        """What metrics call it, unless it is a folder."""
        return self.reward.removeprefix(FUNCTION_PREFIX) if isinstance(self.reward, str) else self.reward.label


class StopWhen(Settings):
    """What ends a stage before its last step."""

    kl_sequence: float = Field(gt=0, description="A rollout further from the starting model, nats a response.")


if TYPE_CHECKING:
    Reward = str | ScoringFunction | Ensemble | list[WeightedReward]
else:
    Reward = named_or_function(
        "reward",
        Annotated[list[WeightedReward], Field(min_length=1), Tag("<sum>")],
        AnEnsemble,
        tag=lambda value: "<sum>" if isinstance(value, list) else ensemble_tag(value),
    )


class PolicyOptimization(OptimizerOptions):
    """Reinforcement learning against a reward, held near the tuned model by a KL penalty."""

    produces: ClassVar[Product] = "policy"
    is_headline: ClassVar[bool] = True
    elsewhere = {
        **dict.fromkeys(("rl", "rlhf", "rlvr"), ""),
        **{name: f"`algorithm: {name}`" for name in METHODS},
    }

    kind: Literal["policy_optimization"]
    reward: Reward = Field(
        description="Stage, model folder, function, {function: ...} with its settings, a list of {reward, weight}, or "
        "{ensemble: [...]}."
    )
    quantize_reward_model: Bits | None = Field(
        None, description="Hold the kernels of a reward model that scores in 8 or 4 bits."
    )
    data: Data = Field(description="Prompts, with answers where a function needs them.")
    algorithm: Algorithm = Field(
        next(iter(OPTIONS.values()))(),
        description="; ".join(f"{name}: {method.summary}" for name, method in METHODS.items())
        + ". With options: {name: ...}.",
    )
    kl_weight: float = Field(0.05, ge=0, description="Weight of the KL to the starting model.")
    kl_target: float | None = Field(
        None, gt=0, description="Nats a response to which kl_weight is steered, from its first value; default fixed."
    )
    entropy_weight: float = Field(
        0.0, ge=0, description="Added to the reward for each nat of -log pi(response): an entropy bonus."
    )
    reward_clip: float | None = Field(None, gt=0, description="Rewards are cut to this magnitude; default as they are.")
    whiten_rewards: bool = Field(False, description="Scale the rewards of a rollout to mean 0 and deviation 1.")
    steps: int = Field(100, ge=1, description="Rollout steps.")
    prompts_per_step: int = Field(16, ge=1, description="Prompts a rollout.")
    samples_per_prompt: int = Field(4, ge=1, description="Responses a prompt; some algorithms need 2.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    rollout_dtype: Literal["bfloat16", "int8"] | None = Field(
        None,
        description="Draw responses from a copy of the policy, its weights in bfloat16 or its kernels in int8; default "
        "from the policy.",
    )
    importance_correction: Correction | None = Field(
        None,
        description="Weigh what was drawn by its probability under the policy over that under the sampler: of each "
        "token, of the sequence, or none; default token with rollout_dtype, else none.",
    )
    importance_limit: float = Field(2.0, ge=1, description="Largest such weight; larger ones are truncated to it.")
    inner_updates: int = Field(1, ge=1, description="Updates on each rollout.")
    clip_range: float = Field(0.2, gt=0, description="Half-width of the trusted ratio, where inner_updates > 1.")
    missing_stop_penalty: float = Field(0.0, ge=0, description="Subtracted where a response has no stop token.")
    length_penalty: float = Field(0.0, ge=0, description="Subtracted for each token of a response.")
    stop_when: StopWhen | None = Field(
        None, description="End before the last step, {kl_sequence: 10}; default after `steps`."
    )
    eval_every: int = Field(10, ge=0, description="Steps between evaluations.")
    eval_prompts: int = Field(64, ge=1, description="Prompts of an evaluation.")
    gold: Literal["task"] | None = Field(
        None, description="task logs the built-in task's gold reward too; it trains nothing."
    )

    @property
    def correction(self) -> Correction:
        """`importance_correction`, or its default."""
        return self.importance_correction or ("none" if self.rollout_dtype is None else "token")

    @property
    def trusted_range(self) -> float | None:
        """`clip_range`, or None where each rollout is learned from once: there every ratio is 1."""
        return self.clip_range if self.inner_updates > 1 else None

    @property
    def measures_sampler(self) -> bool:
        """Whether the policy scores every rollout, to be compared with what drew it."""
        return self.rollout_dtype is not None or self.correction != "none"

    def lasts(self) -> tuple[str, int] | None:
        """`steps`, where the learning rate does not depend on how many there are."""
        is_constant = self.schedule == "constant" and (self.warmup_steps is not None or self.warmup_fraction == 0)
        return ("steps", self.steps) if is_constant else None

    def rows_at_once(self) -> int | None:
        """Responses of a micro-batch."""
        responses = self.prompts_per_step * self.samples_per_prompt
        return min(self.micro_batch_size or responses, responses)

    def reads(self) -> tuple[Use, ...]:
        """Prompts."""
        return ("prompt",)

    def encoding(self) -> Encoding | None:
        """Prompts that leave room for a response."""
        return Encoding(self.from_, self.max_length, room=self.max_new_tokens)

    def problems(self) -> Iterator[Problem]:
        """What the algorithm needs and does not get, and rewards that cannot score these data."""
        yield from super().problems()
        yield from scorer_problems(self, self.data)
        yield from response_room_problems(self.max_new_tokens, self.max_length)
        yield from METHODS[self.algorithm.name].problems(self)
        if self.kl_target is not None and self.kl_weight == 0:
            yield ("kl_target",), "a kl_weight of 0 cannot be steered; expected one above 0 to start from"
        yield from self._sum_problems()
        if self.gold == "task":
            yield from gold_problems(("gold",), self.data, "leave `gold` out")
        if self.rollout_dtype is not None and self.lora is not None and self.lora.quantize is not None:
            reason = "a copy would hold the kernels twice, and round what is rounded; expected one of the two"
            yield ("rollout_dtype",), f"{self.rollout_dtype} beside lora.quantize {self.lora.quantize}: {reason}"
        if self.lora is not None and self.lora.dropout > 0:
            advice = "expected 0: responses must be scored with the probabilities they were sampled with"
            yield ("lora", "dropout"), f"{self.lora.dropout:g} in policy optimization; {advice}"

    def _sum_problems(self) -> Iterator[Problem]:
        """Two parts of one name, under which only one could be logged."""
        labels = [part.label for part in self.reward] if isinstance(self.reward, list) else []
        for index, label in enumerate(labels):
            if label in labels[:index]:
                advice = "add their weights up, or give a function with settings another `name`"
                yield ("reward", index, "reward"), f"the reward {label!r} stands in the sum twice; {advice}"
