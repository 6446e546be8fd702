"""The figures of a run in one small file: `summary.json`, built from what the stages left on disk.

What is read, for every folder `stages/<name>/` that holds a `stage.json` (a finished stage):

- `stage.json`: `{name, kind, key, seconds, peak_memory_gib, peak_memory_of, throughput, programs, backend, versions,
  config, inputs}`, written by the runner; `peak_memory_of` is "device", an accelerator, or "process".
- `final.json`: the dict the stage returned; what of it is looked at, the kind's report says (`stages/<kind>/report/`).
- `metrics.jsonl`: rows `{"step": int, name: number}`; training and `eval_` rows may be separate. Names as in TRL.
- `samples.jsonl`: `{"step"?, "prompt", "completion", "reward"?}` of one policy, or `{"prompt", "answer"?,
  "completions": {policy: text}, "scores"?: {policy: number}}` of several.

What is written: `summary.json` with
- `name`, `seed`, `backend`, `versions`;
- `stages.<name>.{kind, key, seconds, peak_memory_gib, peak_memory_of, throughput, programs, backend, loss, final}`;
  `loss` is `{first, last, heldout_first, heldout_last}` of a stage that was trained by a loss, else null; `throughput`
  and `programs` see docs/throughput.md;
- what the kinds add (`KindReport.summarize`).

Of a run with `seeds` these are the figures of the first seed, and there is
- `seeds.{values, stages, parts, table}`: the seeds, the stages that run once for each, and what the kinds compare over
  them (`KindReport.over_seeds`); see `seeds.over_seeds`.
Every seed has its own `summary.json`, in `seeds/<seed>/`.

What is missing is null, never made up; numbers that are not finite are null as well.
"""

from collections.abc import Sequence
from pathlib import Path

from pipelines.host.files import write_json
from pipelines.report.parts import Figures, KindReport
from pipelines.report.records import RunRecord, StageRecord, read_run, without_non_finite
from pipelines.report.seeds import over_seeds


def build(run_folder: str | Path, reports: Sequence[KindReport]) -> Figures:
    """Build a run's summary and write it to `summary.json` in the run folder, atomically.

    Args:
        run_folder: folder of a run or of one of its seeds, finished or not. reports: what the kinds add, in order.

    Returns:
        The summary as written: plain JSON values, numbers that are not finite as None.

    Raises:
        DataError: the folder does not exist, or a file in it cannot be read.
    """
    run = read_run(run_folder)
    summary = summarize(run, reports)
    write_json(run.folder / "summary.json", summary)
    return summary


def summarize(run: RunRecord, reports: Sequence[KindReport]) -> Figures:
    """The summary of a run that has been read, as `build` describes it; writes nothing."""
    summary: Figures = {
        "name": run.name,
        "seed": run.seed,
        "backend": _shared_backend(run.stages),
        "versions": {package: version for stage in run.stages for package, version in stage.versions.items()},
        "stages": {stage.name: _stage_figures(stage) for stage in run.stages},
    }
    for report in reports:
        summary |= report.summarize(run)
    if run.seed_values and run.part_of is None:
        summary["seeds"] = over_seeds(run, [summarize(part, reports) for part in run.parts], reports)
    found: Figures = without_non_finite(summary)
    return found


def _stage_figures(stage: StageRecord) -> Figures:
    return {
        "kind": stage.kind,
        "key": stage.key,
        "seconds": stage.seconds,
        "peak_memory_gib": stage.peak_memory_gib,
        "throughput": stage.throughput,
        "programs": stage.programs,
        "peak_memory_of": stage.peak_memory_of,
        "backend": stage.backend,
        "loss": _losses(stage),
        "final": stage.final,
    }


def _losses(stage: StageRecord) -> Figures | None:
    """The first and the last loss; None where a stage has none, or only one that stands in for a reward."""
    if not {"train_loss", "eval_loss"} & set(stage.final):
        return None
    (_, training), (_, heldout) = stage.series("loss"), stage.series("eval_loss")
    return {
        "first": training[0] if training else None,
        "last": stage.final.get("train_loss") or (training[-1] if training else None),
        "heldout_first": heldout[0] if len(heldout) > 1 else None,
        "heldout_last": stage.final.get("eval_loss"),
    }


def _shared_backend(stages: list[StageRecord]) -> str | None:
    """The backend of the run; where stages chose different ones, all of them, joined by commas."""
    backends = list(dict.fromkeys(stage.backend for stage in stages if stage.backend))
    return ", ".join(backends) if backends else None
