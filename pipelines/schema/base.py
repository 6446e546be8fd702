"""What every configuration is made of: strict, frozen settings, and what a stage says about itself."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import ConfigDict, Field

from gemma_keras.lora_options import ALL_LINEAR, LoraOptions
from pipelines.schema.roles import KeyPath, Names, Product

BACKENDS = ("jax", "tensorflow", "torch")

Backend = Literal["jax", "tensorflow", "torch"]
Bits = Literal["int8", "int4"]
DtypePolicy = Literal["float32", "mixed_bfloat16", "bfloat16"]
Use = Literal["text", "instruction", "prompt", "preference"]
"""What rows of data are read as."""
StageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]

Overlong = Literal["error", "drop", "truncate"]

Problem = tuple[KeyPath, str]
"""Keys below the settings that it is about, and a sentence for the workflow's author."""


class Settings(pydantic.BaseModel):
    """Base of all: unknown keys, wrong types (no text for a number), infinities and NaN are errors; values are
    frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)

    def problems(self) -> Iterator[Problem]:
        """What is wrong between these settings, each of which is right by itself; of nested settings they say it
        themselves.

        The only place for such rules: `validate` shows them with line and column, and no stage checks again.
        """
        yield from ()


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How a stage turns its rows into tokens, so that it can be tried before anything runs.

    Args:
        model: stage, folder or file whose tokenizer it takes; None is the workflow's model.
        max_length: tokens of a sequence. overlong: what happens to longer ones.
        room: tokens of `max_length` that are kept for a response, where the stage samples.
        most_rows: at most so many rows are encoded, the first ones; None for all.
    """

    model: str | None
    max_length: int
    overlong: Overlong = "drop"
    room: int = 0
    most_rows: int | None = None


class StageConfig(Settings):
    """What every stage has. Abstract: the kinds in `stages/` are final.

    Attributes:
        produces: what a stage of the kind leaves behind for others, or None.
        is_headline: True where a policy of the kind is what a run is about: an evaluation of it makes the report's
            headline.
        packages: whose versions its result depends on, beside those of every stage.
        elsewhere: what other programs call the kind (small letters, `_`) → what to write here beside `kind`, or "".
            For hints alone: no workflow may use these names.
    """

    produces: ClassVar[Product | None] = None
    is_headline: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    elsewhere: ClassVar[Mapping[str, str]] = {}

    kind: str
    backend: Backend | None = Field(None, description="Backend of this stage only; default the workflow's.")
    require: dict[str, str] | None = Field(
        None,
        description="Figures of earlier stages without which this one does not start: {reward.accuracy: '>= 0.6'}.",
    )

    def reads(self) -> tuple[Use, ...]:
        """What the rows of its `data` are read as, so that they can be looked at before anything runs."""
        return ()

    def leaves(self) -> Use | None:
        """What the rows that it leaves behind are read as; None where it leaves none, or what its kind says is
        enough."""
        return None

    def parts_read(self, path: KeyPath) -> Sequence[str] | None:
        """Of a folder that is named under a key, the paths in it that are read; None for all that it holds."""
        return None

    def encoding(self) -> Encoding | None:
        """How these rows become tokens; None where they do not."""
        return None

    def rows_at_once(self) -> int | None:
        """Rows of a forward pass while it learns, which fewer change in nothing but the order of sums; None where it
        has no `micro_batch_size`."""
        return None

    def lasts(self) -> tuple[str, int] | None:
        """The setting that says how long it works and nothing else, and its value: a stage with more of it goes on from
        where one with less ended. None where already its first update depends on how many there are."""
        return None

    def problems_from_scratch(self) -> Iterator[Problem]:
        """What is wrong where this stage starts from a model of random weights; most kinds cannot."""
        yield (), f"{self.kind} cannot start from random weights; give it `from`, e.g. a pretraining stage"


class Lora(Settings):
    """Low-rank adapters, trained in place of the model's weights (arXiv:2106.09685)."""

    rank: int = Field(8, ge=1, description="Rank r of the added product.")
    alpha: float | None = Field(None, gt=0, description="The product is scaled by alpha / rank; default the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs set to zero in training.")
    rank_stabilized: bool = Field(False, description="Scale by alpha / sqrt(rank), arXiv:2312.03732.")
    targets: list[str] | None = Field(
        None, description="Projections that get one, e.g. [q_proj, v_proj]; default all linear ones."
    )
    quantize: Bits | None = Field(None, description="Hold the frozen kernels in 8 or 4 bits.")

    def options(self) -> LoraOptions:
        """The same for a model.

        Raises:
            ValueError: a target that does not exist.
        """
        targets = ALL_LINEAR if self.targets is None else tuple(self.targets)
        return LoraOptions(self.rank, self.alpha, self.dropout, self.rank_stabilized, targets)

    def problems(self) -> Iterator[Problem]:
        """A target that does not exist."""
        try:
            self.options()
        except ValueError as error:
            yield ("targets",), str(error)


