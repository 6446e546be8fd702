"""What a run folder holds, read back as plain records for the summary and the report.

Nothing here imports Keras. A stage counts as finished when its folder holds a `stage.json`; the order of the stages is
that of the resolved workflow in the run folder, because folders on disk have none.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from pipelines.host.errors import DataError
from pipelines.host.files import read_json

WORKFLOW_FILE = "workflow.yaml"


@dataclass(frozen=True)
class StageRecord:
    """A finished stage. Everything but `name` may be None or empty where the stage did not write it.

    Args:
        name: key of the stage in the workflow.
        kind: its kind, such as `reward_modeling`.
        key: hash that decides whether the stage is skipped.
        seconds: wall time of the stage.
        peak_memory_gib: highest resident memory of its process, GiB.
        backend: Keras backend it ran on; None where it loaded none.
        versions: package name to version.
        config: the stage's resolved configuration. inputs: the stages whose results it read.
        final: the dict the stage returned.
        metrics: rows of `metrics.jsonl`, `{"step": int, name: number}`.
        samples: rows of `samples.jsonl`.
        evaluation: contents of `evaluation.json`.
    """

    name: str
    kind: str | None = None
    key: str | None = None
    seconds: float | None = None
    peak_memory_gib: float | None = None
    backend: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one metric, rows without a finite value left out.

        Args:
            name: metric, such as `eval_loss`.

        Returns:
            Two lists of the same length, ordered by step.
        """
        points = [
            (row["step"], row[name])
            for row in self.metrics
            if is_finite_number(row.get(name)) and is_finite_number(row.get("step"))
        ]
        points.sort(key=lambda point: point[0])
        return [float(step) for step, _ in points], [float(value) for _, value in points]


@dataclass(frozen=True)
class RunRecord:
    """A run: its resolved workflow and its finished stages in the workflow's order."""

    folder: Path
    name: str
    seed: int | None
    workflow_text: str
    stages: list[StageRecord]

    def of_kind(self, *kinds: str) -> list[StageRecord]:
        """The finished stages of these kinds, in order."""
        return [stage for stage in self.stages if stage.kind in kinds]

    def last_of_kind(self, kind: str) -> StageRecord | None:
        """The last finished stage of a kind, or None."""
        found = self.of_kind(kind)
        return found[-1] if found else None


def is_finite_number(value: Any) -> TypeGuard[float]:
    """True for an int or float that is neither NaN nor infinite; a bool is no number here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def without_non_finite(value: Any) -> Any:
    """The same JSON value with NaN and infinities replaced by None, which every JSON reader accepts."""
    if isinstance(value, dict):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_run(run_folder: str | Path) -> RunRecord:
    """Read a run folder.

    Args:
        run_folder: folder with `stages/`, and `workflow.yaml` where the runner wrote one.

    Returns:
        The run; its `stages` is empty where none has finished.

    Raises:
        DataError: the folder does not exist, or one of its JSON files cannot be read.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run folder; expected the folder a run wrote, such as runs/quickstart")
    workflow_file = folder / WORKFLOW_FILE
    workflow_text = workflow_file.read_text(encoding="utf-8") if workflow_file.is_file() else ""
    workflow = _read_workflow(workflow_file, workflow_text)
    # A stage at work writes into a folder whose name begins with a dot.
    finished = {path.parent.name for path in (folder / "stages").glob("[!.]*/stage.json")}
    names = [str(name) for name in workflow.get("stages") or sorted(finished)]
    seed = workflow.get("seed")
    return RunRecord(
        folder=folder,
        name=str(workflow.get("name") or folder.resolve().name),
        seed=seed if isinstance(seed, int) else None,
        workflow_text=workflow_text,
        stages=[_read_stage(folder / "stages" / name, name) for name in names if name in finished],
    )


def _read_workflow(path: Path, text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(
            f"{path}: not readable as YAML ({str(error).splitlines()[0]}); run the workflow again to write it anew"
        ) from error
    return value if isinstance(value, dict) else {}


def _read_stage(folder: Path, name: str) -> StageRecord:
    about = _read_json(folder / "stage.json")
    return StageRecord(
        name=name,
        kind=about.get("kind"),
        key=about.get("key"),
        seconds=about.get("seconds"),
        peak_memory_gib=about.get("peak_memory_gib"),
        backend=about.get("backend"),
        versions=about.get("versions") or {},
        config=about.get("config") or {},
        inputs=list(about.get("inputs") or ()),
        final=_read_json(folder / "final.json"),
        metrics=_read_json_lines(folder / "metrics.jsonl"),
        samples=_read_json_lines(folder / "samples.jsonl"),
        evaluation=_read_json(folder / "evaluation.json"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    value = read_json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: expected a JSON object, got {type(value).__name__}; delete the stage's folder and run again"
        )
    return value


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON lines file; [] where there is no such file."""
    if not path.is_file():
        return []
    rows = []
    # split("\n"), not splitlines(): completions may hold U+2028, which is no end of a JSON line.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: not readable as JSON ({error}); delete the stage's folder and run again"
            ) from error
        if isinstance(row, dict):
            rows.append(row)
    return rows
