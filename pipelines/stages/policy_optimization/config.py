"""What a policy optimization stage is asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from pipelines.schema.base import Bits, Encoding, OptimizerOptions, Problem, Settings, Use, response_room_problems
from pipelines.schema.data import Data
from pipelines.schema.ensembles import AnEnsemble, ensemble_tag
from pipelines.schema.roles import Names, Product
from pipelines.schema.scoring import gold_problems, scorer_problems
from pipelines.stages.policy_optimization.methods.registry import METHODS

MOST_TOKEN_DEVIATION = 0.02
"""How far from 1 the ratio of a token may lie, in the mean, before anything was learned from its rollout. Over a
hundred tokens such noise adds up to the default `clip_range` of a whole response."""

_NOT_YET = [name for name in ("grpo", "ppo") if name not in METHODS]
"""Algorithms that others have and people ask for."""

Correction = Literal["token", "sequence", "none"]

if TYPE_CHECKING:
    Algorithm = str
else:
    Algorithm = Literal[tuple(METHODS)]


class WeightedReward(Settings):
    """One part of a summed reward."""

    reward: Annotated[str, Names("reward")] = Field(min_length=1, description="Stage, model folder or function.")
    weight: float = Field(1.0, description="Its factor.")


def _reward_tag(value: Any) -> str:
    return ensemble_tag(value) or ("<sum>" if isinstance(value, list) else "<one>")


Reward = Annotated[
    Annotated[str, Tag("<one>"), Names("reward")]
    | Annotated[list[WeightedReward], Field(min_length=1), Tag("<sum>")]
    | AnEnsemble,
    Discriminator(_reward_tag),
]


class PolicyOptimization(OptimizerOptions):
    """Reinforcement learning against a reward, held near the tuned model by a KL penalty."""

    produces: ClassVar[Product] = "policy"
    is_headline: ClassVar[bool] = True
    elsewhere = {
        **dict.fromkeys(("rl", "rlhf", "rlvr"), ""),
        **{name: f"`algorithm: {name}`" for name in METHODS},
        **{name: f"`algorithm: {' or '.join(METHODS)}`, as there is no {name} yet" for name in _NOT_YET},
    }

    kind: Literal["policy_optimization"]
    reward: Reward = Field(
        description="Stage, model folder, function, a list of {reward, weight}, or {ensemble: [...]}."
    )
    quantize_reward_model: Bits | None = Field(
        None, description="Hold the kernels of a reward model that scores in 8 or 4 bits."
    )
    data: Data = Field(description="Prompts, with answers where a function needs them.")
    algorithm: Algorithm = Field(
        next(iter(METHODS)),
        description="; ".join(f"{name}: {method.summary}" for name, method in METHODS.items()) + ".",
        json_schema_extra={"not_yet": list(_NOT_YET)},
    )
    kl_weight: float = Field(0.05, ge=0, description="Weight of the KL to the starting model.")
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
    def measures_sampler(self) -> bool:
        """Whether the policy scores every rollout, to be compared with what drew it."""
        return self.rollout_dtype is not None or self.correction != "none"

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
        yield from METHODS[self.algorithm].problems(self.samples_per_prompt, self.inner_updates)
        if self.gold == "task":
            yield from gold_problems(("gold",), self.data, "leave `gold` out")
        if self.rollout_dtype is not None and self.lora is not None and self.lora.quantize is not None:
            reason = "a copy would hold the kernels twice, and round what is rounded; expected one of the two"
            yield ("rollout_dtype",), f"{self.rollout_dtype} beside lora.quantize {self.lora.quantize}: {reason}"
        if self.lora is not None and self.lora.dropout > 0:
            advice = "expected 0: responses must be scored with the probabilities they were sampled with"
            yield ("lora", "dropout"), f"{self.lora.dropout:g} in policy optimization; {advice}"
