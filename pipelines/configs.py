"""The workflow file as types: one class a stage kind; a YAML key is a field.

Imports neither Keras nor datasets. Cross-references between stages are checked in `workflow.py`, which knows line and column.
"""

import dataclasses
import typing
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Discriminator, Field, Tag

from gemma_keras.config import GemmaConfig
from gemma_keras.lora_options import ALL_LINEAR, LoraOptions
from pipelines import rewards

BACKENDS = ("jax", "tensorflow", "torch")
REWARD_FUNCTIONS = tuple(rewards.REWARD_FUNCTIONS)
REWARD_MODEL_PREFIX = "reward_model:"
FUNCTION_PREFIX = "function:"

Backend = Literal["jax", "tensorflow", "torch"]
Bits = Literal["int8", "int4"]
DtypePolicy = Literal["float32", "mixed_bfloat16", "bfloat16"]
StageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Columns = ("prompt", "completion", "answer", "text", "messages", "chosen", "rejected")


class Settings(pydantic.BaseModel):
    """Base of all: unknown keys, wrong types (no text for a number), infinities and NaN are errors; values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)


class FileData(Settings):
    """Rows from a file, a folder or the Hugging Face hub, and which columns hold what."""

    path: str = Field(min_length=1, description="JSON lines or parquet file, folder, or hub id; relative to the YAML file.")
    config: str | None = Field(None, description="Configuration or folder of a hub data set, e.g. main, harmless-base.")
    split: str | None = Field(None, description="Split of a hub data set, e.g. train or train[:1000].")
    revision: str | None = Field(None, description="Revision of a hub data set; pins what is read.")
    prompt: str | None = Field(None, description="Column with the prompt: text or a list of messages.")
    completion: str | None = Field(None, description="Column with the response to learn.")
    answer: str | None = Field(None, description="Column with the known answer, for exact_answer.")
    text: str | None = Field(None, description="Column with plain text, for pretraining.")
    messages: str | None = Field(None, description="Column with a conversation, a list of {role, content}.")
    chosen: str | None = Field(None, description="Column with the preferred response.")
    rejected: str | None = Field(None, description="Column with the other response.")
    limit: int | None = Field(None, ge=1, description="Use only the first so many rows.")
    format: Literal["auto", "hh_rlhf"] = Field("auto", description="hh_rlhf reads the raw `Human:`/`Assistant:` texts.")
    on_bad_row: Literal["strict", "lenient"] = Field("strict", description="strict stops at a bad row; lenient sets it aside and counts.")


class TaskData(Settings):
    """Examples of the built-in task, generated, never read."""

    task: Literal["small_world"] = Field(description="Name of the task.")
    split: Literal["pretraining", "sft", "preferences", "rl", "heldout"] = Field(description="Disjoint part of the task.")
    size: int = Field(ge=1, description="Examples.")


def _data_tag(value: Any) -> str:
    if isinstance(value, str):
        return "<stage>"
    return "<task>" if isinstance(value, TaskData) or (isinstance(value, dict) and "task" in value) else "<file>"


Data = Annotated[
    Annotated[str, Tag("<stage>")] | Annotated[FileData, Tag("<file>")] | Annotated[TaskData, Tag("<task>")], Discriminator(_data_tag)
]
"""A stage's name, a file, or the built-in task."""


def _sizes_fields() -> dict[str, Any]:
    hints = typing.get_type_hints(GemmaConfig)
    fields: dict[str, Any] = {field.name: (hints[field.name] | None, None) for field in dataclasses.fields(GemmaConfig)}
    fields["local_layers"] = (list[bool] | None, None)
    return fields


_AllSizes = pydantic.create_model("_AllSizes", __base__=Settings, **_sizes_fields())


class Sizes(_AllSizes):
    """Fields of GemmaConfig; what is left out has its default."""

    vocabulary_size: int | None = Field(None, ge=1, description="Rows of the embedding; default the tokenizer's pieces.")


class TokenizerTraining(Settings):
    """A SentencePiece tokenizer trained on the pretraining data."""

    vocabulary_size: int = Field(512, ge=300, description="Pieces, the 256 byte pieces and control tokens included.")


class ScratchModel(Settings):
    """A model with random weights, for pretraining."""

    config: Sizes = Field(description="Fields of GemmaConfig.")
    tokenizer: TokenizerTraining = Field(TokenizerTraining(), description="How its tokenizer is trained.")

    def gemma_config(self, vocabulary_size: int | None = None) -> GemmaConfig:
        """The sizes as a GemmaConfig.

        Args:
            vocabulary_size: rows of the embedding, default the given `config.vocabulary_size`, else the tokenizer's.

        Raises:
            ValueError: sizes that do not fit each other.
        """
        values = {name: value for name, value in self.config if value is not None}
        if "local_layers" in values:
            values["local_layers"] = tuple(values["local_layers"])
        if vocabulary_size is not None:
            values["vocabulary_size"] = vocabulary_size
        values.setdefault("vocabulary_size", self.tokenizer.vocabulary_size)
        return GemmaConfig(**values)


