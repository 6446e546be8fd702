"""What the report says in words: the verdict at its top and a sentence for each section, derived from the summary's figures."""

from collections.abc import Sequence
from typing import Any

from pipelines import report_format
from pipelines.report_format import number, percent
from pipelines.run_reader import StageRecord, is_finite_number

LOSS_KINDS = ("pretraining", "instruction_tuning", "reward_modeling")
NO_STAGE = {
    "chain": "No stage of this run has finished yet, so there is nothing to draw.",
    "losses": "This run has no finished stage that logged a loss.",
    "reward_model": "This run trained no reward model.",
    "policy": "This run has no policy optimization.",
    "overoptimization": "This run measured no reward on held-out prompts during policy optimization, so there is nothing to compare.",
    "win_rates": "This run has no finished evaluation.",
    "samples": "No stage of this run kept samples.",
    "config": "The workflow of this run was not kept.",
    "versions": "No finished stage wrote the versions it ran with.",
}


def judge_words(judge: str | None) -> str:
    """A judge for readers: `gold` → `the gold judge`, `reward_model:reward` → `the reward model “reward”`."""
    if not judge:
        return "the judge"
    kind, _, name = judge.partition(":")
    if kind == "reward_model" and name:
        return f"the reward model “{name}”"
    if kind == "function" and name:
        return f"the function “{name}”"
    return f"the {judge.replace('_', '-')} judge"


def verdict(summary: dict[str, Any]) -> str:
    """The headline: who won, by how much, on how many prompts; or what the run is without an evaluation."""
    evaluation = summary["evaluation"]
    if is_finite_number(evaluation["win_rate"]):
        rate = percent(evaluation["win_rate"], 0)
        bounds = report_format.interval(evaluation["win_rate_ci95"], as_percent=True, digits=0)
        relation = _relation(evaluation["win_rate_ci95"])
        prompts = f" of {number(evaluation['prompts'])} prompts" if evaluation["prompts"] else ""
        figures = " ".join(part for part in (rate, bounds) if part)
        short = report_format.short_names([evaluation["policy"], evaluation["baseline"]])
        names = f"{short[evaluation['policy']]} {relation} {short[evaluation['baseline']]}"
        return f"{names} under {judge_words(evaluation['judge'])}: {figures}{prompts}"
    reward_model = summary["reward_model"]
    if is_finite_number(reward_model["accuracy"]):
        ceiling = f", where {percent(reward_model['ceiling'])} is possible" if is_finite_number(reward_model["ceiling"]) else ""
        return f"{reward_model['stage']} ranks {percent(reward_model['accuracy'])} of held-out pairs as the rater did{ceiling}"
    count = len(summary["stages"])
    return f"{count} {'stage' if count == 1 else 'stages'} finished; none compares policies" if count else "No stage has finished yet"


def overlap_words(evaluation: dict[str, Any]) -> str:
    """Whether the evaluation's prompts are new to the policies; empty where that is not known."""
    seen = evaluation.get("seen_elsewhere")
    if not isinstance(seen, dict) or not seen:
        return ""
    shared = ", ".join(f"{number(count)} with {name}" for name, count in seen.items() if count)
    return f"Some were seen before: they share {shared}." if shared else f"None of them is among the prompts of {', '.join(seen)}."


def reward_model_words(figures: dict[str, Any]) -> str:
    """Where the accuracy stands between chance and the ceiling."""
    accuracy, ceiling = figures.get("accuracy"), figures.get("ceiling")
    if not is_finite_number(accuracy):
        return "The stage measured no accuracy on held-out pairs."
    if not is_finite_number(ceiling):
        return f"It ranks {percent(accuracy)} of the held-out pairs as the rater did; the ceiling of these labels is not known."
    gap = 100 * (ceiling - accuracy)
    side = "below" if gap >= 0 else "above"
    return (
        f"It ranks {percent(accuracy)} of the held-out pairs as the rater did, {abs(gap):.1f} points {side} "
        f"the ceiling of {percent(ceiling)}, which a perfect model would reach on average because the rater is noisy."
    )


def overoptimization_words(stage: StageRecord) -> str | None:
    """Whether the gold reward fell below its own earlier peak while the training reward went on rising; None without a gold curve."""
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
    return f"{stage.name}: {rise}Gold peaked at step {peak['step']} ({_gold(peak)}) and ended at {_gold(last)}; {judged}"


def policy_words(name: str, figures: dict[str, Any]) -> str:
    """What a policy stage with these final figures did: the reward before and after, and how far the policy moved."""
    parts = []
    if is_finite_number(figures.get("reward_start")) and is_finite_number(figures.get("reward_end")):
        parts.append(f"the reward went from {number(figures['reward_start'])} to {number(figures['reward_end'])}")
    if is_finite_number(figures.get("steps")):
        parts.append(f"in {number(figures['steps'])} steps")
    if is_finite_number(figures.get("kl_sequence")):
        parts.append(f"at a distance of {number(figures['kl_sequence'])} nats a response from the model it started from")
    return f"{name}: {' '.join(parts)}." if parts else f"{name} wrote no final figures."


def _relation(bounds: Sequence[float] | None) -> str:
    if not bounds or not all(map(is_finite_number, bounds)):
        return "against"
    if bounds[0] > 0.5:
        return "beats"
    return "loses to" if bounds[1] < 0.5 else "is level with"


def _bound(row: dict[str, Any], end: str) -> float | None:
    return row.get(f"eval_gold_ci95_{end}")


def _gold(row: dict[str, Any]) -> str:
    bounds = report_format.interval([_bound(row, "low"), _bound(row, "high")])  # type: ignore[list-item]
    return f"{number(row['eval_gold'])} {bounds}".strip()
