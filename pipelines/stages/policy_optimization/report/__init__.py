"""What policies in training add to summary and report.

Looked at in `final.json`, all optional: `reward_start`, `reward_end`, `kl`, `kl_sequence`, `steps`, `reward_source`,
`ratio_deviation_token`, `rollout_dtype`, `sampling_kl`, `importance_truncated`. In `metrics.jsonl`, of training
`reward`, `kl_sequence`, `sampling_kl` and those of `words.DRIFTS`; on held-out prompts `eval_reward`, `eval_gold`,
their `_ci95_low` and `_ci95_high`, `eval_gold/<part>`, `eval_kl_sequence`.

Added to the summary: `policy.{stage, reward_start, reward_end, kl, kl_sequence, steps, reward_source}`, of the last
such stage.
"""

from pathlib import Path
from typing import Any

from pipelines.report.format import number
from pipelines.report.parts import Figures, KindReport, Section, SeedFigure, Tile, final_figures
from pipelines.report.records import RunRecord, is_finite_number
from pipelines.stages.policy_optimization.report import figures as draw
from pipelines.stages.policy_optimization.report.words import drift_words, overoptimization_words, policy_words

KIND = "policy_optimization"
KEYS = ("reward_start", "reward_end", "kl", "kl_sequence", "steps", "reward_source")
CURVES = (
    ("reward", "reward", "eval_reward"),
    ("kl_sequence", "KL to the starting model, nats a response", "eval_kl_sequence"),
    ("entropy", "entropy, nats a token", None),
    ("completions/mean_length", "length, tokens a response", "eval_completions/mean_length"),
    ("completions/equal_pairs", "equal answers among those to a prompt", None),
    ("sampling_kl", "KL of the sampler to the policy, nats a token", None),
)
"""Metric, label, and the same metric on held-out prompts."""


def _summarize(run: RunRecord) -> Figures:
    return {"policy": final_figures(run, KIND, KEYS)}


def _policy(run: RunRecord, figures: Figures) -> dict[str, Any]:
    policies = run.of_kind(KIND)
    drawings = (draw.policy_curve(policies, *curve) for curve in CURVES)
    return {
        "policies": policies,
        "policy_words": policy_words,
        "drift_words": drift_words,
        "drawings": [drawing for drawing in drawings if drawing],
    }


def _overoptimization(run: RunRecord, figures: Figures) -> dict[str, Any]:
    policies = run.of_kind(KIND)
    return {
        "findings": [words for words in map(overoptimization_words, policies) if words],
        "drawings": draw.overoptimization(policies),
        "gold_drawings": [drawing for drawing in map(draw.gold_part_curves, policies) if drawing],
    }


def _tiles(figures: Figures) -> list[Tile]:
    return [Tile(f"KL of {figures['policy']['stage']}, nats a response", "number", ("policy", "kl_sequence"))]


def _lines(figures: Figures) -> list[tuple[str, str]]:
    policy, found = figures["policy"], []
    if is_finite_number(policy["reward_start"]) and is_finite_number(policy["reward_end"]):
        found.append(("reward", f"{policy['reward_start']:.3f} -> {policy['reward_end']:.3f}"))
    if is_finite_number(policy["kl_sequence"]):
        found.append(("KL a response", f"{policy['kl_sequence']:.3f} nats"))
    distances = [
        (f"KL of {name}'s sampler", f"{number(distance)} nats a token")
        for name, stage in figures["stages"].items()
        if stage["kind"] == KIND and is_finite_number(distance := stage["final"].get("sampling_kl"))
    ]
    return found + distances


def _over_seeds(figures: Figures) -> list[SeedFigure]:
    """Of each policy of the run what it reached in training, and whether the gold reward rose."""
    found = []
    for name, stage in figures["stages"].items():
        if stage["kind"] == KIND:
            final = ("stages", name, "final")
            gold = (*final, "gold_end"), (*final, "gold_start")
            fall = (*final, "gold_end"), (*final, "gold_peak")
            found += [
                SeedFigure(f"{name} in training: gold reward, last minus first", "number", name, *gold, middle=0.0),
                # Never above 0, and below it by chance alone as well: the words of each seed's report judge the fall.
                SeedFigure(f"{name} in training: gold reward, last minus its peak", "number", name, *fall),
                SeedFigure(f"{name} in training: reward at the end", "number", name, (*final, "reward_end")),
                SeedFigure(f"{name} in training: KL a response, nats", "number", name, (*final, "kl_sequence")),
            ]
    return found


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--series-1",
    sections=(
        Section("policy", "Policy", Path(__file__).with_name("policy.html.j2"), _policy),
        Section(
            "overoptimization",
            "Over-optimization",
            Path(__file__).with_name("overoptimization.html.j2"),
            _overoptimization,
        ),
    ),
    tiles=_tiles,
    lines=_lines,
    over_seeds=_over_seeds,
)