class StageConfig(Settings):
    """What every stage has. Abstract: the kinds below are final."""

    kind: str
    backend: Backend | None = Field(None, description="Backend of this stage only; default the workflow's.")


class Lora(Settings):
    """Low-rank adapters, trained in place of the model's weights (arXiv:2106.09685)."""

    rank: int = Field(8, ge=1, description="Rank r of the added product.")
    alpha: float | None = Field(None, gt=0, description="The product is scaled by alpha / rank; default the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs set to zero in training.")
    rank_stabilized: bool = Field(False, description="Scale by alpha / sqrt(rank), arXiv:2312.03732.")
    targets: list[str] | None = Field(None, description="Projections that get one, e.g. [q_proj, v_proj]; default all linear ones.")
    quantize: Bits | None = Field(None, description="Hold the frozen kernels in 8 or 4 bits.")

    def options(self) -> LoraOptions:
        """The same for a model.

        Raises:
            ValueError: a target that does not exist.
        """
        targets = ALL_LINEAR if self.targets is None else tuple(self.targets)
        return LoraOptions(self.rank, self.alpha, self.dropout, self.rank_stabilized, targets)


class ModelStage(StageConfig):
    """A stage that starts from a model. Abstract."""

    from_: str | None = Field(None, alias="from", min_length=1, description="Stage, model folder or .gguf file; default the `model`.")
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy; weights stay float32 in all but bfloat16.")
    max_length: int = Field(1024, ge=2, description="Tokens a sequence.")


class OptimizerOptions(ModelStage):
    """What is trained, and AdamW with its schedule. Abstract."""

    lora: Lora | None = Field(None, description="Train low-rank adapters, {rank: 16, ...}, in place of all weights.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Decay after the warm-up, to zero.")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="Share of the updates with a linearly rising rate.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    clip_norm: float = Field(1.0, gt=0, description="Global norm to which gradients are clipped.")
    beta_2: float = Field(0.999, gt=0, lt=1, description="Adam's second moment decay.")
    micro_batch_size: int | None = Field(None, ge=1, description="Sequences a forward pass; default all of the update's.")
    eval_every: int = Field(0, ge=0, description="Updates between evaluations; 0 is at the end only.")


class TrainingOptions(OptimizerOptions):
    """Passes over a fixed data set. Abstract."""

    epochs: float = Field(1.0, gt=0, description="Passes over the data; 0.5 is half of it.")
    max_steps: int | None = Field(None, ge=1, description="At most so many updates.")
    batch_size: int = Field(32, ge=1, description="Sequences an update.")
    overlong: Literal["error", "drop", "truncate"] = Field("drop", description="Sequences over max_length; dropped ones are counted.")
    eval_fraction: float = Field(0.05, ge=0, lt=1, description="Share of the data held out for the evaluation loss.")


class Pretraining(TrainingOptions):
    """Next-token training on packed plain text."""

    kind: Literal["pretraining"]
    data: Data = Field(description="Texts.")


class InstructionTuning(TrainingOptions):
    """Supervised tuning on prompts and responses; loss on the responses."""

    kind: Literal["instruction_tuning"]
    data: Data = Field(description="Prompts and completions, or conversations.")


