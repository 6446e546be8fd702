"""What an evaluation adds to summary and report.

`evaluation.json` of the stage has this shape (numbers may be null where they do not apply):

```
{"judge": "gold", "prompts": 512, "baseline": "sft", "reference": "sft",
 "seen_elsewhere": {"sft": {"same_text": 0, "same_content": 0}},
 "pairs": [{"policy": "policy", "baseline": "sft", "win_rate": 0.71, "tie_rate": 0.2, "loss_rate": 0.19,
            "win_rate_ci95": [0.68, 0.74],
            "difference": {"gold": {"mean": 0.11, "ci95": [0.09, 0.13]}, "judge_score": {...}, "accuracy": {...},
                           "gold_parts": {"right": {"mean": 0.02, "ci95": [0.0, 0.04]}}}}],
 "policies": {"policy": {"gold": {"mean": 0.8, "ci95": [0.78, 0.82]},
                         "gold_parts": {"right": {"mean": 0.9, "ci95": [0.88, 0.92]}},
                        "judge_score": {"mean": 0.8, "ci95": [0.78, 0.82]},
                        "judge_parts": {"first": {"mean": 0.9, "ci95": [0.87, 0.93]}}, "kl": 0.02, "kl_sequence": 0.3,
                        "accuracy": 0.8, "accuracy_ci95": [0.77, 0.83], "perplexity": 1.4, "mean_length": 11.2,
                        "finished": 0.99}}}
```

`win_rate` is wins + ties/2 of `policy` against `baseline`, `loss_rate` and `tie_rate` are shares of prompts,
`difference` is `policy` minus `baseline` on the same prompts, of what was measured of both; `kl` is the mean over
tokens and `kl_sequence` the sum over a response, in nats, to `reference`; `accuracy` is null where the
data has no answers; `gold` and `gold_parts` are left out (or empty) where there is no gold reward; `judge_parts`, the
members' scores and `ensemble_std`, is there where an ensemble judges, of which `judge` names them all and says how they
are combined: "minimum of reward_model:first, reward_model:second". `pairs` holds every
pair of compared policies once, the earlier in `compare` as baseline. The order of `policies` is the order of `compare`.
`seen_elsewhere`: policy, or reward model that judges, to how many of the prompts it or a model that it came from was
trained on, by content and letter by letter (null where that is not known).

Added to the summary, of the last such stage: `evaluation.{stage, judge, prompts, seen_elsewhere, reference, pairs,
policies.<policy>.*, gold_parts.<policy>.<part>.{mean, ci95}}`, `trained_on_judge` (see `judge.trained_on`) and, of the
pair that stands for the run (`headline_pair`), `{policy, baseline, win_rate, tie_rate, loss_rate, win_rate_ci95,
difference}`.
"""

from pathlib import Path
from typing import Any

from pipelines.report.format import short_names
from pipelines.report.headline import interval
from pipelines.report.parts import Figures, KindReport, Section, Tile, look_up
from pipelines.report.records import RunRecord, is_finite_number
from pipelines.report.win_rates import win_rates
from pipelines.schema.ensembles import ENSEMBLE_STD
from pipelines.stages.evaluation.report import figures as draw
from pipelines.stages.evaluation.report.judge import judge_sentence, judge_words, trained_on
from pipelines.stages.evaluation.report.over_seeds import POLICIES, over_seeds
from pipelines.stages.evaluation.report.words import (
    counts_right_answers,
    difference_words,
    overlap_words,
    part_words,
    share_words,
    verdict,
)
from pipelines.stages.registry import KINDS

KIND = "evaluation"
PAIR_KEYS = ("win_rate", "tie_rate", "loss_rate", "win_rate_ci95", "difference")

POLICY_COLUMNS = [
    ("gold reward", "number", ("gold", "mean"), "interval", ("gold", "ci95")),
    ("judge's score", "number", ("judge_score", "mean"), "interval", ("judge_score", "ci95")),
    ("right answers", "percent", ("accuracy",), "percent_interval", ("accuracy_ci95",)),
    ("KL a token", "number", ("kl",), "", ()),
    ("KL a response", "number", ("kl_sequence",), "", ()),
    ("perplexity", "number", ("perplexity",), "", ()),
    ("tokens a response", "number", ("mean_length",), "", ()),
    ("came to an end", "percent", ("finished",), "", ()),
]
"""Of each compared policy: heading, format and place of the figure, format and place of its interval."""

DIFFERENCES = [("gold reward", ("gold",)), ("judge's score", ("judge_score",)), ("right answers", ("accuracy",))]
"""Of each pair: heading and place below `difference`; the parts of gold follow."""


def headline_pair(evaluation: dict[str, Any], policy_stages: list[str]) -> dict[str, Any] | None:
    """The pair of an evaluation that stands for it: the last compared policy-optimization stage against the baseline.

    Args:
        evaluation: contents of `evaluation.json`.
        policy_stages: names of the run's policy-optimization stages, in order.

    Returns:
        The entry of `pairs`; the first one against the baseline where no compared policy came from RL; None without
        pairs.
    """
    pairs = evaluation.get("pairs") or []
    baseline = evaluation.get("baseline")
    against_baseline = [pair for pair in pairs if pair.get("baseline") == baseline] or pairs
    from_rl = [pair for pair in against_baseline if pair.get("policy") in policy_stages]
    if from_rl:
        return from_rl[-1]
    return against_baseline[0] if against_baseline else None


