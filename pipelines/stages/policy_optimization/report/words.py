"""What the report says about policies in training, in words."""

from typing import Any

from pipelines.report import format as report_format
from pipelines.report.format import number
from pipelines.report.records import StageRecord, is_finite_number
from pipelines.stages.policy_optimization.config import MOST_TOKEN_DEVIATION


def overoptimization_words(stage: StageRecord) -> str | None:
    """Whether the gold reward fell below its own earlier peak while the training reward went on rising; None without a
    gold curve."""
    rows = sorted((row for row in stage.metrics if is_finite_number(row.get("eval_gold"))), key=lambda row: row["step"])
    if len(rows) < 2:
        return None
    # The last of equal peaks: a curve that stays flat has not fallen.
    peak, last = max(reversed(rows), key=lambda row: row["eval_gold"]), rows[-1]
    learned = [row["eval_reward"] for row in rows if is_finite_number(row.get("eval_reward"))]
    rise = f"The training reward went from {number(learned[0])} to {number(learned[-1])}. " if len(learned) > 1 else ""
    if peak is last:
        return f"{stage.name}: {rise}Gold was highest at the last step ({_gold(last)}): no sign of over-optimization."
    now, then = _bound(last, "high"), _bound(peak, "low")
    clearly = is_finite_number(now) and is_finite_number(then) and now < then
    judged = (
        "the intervals do not overlap, so the reward was over-optimized."
        if clearly
        else "the fall is within the intervals, so it may be chance."
    )
    return (
        f"{stage.name}: {rise}Gold peaked at step {peak['step']} ({_gold(peak)}) and ended at {_gold(last)}; {judged}"
    )


def policy_words(name: str, figures: dict[str, Any]) -> str:
    """What a policy stage with these final figures did: the reward before and after, how far the policy moved, and
    whether its log-probabilities were sound."""
    parts = []
    if is_finite_number(figures.get("reward_start")) and is_finite_number(figures.get("reward_end")):
        parts.append(f"the reward went from {number(figures['reward_start'])} to {number(figures['reward_end'])}")
    if is_finite_number(figures.get("steps")):
        parts.append(f"in {number(figures['steps'])} steps")
    if is_finite_number(figures.get("kl_sequence")):
        parts.append(
            f"at a distance of {number(figures['kl_sequence'])} nats a response from the model it started from"
        )
    if not parts:
        return f"{name} wrote no final figures."
    deviation = figures.get("ratio_deviation_token")
    warning = ""
    if is_finite_number(deviation) and deviation > MOST_TOKEN_DEVIATION:
        warning = (
            f" Warning: before anything was learned from a rollout the ratio of a token lay {number(deviation)} from 1 "
            f"in the mean, over {MOST_TOKEN_DEVIATION:g}: the log-probabilities that it learned from are that noisy."
        )
    return f"{name}: {' '.join(parts)}.{warning}"


def _bound(row: dict[str, Any], end: str) -> float | None:
    return row.get(f"eval_gold_ci95_{end}")


def _gold(row: dict[str, Any]) -> str:
    bounds = report_format.interval([_bound(row, "low"), _bound(row, "high")])  # type: ignore[list-item]
    return f"{number(row['eval_gold'])} {bounds}".strip()
