"""What a run folder holds, read back as plain records for the summary and the report.

Nothing here imports Keras. A stage counts as finished when its folder holds a `stage.json`; the order of the stages is
that of the resolved workflow in the run folder, because folders on disk have none.
"""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from pipelines.host.errors import DataError
from pipelines.host.files import read_json
from pipelines.host.run_folder import STAGES, WORKFLOW_FILE, run_of, seed_folder, stage_folder, stages_before


@dataclass(frozen=True)
class StageRecord:
    """A finished stage. Everything but `name` may be None or empty where the stage did not write it.

    Args:
        name: key of the stage in the workflow.
        kind: its kind, such as `reward_modeling`.
        key: hash that decides whether the stage is skipped.
        seconds: wall time of the stage.
        peak_memory_gib: most memory that it held, GiB. peak_memory_of: "device" of an accelerator, or "process", its
            resident memory.
        throughput: how fast it was, as of `pipelines.measures.throughput.Throughput.figures`.
        programs: name of a program to the number of shapes that it was called with, each of which is compiled.
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
    peak_memory_of: str | None = None
    throughput: dict[str, Any] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
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
    """A run: its resolved workflow and its finished stages in the workflow's order.

    Args:
        seed: the workflow's, or the one that this part of a run is about; of a run with `seeds` the first of them.
        stages: finished ones; of a run with `seeds` those that run once and the first seed's.
        part_of: the folder of the run, where this is one seed's part of it.
        seed_values: the workflow's `seeds`; empty without. repeated: names of the stages that run once a seed.
        parts: of a run with `seeds`, a record for each that has begun: what runs once and its own stages.
    """

    folder: Path
    name: str
    seed: int | None
    workflow_text: str
    stages: list[StageRecord]
    part_of: Path | None = None
    seed_values: list[int] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    parts: list["RunRecord"] = field(default_factory=list)

    @property
    def all_stages(self) -> list[tuple[str, StageRecord]]:
        """Every finished stage with its name, of all seeds: `policy, seed 17`."""
        if not self.parts:
            return [(stage.name, stage) for stage in self.stages]
        once = [(stage.name, stage) for stage in self.stages if stage.name not in self.repeated]
        return once + [
            (f"{stage.name}, seed {part.seed}", stage)
            for part in self.parts
            for stage in part.stages
            if stage.name in self.repeated
        ]

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


def read_run(folder: str | Path) -> RunRecord:
    """Read a run folder, or the folder of one of its seeds.

    Args:
        folder: folder with `stages/`, and `workflow.yaml` where the runner wrote one; or `seeds/<seed>/` in such a one.

    Returns:
        The run; its `stages` is empty where none has finished. Of a seed it has the stages that run once as well.

    Raises:
        DataError: the folder does not exist, or one of its JSON files cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run folder; expected the folder a run wrote, such as runs/quickstart")
    above, seed = run_of(folder)
    run_folder = folder if seed is None else above
    file = run_folder / WORKFLOW_FILE
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    workflow = _read_workflow(file, text)
    if seed is not None:
        return _record(folder, run_folder, seed, workflow, text)
    run = _record(folder, run_folder, None, workflow, text)
    begun = [(seed, seed_folder(folder, seed)) for seed in run.seed_values if seed_folder(folder, seed).is_dir()]
    return replace(run, parts=[_record(place, folder, seed, workflow, text) for seed, place in begun])


def _record(folder: Path, run_folder: Path, seed: int | None, workflow: dict[str, Any], text: str) -> RunRecord:
    """The record of a run, or of one seed's part of it."""
    values, first = _seeds_of(workflow)
    names = [str(name) for name in workflow.get("stages") or sorted(_finished(run_folder / STAGES))]
    repeated = [name for name in names if name not in stages_before(names, first)] if values else []
    written = workflow.get("seed")
    own = seed if seed is not None else values[0] if values else written if isinstance(written, int) else None
    seed_of = {name: own if name in repeated else None for name in names}
    finished = {one: _finished(stage_folder(run_folder, "", one)) for one in set(seed_of.values())}
    return RunRecord(
        folder=folder,
        name=str(workflow.get("name") or run_folder.resolve().name),
        seed=own,
        workflow_text=text,
        stages=[
            _read_stage(stage_folder(run_folder, name, one), name)
            for name, one in seed_of.items()
            if name in finished[one]
        ],
        part_of=None if seed is None else run_folder,
        seed_values=values,
        repeated=repeated,
    )


def _seeds_of(workflow: dict[str, Any]) -> tuple[list[int], str | None]:
    """`seeds.values` and `seeds.from` of a resolved workflow."""
    seeds = workflow.get("seeds")
    if not isinstance(seeds, dict):
        return [], None
    return [seed for seed in seeds.get("values") or () if isinstance(seed, int)], seeds.get("from")


def _finished(stages: Path) -> set[str]:
    """Names of the finished stages; one at work writes into a folder whose name begins with a dot."""
    return {path.parent.name for path in stages.glob("[!.]*/stage.json")}


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
        throughput=about.get("throughput") or {},
        programs=about.get("programs") or {},
        peak_memory_of=about.get("peak_memory_of"),
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
