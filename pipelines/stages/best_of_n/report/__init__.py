"""What best-of-n stages add to summary and report.

Looked at in `final.json`: `curve` (`n`, `kl_bound`, `reward` and `gold` with `mean` and `ci95`), `samples_per_prompt`,
`responses`, `reward_source`. In `metrics.jsonl` of stages that train a policy: `eval_kl_sequence` with `eval_reward`
and `eval_gold`, to which the curve is compared. In `evaluation.json`, where its `reference` is the model that is
sampled: `kl_sequence` and `gold` of each policy.

Added to the summary: `best_of_n.{stage, samples_per_prompt, responses, curve, reward_source}`, of the last such stage.
"""

from pathlib import Path
from typing import Any

from pipelines.report.parts import Figures, KindReport, Section, final_figures
from pipelines.report.records import RunRecord, is_finite_number
from pipelines.stages.best_of_n.report import figures as draw
from pipelines.stages.best_of_n.report.words import best_words, evaluated_words, training_words

KIND = "best_of_n"
KEYS = ("samples_per_prompt", "responses", "curve", "reward_source")


def _summarize(run: RunRecord) -> Figures:
    return {"best_of_n": final_figures(run, KIND, KEYS)}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any]:
    curve = figures["best_of_n"]["curve"] or []
    trained = [stage for stage in run.stages if stage.series("eval_kl_sequence")[0]]
    evaluated = _evaluated(run)
    beside = [evaluated_words(evaluated)] if evaluated else [training_words(stage) for stage in trained]
    best = best_words(curve)
    return {
        "curve": curve,
        "findings": [words for words in (best, *beside) if words] if best else [],
        "drawings": draw.against_kl(curve, trained, evaluated),
    }


def _evaluated(run: RunRecord) -> dict[str, Any]:
    """Of the last evaluation, the policies with gold and a KL that is to the model which is sampled here."""
    stage, evaluation = run.last_of_kind(KIND), run.last_of_kind("evaluation")
    if stage is None or evaluation is None or evaluation.evaluation.get("reference") != stage.config.get("from"):
        return {}
    return {
        name: policy
        for name, policy in (evaluation.evaluation.get("policies") or {}).items()
        if is_finite_number(policy.get("kl_sequence")) and is_finite_number((policy.get("gold") or {}).get("mean"))
    }


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    sections=(Section("best_of_n", "Best of n", Path(__file__).with_name("best_of_n.html.j2"), _section),),
)
