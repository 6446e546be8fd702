"""What benchmarks are asked for."""

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from gemma_keras.install_advice import install_command
from pipelines.graders.code.sandbox import Sandbox
from pipelines.schema.base import DtypePolicy, Problem, Settings, StageConfig
from pipelines.schema.data import data_tag
from pipelines.schema.named_data import NamedTask
from pipelines.schema.roles import KeyPath, LocalFile, Names
from pipelines.schema.scoring import ToxicityModel
from pipelines.tasks.benchmarks.choice import choose, places

Name = Annotated[str, Field(min_length=1)]


class OwnBenchmark(Settings):
    """A benchmark of one's own: questions of a JSON lines file, with choices or with an answer in words."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="What the report calls it.")
    path: Annotated[str, LocalFile(must_exist=True)] = Field(
        min_length=1, description="JSON lines file, relative to the YAML file."
    )
    prompt: str = Field("prompt", min_length=1, description="Column with the question.")
    choices: str | None = Field(
        None, min_length=1, description="Column with the choices, two texts or more; without it words are asked for."
    )
    answer: str = Field(
        "answer", min_length=1, description="Column with the answer: a choice, its number from 0, or a text."
    )
    shots: int = Field(0, ge=0, description="Rows that stand before each question, with their answers.")
    max_new_tokens: int = Field(256, ge=1, description="Tokens of an answer in words.")


class TaskBenchmark(NamedTask):
    """The built-in task as a benchmark: its questions, answered in words."""

    shots: int = Field(0, ge=0, description="Questions that stand before each, with their answers.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens of an answer.")

    def problems(self) -> Iterator[Problem]:
        """A part of the task without questions."""
        if self.split == "pretraining":
            yield ("split",), "the texts of pretraining hold no question; expected another part, such as heldout"


class Toxicity(ToxicityModel):
    """What scores the toxicity of continuations, in place of a list of swear words."""

    def problems(self) -> Iterator[Problem]:
        """None or both."""
        if (self.classifier is None) == (self.hub is None):
            yield (), "expected one of classifier and hub; without this block it is the list of swear words"


def _one(value: Any) -> str:
    if isinstance(value, str):
        return "<name>"
    return "<task>" if data_tag(value) == "<task>" else "<own>"


def _suite(value: Any) -> str:
    return "<name>" if isinstance(value, str) else "<list>"


Wanted = Annotated[
    Annotated[Name, Tag("<name>")] | Annotated[OwnBenchmark, Tag("<own>")] | Annotated[TaskBenchmark, Tag("<task>")],
    Discriminator(_one),
]


class Benchmarks(StageConfig):
    """Models on benchmarks: lm-eval's tasks and metrics, beside the figures that were published."""

    packages = ("lm_eval", "datasets", "better_profanity")
    elsewhere = dict.fromkeys(("benchmarks", "lm_eval", "eval_harness", "harness"), "")

    kind: Literal["benchmark"]
    models: list[Annotated[str, Names("any_policy")]] = Field(
        min_length=1, description="Stages, model folders, .gguf files, hub ids such as google/gemma-3-270m."
    )
    suite: Annotated[
        Annotated[Name, Tag("<name>")] | Annotated[list[Wanted], Tag("<list>"), Field(min_length=1)],
        Discriminator(_suite),
    ] = Field(
        description="gemma_paper, gemma_3_270m_card, gemma_safety, a benchmark such as piqa, lm_eval:<task>, "
        "{path: ...} of one's own, {task: small_world, ...}, or a list of them."
    )
    data: Annotated[str | None, LocalFile(must_exist=True)] = Field(
        None, min_length=1, description="Folder with the benchmarks' rows; default the Hugging Face hub."
    )
    limit: int | None = Field(None, ge=1, description="At most so many rows of a benchmark, drawn by the seed.")
    shots: int | None = Field(None, ge=0, description="Examples before a question; default what each suite says.")
    fixed_shots: bool = Field(
        False, description="The same examples before every question, read once, where lm-eval draws others for each."
    )
    chat_template: Literal["auto"] | bool = Field(
        "auto", description="Ask in turns; auto: of models that were tuned to them."
    )
    samples: int = Field(1, ge=1, description="Answers to each question in words or code: for pass@k and maj@k.")
    temperature: float = Field(0.0, ge=0, description="Of those answers; 0 is greedy.")
    toxicity: Toxicity | None = Field(
        None, description="What scores toxicity; default a list of swear words, which finds no hatred without them."
    )
    sandbox: Sandbox = Field(
        "auto", description="Of programs: bubblewrap, unshare, auto: the first that works here; none: no protection."
    )
    batch_tokens: int = Field(8192, ge=1, description="Positions of a forward pass, from which the rows follow.")
    max_length: int | None = Field(
        None, ge=2, description="Tokens of a question and its answer, longer ones lose their beginning; default the "
        "model's context.",
    )  # fmt: skip
    samples_kept: int = Field(3, ge=0, description="Rows of each benchmark that are shown in samples.jsonl.")
    dtype: DtypePolicy = Field("float32", description="Keras dtype policy.")

    @property
    def names(self) -> list[str]:
        """Suites, benchmarks and tasks that are named, without those of one's own."""
        wanted = [self.suite] if isinstance(self.suite, str) else self.suite
        return [one for one in wanted if isinstance(one, str)]

    @property
    def own(self) -> list[OwnBenchmark | TaskBenchmark]:
        """Those of one's own, and the built-in task's."""
        return [] if isinstance(self.suite, str) else [one for one in self.suite if not isinstance(one, str)]

    def parts_read(self, path: KeyPath) -> Sequence[str] | None:
        """The sets of the benchmarks that are named."""
        if path != ("data",):
            return None
        known = [one.benchmark for one in choose(self.names) if one.benchmark is not None]
        return list(dict.fromkeys(place for one in known for place in places(one)))

    def problems(self) -> Iterator[Problem]:
        """Unknown names, a name that is given twice, and samples that would all be the same."""
        wanted = [self.suite] if isinstance(self.suite, str) else self.suite
        known: list[str] = []
        for place, one in enumerate(wanted):
            path = ("suite",) if isinstance(self.suite, str) else ("suite", place)
            if not isinstance(one, str):
                if one.name in known:
                    yield (*path, "name"), f"two benchmarks are called {one.name!r}; expected a name for each"
                known.append(one.name)
                continue
            try:
                known += [found.name for found in choose([one])]
            except ValueError as error:
                yield path, str(error)
        if importlib.util.find_spec("lm_eval") is None:
            yield ("kind",), f"benchmarks need lm-eval, which is not installed: {install_command('lm-eval')}"
        if len(set(self.models)) < len(self.models):
            yield ("models",), f"a model is named twice: {', '.join(self.models)}"
        if self.samples > 1 and not self.temperature:
            yield ("samples",), f"{self.samples} greedy answers are all the same; expected a temperature over 0"
