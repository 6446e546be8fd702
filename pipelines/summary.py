"""The figures of a run in one small file: `summary.json`, built from what the stages left on disk.

What is read, for every folder `stages/<name>/` that holds a `stage.json` (a finished stage):

- `stage.json`: `{name, kind, key, seconds, peak_memory_gib, backend, versions, config}`, written by the runner.
- `final.json`: the dict the stage returned. Keys that are looked at, all optional:
    pretraining, instruction_tuning: `loss`, `eval_loss`, `tokens`.
    preference_collection: `pairs`, `agreement` (share of pairs in which the rater took the better answer).
    reward_modeling: `accuracy`, `accuracy_ci95`, `ceiling`, `pairs`, `reward_mean`, `reward_std`, `calibration_error`,
        `length_correlation`, and for the figures `accuracy_by_margin: [{"margin_from", "margin_to", "accuracy", "pairs"}]`
        (margin: |r_chosen - r_rejected|, raw) and `margin_histogram: {"edges": [n + 1], "counts": [n]}` of r_chosen - r_rejected
        (below zero = ranked wrongly).
    policy_optimization: `reward_start`, `reward_end`, `kl`, `kl_sequence`, `steps`, `reward_source`.
- `metrics.jsonl`: rows `{"step": int, name: number}`; training and `eval_` rows may be separate. Names as in TRL: `loss`,
  `eval_loss`, `reward`, `kl`, `kl_sequence`, `entropy`, `completions/mean_length`, `completions/clipped_ratio`; held-out ones of a
  policy: `eval_reward`, `eval_gold`, `eval_gold_ci95_low`, `eval_gold_ci95_high`, `eval_reward_ci95_low`,
  `eval_reward_ci95_high`, `eval_kl_sequence`.
- `samples.jsonl`: policy_optimization `{"step", "prompt", "completion", "reward", "gold"?}`; evaluation `{"prompt", "answer"?,
  "completions": {policy: text}, "scores"?: {policy: number}}`.
- `evaluation.json` of an evaluation stage, of this exact shape (numbers may be null where they do not apply):

```
{"judge": "gold", "prompts": 512, "baseline": "sft", "reference": "sft", "seen_elsewhere": {"sft": 0},
 "pairs": [{"policy": "policy", "baseline": "sft", "win_rate": 0.71, "tie_rate": 0.2, "loss_rate": 0.19,
            "win_rate_ci95": [0.68, 0.74]}],
 "policies": {"policy": {"gold": {"mean": 0.8, "ci95": [0.78, 0.82]},
                         "gold_parts": {"right": {"mean": 0.9, "ci95": [0.88, 0.92]}},
                        "judge_score": {"mean": 0.8, "ci95": [0.78, 0.82]}, "kl": 0.02, "kl_sequence": 0.3,
                        "accuracy": 0.8, "accuracy_ci95": [0.77, 0.83], "perplexity": 1.4, "mean_length": 11.2, "finished": 0.99}}}
```

`win_rate` is wins + ties/2 of `policy` against `baseline`, `loss_rate` and `tie_rate` are shares of prompts, `kl` is the mean over
tokens and `kl_sequence` the sum over a response, in nats, to `reference`; `accuracy` is null where the data has no answers;
`gold` and `gold_parts` are left out (or empty) where there is no gold reward. `pairs` holds every pair of compared policies
once, the earlier in `compare` as baseline. The order of `policies` is the order of `compare`. `seen_elsewhere`: stage to the number
of prompts that also occur among its own (null where that is not known).

What is written: `summary.json` with
- `name`, `seed`, `backend`, `versions`;
- `stages.<name>.{kind, key, seconds, peak_memory_gib, backend, final}`;
- `reward_model.{stage, accuracy, accuracy_ci95, ceiling, pairs}`;
- `policy.{stage, reward_start, reward_end, kl, kl_sequence, steps, reward_source}`;
- `evaluation.{stage, judge, prompts, seen_elsewhere, reference, pairs, policies.<policy>.*, gold_parts.<policy>.<part>.{mean, ci95}}`
  and, of the pair that stands for the run (`headline_pair`), `{policy, baseline, win_rate, tie_rate, loss_rate, win_rate_ci95}`.

Where a kind occurs twice, its last stage (in the order of the workflow) feeds the top-level keys. What is missing is null, never
made up; numbers that are not finite are null as well.
"""

