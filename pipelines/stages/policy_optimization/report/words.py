"""What the report says about policies in training, in words."""

import statistics
from typing import Any

from pipelines.report import format as report_format
from pipelines.report.format import number, percent
from pipelines.report.records import StageRecord, is_finite_number
from pipelines.stages.policy_optimization.config import MOST_TOKEN_DEVIATION

DRIFTS = (
    ("completions/mean_length", "a response went from {} to {} tokens", number),
    ("completions/clipped_ratio", "those without an end from {} to {}", percent),
    ("entropy", "the entropy from {} to {} nats a token", number),
    ("completions/distinct_bigrams", "distinct pairs of neighbouring tokens in a rollout from {} to {}", percent),
    ("completions/equal_pairs", "equal answers among those to a prompt from {} to {}", percent),
    ("frac_reward_zero_std", "prompts whose answers all earn the same, which teach nothing, from {} to {}", percent),
)
"""Metric of a rollout, what is said of its change, and how a value is written."""


def overoptimization_words(stage: StageRecord) -> str | None:
    """Whether the gold reward fell below its own earlier peak while the training reward went on rising; None without a
    gold curve."""
    rows = sorted((row for row in stage.metrics if is_finite_number(row.get("eval_gold"))), key=lambda row: row["step"])
    if len(rows) < 2:
        return None
    # The last of equal peaks: a curve that stays flat has not fallen.
    peak, last = max(reversed(rows), key=lambda row: row["eval_gold"]), rows[-1]
    rise = _rise_and_correlation(rows)
    if peak is last:
        gold = _gold(last, looks=1)
        return f"{stage.name}: {rise}Gold was highest at the last step ({gold}): no sign of over-optimization."
    looks = len(rows)
    (_, now), (then, _) = _widened(last, looks), _widened(peak, looks)
    clearly = now is not None and then is not None and now < then
    judged = (
        "the intervals do not overlap, so the reward was over-optimized."
        if clearly
        else "the fall is within the intervals, so it may be chance."
    )
    return (
        f"{stage.name}: {rise}Gold peaked at step {peak['step']} ({_gold(peak, looks)}) and ended at "
        f"{_gold(last, looks)}, intervals widened for the peak of {looks} looks; {judged}"
    )


def _rise_and_correlation(rows: list[dict[str, Any]]) -> str:
    """How far the training reward rose, and whether it still tells good responses from others by the end."""
    rewards = [row["eval_reward"] for row in rows if is_finite_number(row.get("eval_reward"))]
    if len(rewards) < 2:
        return ""
    rise = f"The training reward went from {number(rewards[0])} to {number(rewards[-1])}. "
    along = [value for row in rows if is_finite_number(value := row.get("eval_reward_gold_correlation"))]
    if len(along) < 2:
        return rise
    return f"{rise}Among responses its rank correlation with gold went from {number(along[0])} to {number(along[-1])}. "


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
    return f"{name}: {' '.join(parts)}.{_sampler_words(figures)}{warning}"


def drift_words(stage: StageRecord) -> str:
    """How what a policy says changed while it learned, as a hacked reward often shows there first: length, entropy, and
    how much is said twice; empty where no rollout was logged. Means over the first and the last tenth of the steps."""
    rows = [row for row in stage.metrics if is_finite_number(row.get("completions/mean_length"))]
    tenth = max(1, len(rows) // 10)
    found = []
    for metric, words, shown in DRIFTS:
        first, last = (
            [value for row in part if is_finite_number(value := row.get(metric))]
            for part in (rows[:tenth], rows[-tenth:])
        )
        if first and last:
            found.append(words.format(*(shown(statistics.fmean(values)) for values in (first, last))))
    return f"From the first to the last tenth of its steps {'; '.join(found)}." if found else ""


def _sampler_words(figures: dict[str, Any]) -> str:
    """What it cost that another than the policy drew the rollouts; nothing where that was not measured."""
    distance = figures.get("sampling_kl")
    if not is_finite_number(distance):
        return ""
    copy = figures.get("rollout_dtype")
    sampler = "Its sampler" if copy is None else f"A copy with weights in {copy} drew its rollouts; that sampler"
    truncated = figures.get("importance_truncated")
    correction = (
        f"and importance weights correct for it, truncated at {percent(truncated)} of the tokens"
        if is_finite_number(truncated)
        else "and nothing corrects for it"
    )
    return f" {sampler} lay {number(distance)} nats a token from the policy, {correction}."


def _widened(row: dict[str, Any], looks: int) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of gold, each end as much further from the mean as one of `looks` of a normal figure has to be
    for all to hold at once (Bonferroni 1936): the highest of many looks is high by chance as well."""
    ends = row.get("eval_gold_ci95_low"), row.get("eval_gold_ci95_high")
    if not all(map(is_finite_number, ends)):
        return None, None
    normal, mean = statistics.NormalDist(), row["eval_gold"]
    factor = normal.inv_cdf(1 - 0.025 / looks) / normal.inv_cdf(0.975)
    low, high = (mean + factor * (end - mean) for end in ends)
    return low, high


def _gold(row: dict[str, Any], looks: int) -> str:
    bounds = report_format.interval(list(_widened(row, looks)))  # type: ignore[arg-type]
    return f"{number(row['eval_gold'])} {bounds}".strip()