class ModelStage(StageConfig):
    """A stage that starts from a model. Abstract."""

    from_: Annotated[str | None, Names("policy", else_model=True)] = Field(
        None, alias="from", min_length=1, description="Stage, model folder or file; default the `model`."
    )
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy; weights stay float32 in all but bfloat16.")
    max_length: int = Field(1024, ge=2, description="Tokens a sequence.")

    def encoding(self) -> Encoding | None:
        """With its model's tokenizer."""
        return Encoding(self.from_, self.max_length)


class OptimizerOptions(ModelStage):
    """What is trained, and AdamW with its schedule. Abstract."""

    lora: Lora | None = Field(None, description="Train low-rank adapters, {rank: 16, ...}, in place of all weights.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Decay after the warm-up, to zero.")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="Share of the updates with a linearly rising rate.")
    warmup_steps: int | None = Field(None, ge=0, description="Their number, in place of warmup_fraction.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    clip_norm: float = Field(1.0, gt=0, description="Global norm to which gradients are clipped.")
    beta_2: float = Field(0.999, gt=0, lt=1, description="Adam's second moment decay.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Sequences of full length a forward pass (short ones share rows); default all of the update's.",
    )
    remat: Literal["none", "block"] = Field(
        "none", description="block: the backward pass computes each decoder block again, which takes less memory."
    )
    eval_every: int = Field(0, ge=0, description="Updates between evaluations; 0 is at the end only.")
    save_every: int = Field(
        0, ge=0, description="Updates (steps) between models saved on the way, in snapshots/; 0 is the end only."
    )

    def problems(self) -> Iterator[Problem]:
        """Weights too coarse to be trained."""
        if self.lora is None and self.dtype == "bfloat16":
            advice = "expected mixed_bfloat16, or an adapter over them: lora"
            yield ("dtype",), f"bfloat16 weights lose small updates to rounding; {advice}"


class TrainingOptions(OptimizerOptions):
    """Passes over a fixed data set. Abstract."""

    epochs: float = Field(1.0, gt=0, description="Passes over the data; 0.5 is half of it.")
    max_steps: int | None = Field(None, ge=1, description="At most so many updates.")
    batch_size: int = Field(32, ge=1, description="Sequences an update.")
    overlong: Overlong = Field("drop", description="Sequences over max_length; dropped ones are counted.")
    heldout_fraction: float = Field(
        0.05, ge=0, lt=1, description="Share of the prompts held out for the evaluation loss; 0 is none."
    )

    keep_best: Literal["eval_loss"] | None = Field(
        None, description="eval_loss ends with the weights of its lowest value; default the last ones."
    )
    patience: int | None = Field(
        None, ge=1, description="Evaluations in a row without a lower eval_loss after which training ends."
    )

    def rows_at_once(self) -> int | None:
        """Rows of a micro-batch."""
        return min(self.micro_batch_size or self.batch_size, self.batch_size)

    def encoding(self) -> Encoding | None:
        """As `overlong` says."""
        return Encoding(self.from_, self.max_length, self.overlong)

    def problems(self) -> Iterator[Problem]:
        """Micro-batches larger than the batch."""
        yield from super().problems()
        if (self.micro_batch_size or 1) > self.batch_size:
            message = f"{self.micro_batch_size} is over batch_size {self.batch_size}; it is a part of it"
            yield ("micro_batch_size",), message
        for key in ("keep_best", "patience"):
            if getattr(self, key) is not None and not (self.eval_every and self.heldout_fraction):
                message = (
                    "looks at the held-out loss as training goes on; expected eval_every and heldout_fraction over 0"
                )
                yield (key,), message


def response_room_problems(max_new_tokens: int, max_length: int) -> Iterator[Problem]:
    """Responses that leave no room for a prompt, in every stage that samples."""
    if max_new_tokens >= max_length:
        yield ("max_new_tokens",), f"{max_new_tokens} leaves no room for a prompt; max_length is {max_length}"
