"""What a running stage is given besides its configuration: folders, seed, metrics, progress. Imports no Keras."""

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints.hub import is_on_hub
from pipelines.data.columns import Example
from pipelines.data.contents import PromptHashes, SeenPrompts, prompt_hashes
from pipelines.data.examples import load_examples
from pipelines.data.heldout import Split, split_heldout
from pipelines.data.rejects import Rejects
from pipelines.host.activity import Activity
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.parts import Compute, Keep
from pipelines.host.paths import find_model, find_path
from pipelines.host.progress import Progress
from pipelines.host.visible_text import visible
from pipelines.measures.throughput import Throughput
from pipelines.plugins.sources import UserFunction
from pipelines.schema.base import StageConfig
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.mixture import TrainingData
from pipelines.schema.model import ScratchModel
from pipelines.schema.named_data import spec_of
from pipelines.schema.roles import REWARD_MODEL_PREFIX, references_of, uses_workflow_model
from pipelines.training.kept_parts import KeptParts
from pipelines.training.state import StageState

_TUNED_NAME = re.compile(r"(^|[^a-z])(it|instruct|chat)([^a-z]|$)")


@dataclasses.dataclass
class StageContext:
    """The surroundings of one stage: all that it may know.

    Args:
        name: the stage's name in the workflow.
        output: folder to write into; the runner gives it its final name when the stage is finished.
        inputs: finished stage folders by stage name, those that the stage refers to.
        seed: the workflow's seed; draws are keyed by (seed, name, step, ...).
        model: the workflow's model.
        base_folder: folder that relative paths start from, that of the YAML file.
        quiet: show no progress.
        warnings: what has been said to `warn`; the runner adds it to the stage's final figures, for the report.
        activity: shows what is being done where no progress is; None shows nothing.
        throughput: adds up how fast the stage trains and samples.
        user_functions: reward functions of the user's own that the stage names.
        state: what is kept of unfinished work; None keeps nothing.
        kept_parts: finished work of earlier stages of the run, and where it is kept; None keeps nothing.
        check_inputs: called when all is read and the work begins; raises where a file has changed meanwhile.
    """

    name: str
    output: Path
    inputs: dict[str, Path]
    seed: int
    model: str | ScratchModel | None
    base_folder: Path
    quiet: bool = False
    warnings: list[str] = dataclasses.field(default_factory=list)
    activity: Activity | None = dataclasses.field(default=None, repr=False)
    throughput: Throughput = dataclasses.field(default_factory=Throughput, repr=False)
    user_functions: Mapping[str, UserFunction] = dataclasses.field(default_factory=dict)
    state: StageState | None = dataclasses.field(default=None, repr=False)
    kept_parts: KeptParts | None = dataclasses.field(default=None, repr=False)
    check_inputs: Callable[[], None] | None = dataclasses.field(default=None, repr=False)
    _rejected: list[dict[str, Any]] = dataclasses.field(default_factory=list, repr=False)
    _progress: Progress | None = dataclasses.field(default=None, repr=False)

    def model_source(self, from_: str | None) -> str | Path:
        """Where to load a model from.

        Args:
            from_: a stage, a stage's or model's folder, a model's file, any of these behind `reward_model:`; a name on
                the hub; None is the workflow's model.

        Returns:
            A folder or file, or the published name or hub id.

        Raises:
            ConfigError: nothing of that name, or a model from scratch where weights are needed.
        """
        if from_ is None:
            if not isinstance(self.model, str):
                raise ConfigError(
                    f"stage {self.name!r} needs weights to start from: give it `from`, or name a model in `model`"
                )
            path = find_path(self.model, self.base_folder)
            return self.model if path is None else find_model(path) or path
        name = from_.removeprefix(REWARD_MODEL_PREFIX)
        if name in self.inputs:
            return self.inputs[name] / "model"
        path = find_path(name, self.base_folder)
        found = None if path is None else find_model(path)
        if path is None and is_on_hub(name):
            return name
        if found is None:
            raise ConfigError(f"stage {self.name!r}: {name!r} is neither an earlier stage nor a folder with a model")
        return found

    def file(self, name: str, what: str = "") -> Path:
        """A file beside the workflow.

        Args:
            what: behind its name in the message.

        Raises:
            ConfigError: there is none.
        """
        path = find_path(name, self.base_folder)
        if path is None:
            said = f"no file {name!r}{what and f' {what}'}"
            raise ConfigError(f"stage {self.name!r}: {said} (relative to {self.base_folder})")
        return path

    def examples(self, data: str | FileData | TaskData, use: Any) -> list:
        """The typed examples of a stage's `data`; see `pipelines.data.examples.load_examples`.

        Rows that `on_bad_row: lenient` sets aside are never silent: they go into `rejected.jsonl` of the stage's
        folder, their number into the metrics and onto the terminal.
        """
        self.doing("reading data")
        rejects = Rejects(data.on_bad_row) if isinstance(data, FileData) else Rejects()
        found = load_examples(data, use, self.base_folder, self.inputs, self.seed, rejects)
        if rejects.count:
            self._rejected += [row for row in rejects.rows if row not in self._rejected]
            Rejects(rows=self._rejected).write(self.output)
            self.log(0, rejected_rows=rejects.count)
            first = f"the first: {rejects.rows[0]['origin']}: {rejects.rows[0]['reason']}"
            rows = "1 bad row" if rejects.count == 1 else f"{rejects.count} bad rows"
            self.warn(f"{rows} set aside, see rejected.jsonl; {first}")
        for notice, origin in rejects.notices.items():
            self.warn(f"{origin}: {notice}")
        if isinstance(data, FileData) and data.disjoint_from:
            found = self._left_after(found, data)
        return found

    def examples_by_source(self, data: TrainingData, use: Any) -> dict[str, list]:
        """The typed examples of each source that is mixed, by its name; of one data set all of them under ""."""
        if not isinstance(data, list):
            return {"": self.examples(data, use)}
        return {source.name: self.examples(spec_of(source), use) for source in data}

    def seen_by(self, name: str | None) -> SeenPrompts | None:
        """The prompts that a model, and those it came from, learned from.

        Args:
            name: as of `model_source`, or a stage that collected preferences.

        Returns:
            None where nothing is known, as of a model from the hub.
        """
        if name in self.inputs and not (self.inputs[name] / "model").is_dir():
            return SeenPrompts.read(self.inputs[name])
        source = self.model_source(name)
        return SeenPrompts.read(source) if isinstance(source, Path) and source.is_dir() else None

    def was_tuned_to_turns(self, name: str) -> bool:
        """Whether a model, named as of `model_source`, answers in turns: a stage of any kind but pretraining, or a
        folder or file whose name says so."""
        if name in self.inputs:
            about = json.loads((self.inputs[name] / "stage.json").read_text(encoding="utf-8"))
            return about.get("kind") != "pretraining"
        return _TUNED_NAME.search(name.lower()) is not None

    def seen_before(self, config: StageConfig) -> SeenPrompts:
        """The prompts that the models a stage starts from and is scored by learned from; of those it knows."""
        if isinstance(self.model, str) and uses_workflow_model(config):
            known = [self.seen_by(None)]
        else:
            known = []
        known += [self.seen_by(one.name) for one in references_of(config) if one.is_model]
        return functools.reduce(SeenPrompts.__or__, filter(None, known), SeenPrompts())

    def seen_elsewhere(self, config: StageConfig, examples: Sequence[Example]) -> dict[str, dict[str, int] | None]:
        """How many prompts each model that a stage compares or judges by was trained on, it or a model that it came
        from; says so where there are any.

        Returns:
            By name `SeenPrompts.overlap`; None where nothing is known of its training, as of a model from the hub.
        """
        hashes = [prompt_hashes(example) for example in examples]
        found: dict[str, dict[str, int] | None] = {}
        for reference in references_of(config):
            if reference.is_model and reference.target not in found:
                seen = self.seen_by(reference.name)
                found[reference.target] = None if seen is None else seen.overlap(hashes)
        worst = max((one["same_content"] for one in found.values() if one), default=0)
        if worst:
            self.warn(f"up to {worst} of {len(hashes)} prompts were trained on by what is compared; see seen_elsewhere")
        return found

    def hold_out(
        self, examples: Sequence[PromptHashes], fraction: float, seen: SeenPrompts, most: int | None = None
    ) -> Split:
        """A stage's split into training and held-out prompts, see `split_heldout`; says so where none was new."""
        split = split_heldout(examples, fraction, self.seed, seen, most)
        if split.seen_before:
            self.warn(
                f"{split.seen_before} of {len(split.heldout)} held-out prompts were trained on by an earlier stage"
            )
        return split

    def warn(self, message: str) -> None:
        """Something to know before a figure of this stage is believed: a line on the terminal, unless it is quiet, and
        one in the report. What was said before, as of rows that a stage reads twice, is not said again."""
        if message in self.warnings:
            return
        self.warnings.append(message)
        if not self.quiet:
            print(f"  {self.name}: {visible(message)}", file=sys.stderr)

    def doing(self, what: str) -> None:
        """Say on the terminal what is being done until the next of these or the next progress, such as "loading
        weights"."""
        if self.activity is not None:
            self.activity.say(what)

    def disjoint_prompts(self, data: FileData) -> SeenPrompts:
        """The prompts that rows are left out for, by `disjoint_from`.

        Raises:
            ConfigError: one of the stages keeps no record of its own.
        """
        known = SeenPrompts()
        for name in data.disjoint_from or ():
            found = self.seen_by(name)
            if found is None:
                raise ConfigError(f"stage {self.name!r}: disjoint_from: {name!r} keeps no record of its prompts")
            known |= found
        return known

    def _left_after(self, examples: list, data: FileData) -> list:
        """Examples without those whose prompts `data.disjoint_from` have learned from."""
        known = self.disjoint_prompts(data)
        left = [one for one in examples if known.contents.isdisjoint(prompt_hashes(one).contents)]
        if not left:
            raise DataError(
                f"{data.path}:1: all {len(examples)} prompts were seen by {', '.join(data.disjoint_from or ())}. "
                "Expected others: choose other `rows`, or leave `disjoint_from` out."
            )
        self.log(0, left_out_rows=len(examples) - len(left))
        return left

    def log(self, step: int, **metrics: Any) -> None:
        """Append a row to `metrics.jsonl` and show it beside the progress. NaN is written as it is."""
        row = json.dumps({"step": step, **metrics}, ensure_ascii=False, default=float)
        with (self.output / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(row + "\n")
        if self._progress is not None:
            self._progress.note(**metrics)

    def progress(
        self, total: int | None, description: str, unit: str = "steps", work_unit: str = "tokens", before: int = 0
    ) -> Progress:
        """Progress of the stage's work: `with context.progress(100, "training") as bar: bar.advance(work=tokens)`, or
        iterate it. `before`: steps that an earlier process did."""
        if self.check_inputs is not None:
            self.check_inputs()
            self.check_inputs = None
        self._progress = Progress(
            total, f"  {self.name}: {description}", unit, work_unit, quiet=self.quiet, activity=self.activity,
            before=before,
        )  # fmt: skip
        return self._progress

    def parts(self, work: str, is_all: bool = False, at_once: bool = False) -> Keep:
        """What keeps the parts of some work in the stage's state.

        Args:
            work: its name. is_all: whether the stage has no other parts, so that their number says how far it is.
            at_once: whether each part is on disk before the next begins; else it is when it is time for a state.
        """

        def keep(name: str, compute: Compute, of: int | None = None) -> Mapping[str, np.ndarray]:
            if self.state is None:
                return compute()
            return self.state.part(f"{work}/{name}", compute, of if is_all else None, at_once)

        return keep
