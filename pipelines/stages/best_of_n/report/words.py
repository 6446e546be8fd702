"""What the report says about best of n, in words."""

from collections.abc import Mapping
from typing import Any

from pipelines.report import format as report_format
from pipelines.report.format import number
from pipelines.report.records import StageRecord, is_finite_number


def best_words(curve: list[dict[str, Any]]) -> str | None:
    """What the best of n reaches, and from where; None without a gold reward."""
    points = sorted((point for point in curve if "gold" in point), key=lambda point: point["n"])
    if not points:
        return None
    one, best = points[0], points[-1]
    return (
        f"Best of {best['n']} reaches gold {_with_bounds(best['gold'])} at no more than {number(best['kl_bound'])} "
        f"nats a response and without training, where best of {one['n']} has {_with_bounds(one['gold'])}."
    )


def evaluated_words(policies: Mapping[str, dict[str, Any]]) -> str:
    """The same of the policies of an evaluation, the starting model among them: its prompts may be easier or harder."""
    short = report_format.short_names(policies)
    each = (
        f"{short[name]} {_with_bounds(policy['gold'])} at {number(policy['kl_sequence'])} nats"
        for name, policy in policies.items()
    )
    return f"On the prompts of the evaluation gold is, with the KL a response: {', '.join(each)}."


def training_words(stage: StageRecord) -> str | None:
    """Where a trained policy ended, for runs without an evaluation; None without a gold reward."""
    rows = [row for row in stage.metrics if is_finite_number(row.get("eval_gold"))]
    if not rows:
        return None
    last = max(rows, key=lambda row: row["step"])
    gold = {"mean": last["eval_gold"], "ci95": [last.get(f"eval_gold_ci95_{end}") for end in ("low", "high")]}
    return (
        f"{stage.name} ended at {_with_bounds(gold)} and {number(last['eval_kl_sequence'])} nats, on its own held-out "
        "prompts."
    )


def _with_bounds(figure: dict[str, Any]) -> str:
    return f"{number(figure['mean'])} {report_format.interval(figure.get('ci95'))}".rstrip()
