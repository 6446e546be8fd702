"""The figures of a stage as the rows of a table: one a benchmark, a column a model, published ones beside. Loads no
Keras."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report.format import interval, percent, short_names
from pipelines.report.records import is_finite_number
from pipelines.tasks.benchmarks import SUITES

Found = Mapping[str, Any]
SHARES = ("acc", "exact_match", "exact_answer", "right", "math_verify", "pass@", "pct_stereotype", "toxicity[")
"""How metrics begin that are shares."""


@dataclasses.dataclass(frozen=True)
class Mean:
    """Over the benchmarks of a suite that were measured.

    Args:
        suite: its name. values: by model, and by published model over the same benchmarks. of: how many it has.
        measured: how many are in the mean.
    """

    suite: str
    values: Mapping[str, float | None]
    measured: int
    of: int


def models_of(final: Found) -> dict[str, str]:
    """The models that were asked → how they are called beside each other."""
    return short_names(dict.fromkeys(one["model"] for one in final["benchmarks"]))


def by_benchmark(final: Found) -> list[dict[str, Any]]:
    """One row a benchmark: what is the same for all models, and `models`, model → its figures."""
    rows: dict[str, dict[str, Any]] = {}
    for one in final["benchmarks"]:
        row = rows.setdefault(one["benchmark"], {**one, "models": {}})
        if row["skipped"] and not one["skipped"]:
            row |= one
        row["models"][one["model"]] = one
    return list(rows.values())


def written(value: Any, metric: str | None) -> str:
    """A figure: of a share percent, of anything else the number."""
    if not is_finite_number(value):
        return "\N{EM DASH}"
    return percent(value) if (metric or "").startswith(SHARES) else f"{value:.3g}"


def with_interval(one: Found) -> str:
    """A figure and its interval; a dash where it was not measured."""
    if one.get("skipped"):
        return "\N{EM DASH}"
    is_share = one["metric"].startswith(SHARES)
    return f"{written(one['value'], one['metric'])} {interval(one['ci95'], is_share)}".rstrip()


def asked_how(row: Found) -> str:
    """Metric, examples and rows: `acc_norm, 10-shot, 500 of 10,042 rows`."""
    if row["skipped"]:
        return "not measured"
    rows = f"{row['rows']:,} rows" if row["rows"] == row["of_rows"] else f"{row['rows']:,} of {row['of_rows']:,} rows"
    return f"{row['metric']}, {row['shots']}-shot, {rows}"


def other_figures(final: Found) -> list[tuple[str, str, dict[str, str]]]:
    """What was measured beside the figure that counts: benchmark, figure, and of each model the value with its
    interval."""
    found = []
    for row in by_benchmark(final):
        of_models = {name: one for name, one in row["models"].items() if not one["skipped"]}
        for figure in dict.fromkeys(figure for one in of_models.values() for figure in one.get("others") or ()):
            texts = {}
            for name, one in of_models.items():
                value, ends = one["others"].get(figure), (one.get("others_ci95") or {}).get(figure)
                texts[name] = f"{written(value, figure)} {interval(ends, figure.startswith(SHARES))}".rstrip()
            found.append((row["benchmark"], figure, texts))
    return found


def notes(final: Found) -> list[str]:
    """What must be known before figures are compared, a sentence each."""
    found = []
    for row in by_benchmark(final):
        name = row["benchmark"]
        if row["skipped"]:
            found.append(f"{name} was not measured: {row['skipped']}")
            continue
        if row["note"]:
            found.append(f"{name}: {row['note']}.")
        cut = {one["model"]: one["cut_contexts"] for one in row["models"].values() if one.get("cut_contexts")}
        if cut:
            found.append(f"{name}: {max(cut.values()):,} contexts were too long and lost their beginning.")
        for one in row["models"].values():
            if one.get("seen_in_training"):
                found.append(
                    f"{name}: {one['model']} had learned from {one['seen_in_training']} of its {one['rows']} rows."
                )
    if any("[lexicon]" in (one.get("metric") or "") for one in final["benchmarks"]):
        found.append(
            "toxicity[lexicon] counts swear words: it finds no hatred without them, and on ToxiGen's lines it tells "
            "hateful from neutral no better than chance."
        )
    turns = {one["model"]: one["turns"] for one in final["benchmarks"] if not one["skipped"]}
    found += [f"{model} was asked in turns." for model, has_turns in turns.items() if has_turns]
    return found


def means(final: Found) -> list[Mean]:
    """The mean of each suite over the benchmarks that all models were measured on, and how many those are."""
    rows, found = by_benchmark(final), []
    for suite in dict.fromkeys(row["suite"] for row in rows if row["suite"]):
        measured = [row for row in rows if row["suite"] == suite and _is_measured(row)]
        if not measured:
            continue
        values = {model: _mean([row["models"][model]["value"] for row in measured]) for model in models_of(final)}
        values |= {
            column: _mean([row["published"].get(column) for row in measured]) for column in SUITES[suite].columns
        }
        found.append(Mean(suite, values, len(measured), len(SUITES[suite].entries)))
    return found


def _is_measured(row: Found) -> bool:
    return not any(one["skipped"] for one in row["models"].values()) and row["metric"].startswith(SHARES)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
