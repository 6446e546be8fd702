"""What best-of-n stages add to summary and report.

Looked at in `final.json`: `curve` (`n`, `kl_bound`, `reward` and `gold` with `mean` and `ci95`), `samples_per_prompt`,
`responses`, `reward_source`. In `metrics.jsonl` of stages that train a policy: `eval_kl_sequence` with `eval_reward`
and `eval_gold`, to which the curve is compared.

Added to the summary: `best_of_n.{stage, samples_per_prompt, responses, curve, reward_source}`, of the last such stage.
"""

from pathlib import Path
from typing import Any

from pipelines.report.parts import Figures, KindReport, Section, final_figures
from pipelines.report.records import RunRecord
from pipelines.stages.best_of_n.report import figures as draw
from pipelines.stages.best_of_n.report.words import comparison_words

KIND = "best_of_n"
KEYS = ("samples_per_prompt", "responses", "curve", "reward_source")


def _summarize(run: RunRecord) -> Figures:
    return {"best_of_n": final_figures(run, KIND, KEYS)}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any]:
    curve = figures["best_of_n"]["curve"] or []
    trained = [stage for stage in run.stages if stage.series("eval_kl_sequence")[0]]
    return {
        "curve": curve,
        "findings": [words for words in (comparison_words(curve, stage) for stage in trained) if words],
        "drawing": draw.against_kl(curve, trained),
    }


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    sections=(Section("best_of_n", "Best of n", Path(__file__).with_name("best_of_n.html.j2"), _section),),
)
