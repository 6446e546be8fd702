"""What a look for memorized texts is asked for."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from gemma_keras.install_advice import install_command
from pipelines.measures.personal_data import missing_packages
from pipelines.schema.base import DtypePolicy, Problem, StageConfig, Use
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.named_data import NamedSources, list_or_tag, name_problems
from pipelines.schema.roles import Names

Documents = Annotated[
    Annotated[str, Tag("<stage>"), Names("documents")]
    | Annotated[FileData, Tag("<file>")]
    | Annotated[TaskData, Tag("<task>")]
    | Annotated[NamedSources, Tag("<list>")],
    Discriminator(list_or_tag),
]
"""A stage, whose training data is meant or the rows that it left; a file; the built-in task; or named ones of these."""


class Memorization(StageConfig):
    """Models that are shown how training documents begin, and asked to go on."""

    elsewhere = dict.fromkeys(("memorisation", "extraction", "privacy"), "")

    kind: Literal["memorization"]
    models: list[Annotated[str, Names("any_policy")]] = Field(
        min_length=1, description="Stages, model folders, .gguf files, hub ids such as google/gemma-3-270m."
    )
    data: Documents = Field(
        description="Documents: a stage that was trained on them, one that left rows, texts or conversations of a "
        "file; or several of these, a list with names."
    )
    unseen: Documents | None = Field(
        None, description="Documents that no model was trained on, to compare with; the held-out ones count without it."
    )
    documents: int = Field(10000, ge=1, description="At most so many of each source, drawn by the seed.")
    prompt_tokens: int = Field(50, ge=1, description="Tokens of a document that are shown.")
    continuation_tokens: int = Field(50, ge=1, description="Tokens of a document that are asked for.")
    distance: float = Field(
        0.1, ge=0, lt=1, description="Edits a token at which a continuation is memorized approximately."
    )
    regions: list[Annotated[str, Field(pattern="^[A-Z]{2}$")]] = Field(
        ["US"], description="Countries, as [US, DE], that a phone number without a country's code may be of."
    )
    batch_size: int = Field(64, ge=1, description="Sequences sampled at once.")
    max_length: int = Field(1024, ge=2, description="Tokens of a prompt and its continuation.")
    samples_kept: int = Field(20, ge=0, description="Memorized documents of each model that are shown, redacted.")
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy.")

    def reads(self) -> tuple[Use, ...]:
        """Plain texts, or conversations."""
        return ("instruction",)

    def problems(self) -> Iterator[Problem]:
        """Names that are given twice, no room, packages that are missing."""
        if len(set(self.models)) < len(self.models):
            yield ("models",), f"a model is named twice: {', '.join(self.models)}"
        for key, sources in (("data", self.data), ("unseen", self.unseen)):
            if isinstance(sources, list):
                yield from name_problems(sources, (key,))
        if self.prompt_tokens + self.continuation_tokens >= self.max_length:
            tokens = f"{self.prompt_tokens} + {self.continuation_tokens}"
            yield ("max_length",), f"{self.max_length} has no room for {tokens} tokens and the one that begins a text"
        if missing_packages():
            names = " and ".join(missing_packages())
            yield ("kind",), f"personal data is looked for by {names}, not installed: {install_command('filters')}"