def _summarize(run: RunRecord) -> Figures:
    stage = run.last_of_kind(KIND)
    evaluation = stage.evaluation if stage else {}
    pair = (
        headline_pair(evaluation, [one.name for one in run.stages if one.kind in KINDS and KINDS[one.kind].is_headline])
        or {}
    )
    policies = evaluation.get("policies") or {}
    found = {
        "stage": stage.name if stage else None,
        "judge": evaluation.get("judge"),
        "prompts": evaluation.get("prompts"),
        "policy": pair.get("policy"),
        "baseline": pair.get("baseline"),
        **{key: pair.get(key) for key in PAIR_KEYS},
        "trained_on_judge": trained_on(evaluation.get("judge") or "", list(policies), run.stages),
        "seen_elsewhere": evaluation.get("seen_elsewhere"),
        "reference": evaluation.get("reference"),
        "pairs": evaluation.get("pairs") or [],
        "gold_parts": {name: figures["gold_parts"] for name, figures in policies.items() if figures.get("gold_parts")},
        "policies": {
            name: {key: figures[key] for key in figures if key != "gold_parts"} for name, figures in policies.items()
        },
    }
    return {"evaluation": found}


def _section(run: RunRecord, figures: Figures) -> dict[str, Any]:
    found = figures["evaluation"]
    totals = {name: policy.get("gold") for name, policy in found["policies"].items()}
    return {
        "overlap_words": overlap_words(found),
        "judge_sentence": judge_sentence(found["judge"], found["trained_on_judge"]),
        "policy_columns": _policy_columns(found),
        "difference_columns": _difference_columns(found),
        "rates_drawings": win_rates(found["pairs"]),
        "gold_drawings": draw.gold_parts(found["gold_parts"], totals),
    }


def _policy_columns(found: dict[str, Any]) -> list[tuple]:
    """Those of `POLICY_COLUMNS` in which a policy has a figure, and the members' scores of a judging ensemble; the gold
    judge's score is the gold reward and is not shown twice."""
    parts = dict.fromkeys(part for policy in found["policies"].values() for part in policy.get("judge_parts") or {})
    of_judge = [
        (
            "members' deviation" if part == ENSEMBLE_STD else f"{part}'s score",
            "number", ("judge_parts", part, "mean"), "interval", ("judge_parts", part, "ci95"),
        )
        for part in parts
    ]  # fmt: skip
    return [
        column
        for column in [*POLICY_COLUMNS[:2], *of_judge, *POLICY_COLUMNS[2:]]
        if any(look_up(policy, column[2]) is not None for policy in found["policies"].values())
        and not (found["judge"] == "gold" and column[2][0] == "judge_score")
    ]


def _difference_columns(found: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Those of `DIFFERENCES` that a pair has, and the parts of gold; the gold judge's score as in `_policy_columns`."""
    pairs = [pair.get("difference") or {} for pair in found["pairs"]]
    parts = dict.fromkeys(part for pair in pairs for part in pair.get("gold_parts") or {})
    return [
        (heading, path)
        for heading, path in [*DIFFERENCES, *((part, ("gold_parts", part)) for part in parts)]
        if any(look_up(pair, path) for pair in pairs) and not (found["judge"] == "gold" and path == ("judge_score",))
    ]


def _tiles(figures: Figures) -> list[Tile]:
    found, pair = figures["evaluation"], ""
    if found["policy"]:
        pair = ", {} vs {}".format(*short_names([str(found["policy"]), str(found["baseline"])]).values())
    gold = ("evaluation", "difference", "gold")
    if counts_right_answers(found):
        names = short_names([found["policy"], found["baseline"]])
        right = ("evaluation", "difference", "accuracy")
        return [
            *(
                Tile(f"right answers, {short}", "percent", (*POLICIES, name, "accuracy"),
                    (*POLICIES, name, "accuracy_ci95"))
                for name, short in names.items()
            ),
            Tile(f"difference{pair}", "signed", (*right, "mean"), (*right, "ci95")),
        ]  # fmt: skip
    return [
        Tile(f"gold{pair}", "signed", (*gold, "mean"), (*gold, "ci95")),
        Tile(f"win rate{pair}", "percent", ("evaluation", "win_rate"), ("evaluation", "win_rate_ci95")),
    ]


def _lines(figures: Figures) -> list[tuple[str, str]]:
    found = figures["evaluation"]
    if not is_finite_number(found["win_rate"]):
        return []
    pair = f"{found['policy']} against {found['baseline']}"
    if counts_right_answers(found):
        shares = (f"{name} {share_words(found, name)}" for name in (found["policy"], found["baseline"]))
        prompts = f" of {found['prompts']:,} prompts" if found["prompts"] else ""
        return [
            ("right answers", f"{', '.join(shares)}{prompts}"),
            ("difference", f"{difference_words(found, 'accuracy')}, {pair}"),
        ]
    judge = judge_words(found["judge"], found["trained_on_judge"].get(found["policy"]), found["policy"])
    lines = [("win rate", f"{found['win_rate']:.3f}{interval(found['win_rate_ci95'])}, {pair}, judged by {judge}")]
    gold = (found["difference"] or {}).get("gold") or {}
    if is_finite_number(gold.get("mean")):
        lines.append(("gold", f"{gold['mean']:+.3f}{interval(gold.get('ci95'))}, {pair}"))
    if parts := part_words(found, with_intervals=True):
        lines.append(("gold's parts", parts))
    return lines


REPORT = KindReport(
    kind=KIND,
    summarize=_summarize,
    color="--good",
    sections=(Section("win_rates", "Win rates", Path(__file__).with_name("win_rates.html.j2"), _section),),
    tiles=_tiles,
    lines=_lines,
    over_seeds=over_seeds,
    verdict=verdict,
)
