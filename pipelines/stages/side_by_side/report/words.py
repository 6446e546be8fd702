"""What the report says about a side by side, in words."""

from collections.abc import Mapping
from typing import Any

from pipelines.report.format import interval, number, percent, short_names
from pipelines.report.records import is_finite_number

_HOW = {
    ("likelihood", "both"): "It was asked for a label in both orders, and compared the chances of the two.",
    ("likelihood", "shuffled"): "It was asked for a label in an order that was drawn.",
    ("reasoning", "both"): "It wrote what it thought and then a verdict, in both orders.",
    ("reasoning", "shuffled"): "It wrote what it thought and then a verdict, in an order that was drawn.",
}
_LARGE_BIAS = 0.3
_FAMILY = "gemma"
CHOSEN = "chosen"  # the answers of rows, whoever wrote them
RULES = ("longest", "shortest", "random")


def judge_words(found: Mapping[str, Any]) -> str:
    """Who judged, how, and what that means for the figures."""
    judge = judge_name(found)
    if judge in RULES:
        return f"The judge is the rule “{judge}”, which reads nothing: a figure to compare others with."
    said = f"The judge is {judge}. {_HOW.get((found['answer'], found['order']), '')}"
    if found["order"] == "both":
        said += " A pair is won where both orders say so; contradicting ones are a tie."
    policies = [one["policy"] for one in found["comparisons"] or [] if one["policy"] != CHOSEN]
    is_gemma = _FAMILY in judge.lower() or " at " not in judge  # a model that runs here is one
    if policies and is_gemma:
        said += (
            " It is of the family of what it judges, whose texts judges favour (Panickssery et al. 2024, 2404.13076)."
        )
    return said


def judge_name(found: Mapping[str, Any]) -> str:
    """Of a model's folder or file the part that tells it; an endpoint as it is."""
    judge = str(found["judge"])
    return judge if " at " in judge else short_names([judge])[judge]


def verdict_words(found: Mapping[str, Any]) -> str | None:
    """The last policy against the first, as a headline; None where a rule judged, which reads nothing, or rows."""
    compared = [one for one in found["comparisons"] or [] if one["policy"] != CHOSEN]
    if not compared or judge_name(found) in RULES:
        return None
    one = compared[-1]
    figures, short = one["sets"]["all"], short_names([one["policy"], one["baseline"]])
    ends = interval(figures["win_rate_ci95"], as_percent=True)
    return (
        f"{short[one['policy']]} has a win rate of {percent(figures['win_rate'])} {ends} against "
        f"{short[one['baseline']]} on {number(figures['pairs'])} prompts, says {judge_name(found)}"
    )


def health_words(one: Mapping[str, Any]) -> str:
    """How far the judge's verdicts hang on what they should not."""
    figures = one["sets"]["all"]
    said = []
    bias = figures.get("position_bias")
    if is_finite_number(bias) and abs(bias) > _LARGE_BIAS:
        place = "first" if bias > 0 else "second"
        said.append(f"It prefers whichever answer is shown {place}, so the win rate says little.")
    if is_finite_number(figures.get("contradictions")) and figures["contradictions"] > 0:
        said.append(
            f"{percent(figures['contradictions'])} of the pairs asked in both orders had contradicting verdicts."
        )
    if one["unreadable"]:
        said.append(f"{_count(one['unreadable'], 'answer')} without a verdict counted as a tie.")
    if one["too_long"]:
        said.append(f"{_count(one['too_long'], 'question')} too long for it counted as a tie.")
    if figures.get("identical"):
        said.append(f"{_count(figures['identical'], 'pair')} with equal answers counted as a tie, unasked.")
    return " ".join(said)


def people_words(one: Mapping[str, Any]) -> str:
    """Whether the judge agrees with people better than a rule that reads nothing; empty without people."""
    people = one["sets"]["all"].get("people")
    if not people:
        return ""
    agreement = people["agreement"]
    best = max(RULES, key=lambda rule: agreement[rule]["agreement"])
    judge, rule = agreement["judge"], agreement[best]
    low, high = judge["agreement_ci95"]
    if low > rule["agreement"]:
        relation = "more often than"
    elif high < rule["agreement"]:
        relation = "less often than"
    else:
        relation = "no more often, for all that can be told, than"
    return (
        f"The judge agrees with people on {percent(judge['agreement'])} of {number(judge['pairs'])} pairs, {relation} "
        f"the rule “{best}” ({percent(rule['agreement'])}), which reads nothing."
    )


def _count(count: int, what: str) -> str:
    return f"{number(count)} {what}{'' if count == 1 else 's'}"