from pathlib import Path
from typing import Any

from pipelines.files import write_json
from pipelines.run_reader import RunRecord, StageRecord, read_run, without_non_finite

REWARD_MODEL_KEYS = ("accuracy", "accuracy_ci95", "ceiling", "pairs")
POLICY_KEYS = ("reward_start", "reward_end", "kl", "kl_sequence", "steps", "reward_source")
PAIR_KEYS = ("win_rate", "tie_rate", "loss_rate", "win_rate_ci95")


def build(run_folder: str | Path) -> dict[str, Any]:
    """Build a run's summary and write it to `summary.json` in the run folder, atomically.

    Args:
        run_folder: folder of a run, finished or not.

    Returns:
        The summary as written: plain JSON values, numbers that are not finite as None.

    Raises:
        DataError: the folder does not exist, or a file in it cannot be read.
    """
    run = read_run(run_folder)
    summary = summarize(run)
    write_json(run.folder / "summary.json", summary)
    return summary


def summarize(run: RunRecord) -> dict[str, Any]:
    """The summary of a run that has been read, as `build` describes it; writes nothing."""
    summary = {
        "name": run.name,
        "seed": run.seed,
        "backend": _shared_backend(run.stages),
        "versions": {package: version for stage in run.stages for package, version in stage.versions.items()},
        "stages": {stage.name: _stage_figures(stage) for stage in run.stages},
        "reward_model": _final_figures(run.last_of_kind("reward_modeling"), REWARD_MODEL_KEYS),
        "policy": _final_figures(run.last_of_kind("policy_optimization"), POLICY_KEYS),
        "evaluation": _evaluation_figures(run),
    }
    return without_non_finite(summary)


def headline_pair(evaluation: dict[str, Any], policy_stages: list[str]) -> dict[str, Any] | None:
    """The pair of an evaluation that stands for it: the last compared policy-optimization stage against the baseline.

    Args:
        evaluation: contents of `evaluation.json`.
        policy_stages: names of the run's policy-optimization stages, in order.

    Returns:
        The entry of `pairs`; the first one against the baseline where no compared policy came from RL; None without pairs.
    """
    pairs = evaluation.get("pairs") or []
    baseline = evaluation.get("baseline")
    against_baseline = [pair for pair in pairs if pair.get("baseline") == baseline] or pairs
    from_rl = [pair for pair in against_baseline if pair.get("policy") in policy_stages]
    if from_rl:
        return from_rl[-1]
    return against_baseline[0] if against_baseline else None


def _stage_figures(stage: StageRecord) -> dict[str, Any]:
    return {
        "kind": stage.kind,
        "key": stage.key,
        "seconds": stage.seconds,
        "peak_memory_gib": stage.peak_memory_gib,
        "backend": stage.backend,
        "final": stage.final,
    }


def _final_figures(stage: StageRecord | None, keys: tuple[str, ...]) -> dict[str, Any]:
    final = stage.final if stage else {}
    return {"stage": stage.name if stage else None, **{key: final.get(key) for key in keys}}


def _evaluation_figures(run: RunRecord) -> dict[str, Any]:
    stage = run.last_of_kind("evaluation")
    evaluation = stage.evaluation if stage else {}
    pair = headline_pair(evaluation, [policy.name for policy in run.of_kind("policy_optimization")]) or {}
    policies = evaluation.get("policies") or {}
    return {
        "stage": stage.name if stage else None,
        "judge": evaluation.get("judge"),
        "prompts": evaluation.get("prompts"),
        "policy": pair.get("policy"),
        "baseline": pair.get("baseline"),
        **{key: pair.get(key) for key in PAIR_KEYS},
        "seen_elsewhere": evaluation.get("seen_elsewhere"),
        "reference": evaluation.get("reference"),
        "pairs": evaluation.get("pairs") or [],
        "gold_parts": {name: figures["gold_parts"] for name, figures in policies.items() if figures.get("gold_parts")},
        "policies": {name: {key: figures[key] for key in figures if key != "gold_parts"} for name, figures in policies.items()},
    }


def _shared_backend(stages: list[StageRecord]) -> str | None:
    """The backend of the run; where stages chose different ones, all of them, joined by commas."""
    backends = list(dict.fromkeys(stage.backend for stage in stages if stage.backend))
    return ", ".join(backends) if backends else None
