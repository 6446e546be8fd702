"""What a running stage is given besides its configuration: folders, seed, metrics, progress. Imports no Keras."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.host.errors import ConfigError
from pipelines.host.paths import find_model, find_path
from pipelines.host.progress import Progress
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.model import ScratchModel
from pipelines.schema.roles import REWARD_MODEL_PREFIX


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
        also: what the stage's configuration says that it looks at of other stages (`StageConfig.also_reads`), as plain
            values.
        quiet: show no progress.
    """

    name: str
    output: Path
    inputs: dict[str, Path]
    seed: int
    model: str | ScratchModel | None
    base_folder: Path
    also: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quiet: bool = False
    _progress: Progress | None = dataclasses.field(default=None, repr=False)

    def model_source(self, from_: str | None) -> str | Path:
        """Where to load a model from.

        Args:
            from_: a stage, a stage's or model's folder, a model's file, any of these behind `reward_model:`; None is
                the workflow's model.

        Returns:
            A folder or file, or the workflow's published size or hub id.

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
        if found is None:
            raise ConfigError(f"stage {self.name!r}: {name!r} is neither an earlier stage nor a folder with a model")
        return found

    def examples(self, data: str | FileData | TaskData, use: Any) -> list:
        """The typed examples of a stage's `data`; see `pipelines.data.examples.load_examples`.

        Rows that `on_bad_row: lenient` sets aside are never silent: they go into `rejected.jsonl` of the stage's
        folder, their number into the metrics and onto the terminal.
        """
        from pipelines.data.examples import load_examples
        from pipelines.data.rejects import Rejects

        rejects = Rejects(data.on_bad_row) if isinstance(data, FileData) else Rejects()
        found = load_examples(data, use, self.base_folder, self.inputs, self.seed, rejects)
        if rejects.count:
            rejects.write(self.output)
            self.log(0, rejected_rows=rejects.count)
            if not self.quiet:
                print(f"  {self.name}: {rejects.count} bad rows set aside, see rejected.jsonl", file=sys.stderr)
        return found

    def log(self, step: int, **metrics: Any) -> None:
        """Append a row to `metrics.jsonl` and show it beside the progress. NaN is written as it is."""
        row = json.dumps({"step": step, **metrics}, ensure_ascii=False, default=float)
        with (self.output / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(row + "\n")
        if self._progress is not None:
            self._progress.note(**metrics)

    def progress(self, total: int | None, description: str, unit: str = "steps", work_unit: str = "tokens") -> Progress:
        """Progress of the stage's work: `with context.progress(100, "training") as bar: bar.advance(work=tokens)`, or
        iterate it."""
        self._progress = Progress(total, f"  {self.name}: {description}", unit, work_unit, quiet=self.quiet)
        return self._progress
