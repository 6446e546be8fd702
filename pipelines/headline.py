"""The few figures that a finished run prints, as aligned lines."""

from typing import Any

from pipelines.progress import duration


def lines(summary: dict[str, Any]) -> list[str]:
    """A short table from a run's summary.

    Args:
        summary: as in `summary.json`; figures that are missing or null are left out.

    Returns:
        Lines of "name  value", aligned.
    """
    rows = [(name, _stage(figures)) for name, figures in summary.get("stages", {}).items()]
    reward = summary.get("reward_model") or {}
    if _is_number(reward.get("accuracy")):
        ceiling = f", ceiling {reward['ceiling']:.3f}" if _is_number(reward.get("ceiling")) else ""
        rows.append(("reward model accuracy", f"{reward['accuracy']:.3f}{_interval(reward.get('accuracy_ci95'))}{ceiling}"))
    policy = summary.get("policy") or {}
    if _is_number(policy.get("reward_start")) and _is_number(policy.get("reward_end")):
        rows.append(("reward", f"{policy['reward_start']:.3f} -> {policy['reward_end']:.3f}"))
    if _is_number(policy.get("kl_sequence")):
        rows.append(("KL a response", f"{policy['kl_sequence']:.3f} nats"))
    evaluation = summary.get("evaluation") or {}
    if _is_number(evaluation.get("win_rate")):
        pair = f"{evaluation.get('policy')} against {evaluation.get('baseline')}, judge {evaluation.get('judge')}"
        rows.append(("win rate", f"{evaluation['win_rate']:.3f}{_interval(evaluation.get('win_rate_ci95'))}, {pair}"))
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in rows]


def _stage(figures: dict[str, Any]) -> str:
    parts = []
    if _is_number(figures.get("seconds")):
        parts.append(duration(figures["seconds"]))
    if _is_number(figures.get("peak_memory_gib")):
        parts.append(f"{figures['peak_memory_gib']:.2f} GiB")
    return ", ".join(parts) or "finished"


def _interval(ends: Any) -> str:
    if isinstance(ends, list) and len(ends) == 2 and all(_is_number(end) for end in ends):
        return f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
