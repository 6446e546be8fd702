"""What of an evaluation is compared over seeds: first the pair that the headline names, then the others, then each
policy by itself."""

from collections.abc import Iterator
from typing import Any

from pipelines.report.format import short_names
from pipelines.report.parts import Figures, SeedFigure
from pipelines.stages.evaluation.report.words import counts_right_answers

POLICIES = ("evaluation", "policies")
PARTS = ("evaluation", "gold_parts")


def over_seeds(figures: Figures) -> list[SeedFigure]:
    """The gold reward and its parts, the win rate, the KL and the right answers; of pairs their differences."""
    found = figures["evaluation"]
    short = short_names(map(str, found["policies"]))
    pairs = list(enumerate(found["pairs"]))
    pairs.sort(key=lambda one: (one[1]["policy"], one[1]["baseline"]) != (found["policy"], found["baseline"]))
    rows = [row for number, pair in pairs for row in _pair(number, pair, found, short)]
    return rows + [row for name in found["policies"] for row in _policy(name, found, short[name])]


def _pair(number: int, pair: dict[str, Any], found: dict[str, Any], short: dict[str, str]) -> Iterator[SeedFigure]:
    policy, baseline = pair["policy"], pair["baseline"]
    names, stage = f"{short[policy]} minus {short[baseline]}", found["stage"]
    is_other = (policy, baseline) != (found["policy"], found["baseline"])
    gold = [(*POLICIES, name, "gold", "mean") for name in (policy, baseline)]
    yield SeedFigure(f"{names}: gold reward", "number", stage, gold[0], gold[1], 0.0, is_other)
    for part in () if is_other else found["gold_parts"].get(policy, ()):
        paths = [(*PARTS, name, part, "mean") for name in (policy, baseline)]
        yield SeedFigure(f"{names}: gold, {part}", "number", stage, paths[0], paths[1], 0.0, is_detail=True)
    is_of_right = counts_right_answers(found)
    if is_of_right:
        right = [(*POLICIES, name, "accuracy") for name in (policy, baseline)]
        yield SeedFigure(f"{names}: right answers", "number", stage, right[0], right[1], 0.0, is_other)
    label = f"{short[policy]} against {short[baseline]}: win rate"
    path = ("evaluation", "pairs", number, "win_rate")
    yield SeedFigure(label, "percent", stage, path, middle=0.5, is_detail=is_other or is_of_right)


def _policy(name: str, found: dict[str, Any], short: str) -> Iterator[SeedFigure]:
    stage = found["stage"]
    yield SeedFigure(f"{short}: gold reward", "number", stage, (*POLICIES, name, "gold", "mean"))
    for part in found["gold_parts"].get(name, ()):
        yield SeedFigure(f"{short}: gold, {part}", "number", stage, (*PARTS, name, part, "mean"), is_detail=True)
    yield SeedFigure(f"{short}: right answers", "percent", stage, (*POLICIES, name, "accuracy"))
    if name != found["reference"]:
        yield SeedFigure(f"{short}: KL a response, nats", "number", stage, (*POLICIES, name, "kl_sequence"))
