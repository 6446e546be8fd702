"""The stages of one run, one after the other: skipped, taken back, gone on with, or run; and made again where a reader
would find them damaged."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.host.errors import ConfigError, DataError, GateError, MemoryShortage, Stopped
from pipelines.host.files import read_json, write_json
from pipelines.host.progress import duration
from pipelines.host.spelling import did_you_mean
from pipelines.host.states import Done, how_far, keep_only_state, partial_of
from pipelines.run import keys, results, unfinished
from pipelines.run.hub_names import put_commit
from pipelines.run.planning import PlannedStage
from pipelines.schema.gates import gate
from pipelines.schema.roles import plain
from pipelines.workflow.loading import LoadedWorkflow
from pipelines.workflow.schema import StateOptions

Say = Callable[[str], None]


class StageRunner:
    """The stages of one run, taken one after the other.

    Args:
        start: runs the stage that is prepared in a folder, on a backend. say: receives a line for each stage.
        verify: read every file of every finished stage; else only of those that are read in this run.
        cache: folder with finished stages that runs share, or None.
    """

    def __init__(
        self, loaded: LoadedWorkflow, planned: Sequence[PlannedStage], run_folder: Path,
        start: Callable[[Path, str], None], say: Say, verify: bool, cache: Path | None = None,
    ) -> None:  # fmt: skip
        self._loaded, self._planned, self._run_folder = loaded, list(planned), run_folder
        self._start, self._say, self._verify, self._cache = start, say, verify, cache
        self._whole: set[Path] = set()

    def take(self, stage: PlannedStage) -> None:
        """Run a stage, or leave it as it is finished, or take an earlier result of it."""
        heading = f"[{self._planned.index(stage) + 1}/{len(self._planned)}] {stage.label}"
        target = self._run_folder / stage.folder
        kept, reasons = self._kept(stage)
        if kept is not None:
            results.put_in_place(self._run_folder, kept, target)
            self._whole.add(target)
            self._say(f"{heading} ({stage.kind}): taken back from {results.KEPT_FOLDER}/{kept.name}")
        elif stage.action == "skip":
            self._say(f"{heading} ({stage.kind}): finished before, skipped")
            if self._verify:
                self._need_whole(stage)
            if self._cache is not None and not (self._cache / stage.key).exists():  # killed before it was shared
                results.share(self._cache, target, stage.key)
        else:
            self._need_gates(stage)
            partial = partial_of(target)
            if self._cache is not None and results.take_shared(self._cache, stage.key, partial):
                results.put_in_place(self._run_folder, partial, target)
                self._whole.add(target)
                self._say(f"{heading} ({stage.kind}): taken from {self._cache}")
            else:
                self._run(stage, heading, reasons)

    def _kept(self, stage: PlannedStage) -> tuple[Path | None, list[str]]:
        """An earlier result to be taken back, all bytes of which were read; and why the stage runs where there is
        none."""
        if stage.action != "take":
            return None, stage.reasons
        kept = results.kept_result(self._run_folder, stage.name, stage.key)
        found = None if kept is None else results.damage(kept, with_digests=True)
        if kept is None or found is None:
            return kept, stage.reasons
        shutil.rmtree(kept)
        return None, [*stage.reasons, f"{results.KEPT_FOLDER}/{kept.name}: {found}"]

    def _need_gates(self, stage: PlannedStage) -> None:
        for name, condition in (self._loaded.workflow.stages[stage.name].require or {}).items():
            one = gate(name, condition)
            of_stage = next(
                other for other in self._planned if other.name == one.stage and other.seed in (stage.seed, None)
            )
            final = read_json(self._run_folder / of_stage.folder / "final.json")
            value = one.find(final)
            if value is None:
                numbers = [key for key, found in keys.flat(final).items() if isinstance(found, int | float)]
                raise ConfigError(
                    f"stage {stage.label!r}: require: {name}: {of_stage.label} has no such number."
                    f"{did_you_mean('.'.join(one.figure), numbers)} It has: {', '.join(numbers) or 'none'}"
                )
            if not one.is_met(value):
                raise GateError(f"not started, as {name} is {value:.4g} and {one} is required", stage.label)

    def _run(self, stage: PlannedStage, heading: str, reasons: Sequence[str]) -> None:
        for name in stage.inputs:
            self._need_whole(next(one for one in self._planned if one.folder == stage.inputs[name]))
        target = self._run_folder / stage.folder
        partial = partial_of(target)
        done = how_far(partial)
        if done is not None and stage.most is not None:
            done = dataclasses.replace(done, of=stage.most)
        how = f"because {'; '.join(reasons)}" if done is None else f"going on at {done}"
        self._say(f"{heading} ({stage.kind}): on {stage.backend}, {how}")
        wanted = rows = self._loaded.workflow.stages[stage.name].rows_at_once()
        while True:
            _prepare(self._loaded, stage, partial, None if rows == wanted else rows)
            try:
                self._start(partial, stage.backend)
                break
            except MemoryShortage as error:
                if rows is None or rows == 1:
                    unfinished.after_failure(partial, error)
                    raise
                rows = -(-rows // 2)
                self._say(f"{heading}: out of memory; again with micro_batch_size {rows}, the batch stays as it is")
            except BaseException as error:
                done = unfinished.after_failure(partial, error)
                if isinstance(error, Stopped):
                    at = "" if done is None else f" at {done}"
                    self._say(
                        f"stopped in stage {stage.label}{at}; finished stages are kept, the same command continues"
                        f"{_lateness(error, done)}"
                    )
                raise
        results.put_in_place(self._run_folder, partial, target)
        if self._cache is not None:
            results.share(self._cache, target, stage.key)
        self._whole.add(target)
        self._say(f"{heading}: done in {duration(read_json(target / 'stage.json')['seconds'])}")

    def _need_whole(self, stage: PlannedStage) -> None:
        """Run a finished stage again whose files are not as they were written."""
        target = self._run_folder / stage.folder
        if target in self._whole:
            return
        found = results.damage(target, with_digests=True)
        if found is not None:
            shutil.rmtree(target)  # not to be kept
            self._run(stage, stage.label, [f"{stage.folder}: {found}"])
        self._whole.add(target)


def _prepare(loaded: LoadedWorkflow, stage: PlannedStage, partial: Path, rows: int | None = None) -> None:
    """Make the folder that the stage writes into, with the `stage.json` that says what to run; what an earlier run of
    it kept stays.

    Its `inputs` are folders relative to the one that the stage's own lies in.

    Args:
        rows: of a micro-batch, where those that were asked for took too much memory.
    """
    config, model = _at_commits(loaded, stage)
    read = _files_to_read(loaded, stage)
    partial.mkdir(parents=True, exist_ok=True)
    keep_only_state(partial)
    state = loaded.workflow.state or StateOptions()
    write_json(
        partial / "stage.json",
        {
            "name": stage.name,
            "kind": stage.kind,
            "key": stage.key,
            "seconds": None,
            "peak_memory_gib": None,
            "peak_memory_of": None,
            "backend": stage.backend,
            "versions": stage.parts["versions"],
            "config": config if rows is None else {**config, "micro_batch_size": rows},
            "fewer_rows": rows,
            "inputs": {name: os.path.relpath(folder, stage.folder.parent) for name, folder in stage.inputs.items()},
            "seed": stage.parts["seed"],
            "model": model,
            "base_folder": str(loaded.base_folder),
            "user_functions": {
                name: dataclasses.asdict(loaded.user_functions[name]) for name in stage.parts["functions"]
            },
            "key_parts": stage.parts,
            "state": {**state.model_dump(), "last": stage.most is not None},
            "state_key": stage.state_key,
            "read": read,
        },
    )


def _lateness(stopped: Stopped, done: Done | None) -> str:
    """What to say of a stage that was killed as it did not stop."""
    if stopped.grace_seconds is None:
        return ""
    longest = "" if done is None else f"; its updates took up to {done.longest_wait:.1f} s"
    return f". It did not end within {stopped.grace_seconds:g} s and was killed{longest}; --grace SECONDS waits longer"


def _at_commits(loaded: LoadedWorkflow, stage: PlannedStage) -> tuple[dict[str, Any], Any]:
    """The stage's settings and the workflow's model as the stage shall read them: of the hub's, the commits that its
    key names."""
    workflow = loaded.workflow
    config = plain(workflow.stages[stage.name])
    model = {"model": workflow.model_dump(mode="json", exclude_none=True).get("model")}
    for dotted, one in stage.hub.items():
        if one.commit is not None:
            put_commit(model if dotted == "model" else config, dotted, one.name, one.commit)
    return config, model["model"]


def _files_to_read(loaded: LoadedWorkflow, stage: PlannedStage) -> dict[str, Any]:
    """Files and folders outside the run that a stage reads, as they were when they were found to be what was planned.

    Raises:
        DataError: one has changed since.
    """
    found = {}
    of_seed = loaded.workflow.model_copy(update={"seed": stage.parts["seed"]})
    for dotted, path in keys.local_paths(of_seed, stage.name, loaded.base_folder).items():
        before = keys.fingerprint(path)
        if keys.content_digest(path) != stage.parts["data"].get(dotted):
            raise DataError(
                f"{path}: changed while the run was going, so stage {stage.label!r} would not be the one that was "
                "planned. Run the same command again"
            )
        found[dotted] = {"path": str(path), "files": before}
    return found