class PreferenceCollection(ModelStage):
    """Samples responses and has a rater choose: the paper's rating step."""

    kind: Literal["preference_collection"]
    data: Data = Field(description="Prompts.")
    samples_per_prompt: int = Field(2, ge=2, description="Responses sampled for each prompt.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    batch_size: int = Field(64, ge=1, description="Sequences sampled at once.")
    rater: str = Field("gold", description="gold, a function such as exact_answer, or reward_model:<stage>.")
    noise: Literal["bradley_terry", "none"] = Field("bradley_terry", description="bradley_terry draws the winner, none takes the better.")
    noise_scale: float = Field(1.0, gt=0, description="Temperature of the draw: p = sigmoid(score difference / noise_scale).")
    quantize_reward_model: Bits | None = Field(None, description="Hold the kernels of a reward model that scores in 8 or 4 bits.")
    export: bool = Field(False, description="Write the pairs for human raters.")
    ratings: str | None = Field(None, min_length=1, description="File with the human ratings of exported pairs.")


class RewardModeling(TrainingOptions):
    """A Bradley-Terry reward model from preferences."""

    kind: Literal["reward_modeling"]
    data: Data = Field(description="A preference_collection stage, or a file with chosen and rejected.")
    heldout_fraction: float = Field(0.1, gt=0, lt=1, description="Share of the pairs that measures accuracy.")
    center_coefficient: float = Field(0.0, ge=0, description="Weight of the squared sum of the two scores.")
    normalize_prompts: int = Field(256, ge=0, description="Samples of the tuned model that set reward_mean and reward_std; 0 is off.")


class WeightedReward(Settings):
    """One part of a summed reward."""

    reward: str = Field(min_length=1, description="Stage, model folder or function.")
    weight: float = Field(1.0, description="Its factor.")


def _reward_tag(value: Any) -> str:
    return "<sum>" if isinstance(value, list) else "<one>"


Reward = Annotated[
    Annotated[str, Tag("<one>")] | Annotated[list[WeightedReward], Field(min_length=1), Tag("<sum>")], Discriminator(_reward_tag)
]


class PolicyOptimization(OptimizerOptions):
    """Reinforcement learning against a reward, held near the tuned model by a KL penalty."""

    kind: Literal["policy_optimization"]
    reward: Reward = Field(description="Stage, model folder, function, or a list of {reward, weight}.")
    quantize_reward_model: Bits | None = Field(None, description="Hold the kernels of a reward model that scores in 8 or 4 bits.")
    data: Data = Field(description="Prompts, with answers where a function needs them.")
    algorithm: Literal["rloo", "reinforce"] = Field("rloo", description="Baseline: the other samples of the prompt, or a running mean.")
    kl_weight: float = Field(0.05, ge=0, description="Weight of the KL to the starting model.")
    steps: int = Field(100, ge=1, description="Rollout steps.")
    prompts_per_step: int = Field(16, ge=1, description="Prompts a rollout.")
    samples_per_prompt: int = Field(4, ge=1, description="Responses a prompt; rloo needs 2.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    inner_updates: int = Field(1, ge=1, description="Updates on each rollout.")
    clip_range: float = Field(0.2, gt=0, description="Half-width of the trusted ratio, where inner_updates > 1.")
    missing_stop_penalty: float = Field(0.0, ge=0, description="Subtracted where a response has no stop token.")
    eval_every: int = Field(10, ge=0, description="Steps between evaluations.")
    eval_prompts: int = Field(64, ge=1, description="Prompts of an evaluation.")
    gold: Literal["task"] | None = Field(None, description="task logs the built-in task's gold reward too; it trains nothing.")


class Evaluation(StageConfig):
    """Two or more policies side by side on held-out prompts."""

    kind: Literal["evaluation"]
    compare: list[str] = Field(min_length=1, description="Stages or model folders; the first is the baseline.")
    data: Data = Field(description="Held-out prompts.")
    judge: str = Field("gold", description="gold, exact_answer, function:<name> or reward_model:<stage>.")
    quantize_reward_model: Bits | None = Field(None, description="Hold the kernels of a reward model that scores in 8 or 4 bits.")
    prompts: int = Field(512, ge=1, description="At most so many prompts.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens a response.")
    temperature: float = Field(1.0, ge=0, description="0 is greedy.")
    batch_size: int = Field(64, ge=1, description="Sequences sampled at once.")
    samples_kept: int = Field(20, ge=0, description="Prompts whose responses are shown in the report.")
    reference: str | None = Field(None, min_length=1, description="Model the KL is measured to; default the first of compare.")
    bootstrap: int = Field(1000, ge=1, description="Resamples behind the intervals.")
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy.")
    max_length: int = Field(1024, ge=2, description="Tokens of a prompt and its response.")


Stage = Annotated[
    Pretraining | InstructionTuning | PreferenceCollection | RewardModeling | PolicyOptimization | Evaluation, Field(discriminator="kind")
]

KINDS: dict[str, type[StageConfig]] = {
    "pretraining": Pretraining,
    "instruction_tuning": InstructionTuning,
    "preference_collection": PreferenceCollection,
    "reward_modeling": RewardModeling,
    "policy_optimization": PolicyOptimization,
    "evaluation": Evaluation,
}
"""The closed registry: a kind that is not here does not exist. `pipelines/stages/<kind>.py` runs it."""


def _model_tag(value: Any) -> str:
    return "<name>" if isinstance(value, str) or value is None else "<scratch>"


Model = Annotated[Annotated[str | None, Tag("<name>")] | Annotated[ScratchModel, Tag("<scratch>")], Discriminator(_model_tag)]


class Workflow(Settings):
    """A workflow file: a model and the stages, run in the order written."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="Names the run's folder.")
    seed: int = Field(0, ge=0, lt=2**63, description="Keys every random draw.")
    backend: Backend | None = Field(None, description="jax, tensorflow or torch; default KERAS_BACKEND.")
    model: Model = Field(None, description="Published size, hub id, folder, .gguf file, or {config: {...}} from scratch.")
    stages: dict[StageName, Stage] = Field(min_length=1, description="Stages by name.")
