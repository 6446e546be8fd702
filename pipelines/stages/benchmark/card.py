"""What benchmarks say on a run's model card."""

from typing import Any

from pipelines.host.visible_text import visible
from pipelines.report.card import table
from pipelines.report.format import percent
from pipelines.stages.benchmark.tables import (
    asked_how,
    by_benchmark,
    means,
    models_of,
    notes,
    other_figures,
    with_interval,
    written,
)

_DASH = "\N{EM DASH}"


def card(found: dict[str, Any]) -> list[str]:
    """The lines of a stage.

    Args:
        found: its figures in the summary.
    """
    models, columns = models_of(found), found["columns"]
    rows = [
        [
            row["benchmark"],
            asked_how(row),
            *(with_interval(row["models"][model]) for model in models),
            *(written(row["published"].get(column), row.get("metric") or "acc") for column in columns),
        ]
        for row in by_benchmark(found)
    ]
    for mean in means(found):
        whole = mean.measured == mean.of
        name = f"mean of {mean.suite}" if whole else f"mean of {mean.measured} of the {mean.of} in {mean.suite}"
        values = [mean.values.get(one) for one in (*models, *columns)]
        rows.append([name, "", *(_DASH if value is None else percent(value) for value in values)])
    sources = dict.fromkeys(row["source"] for row in by_benchmark(found) if row["source"])
    return [
        f"## Benchmarks ({found['stage']})",
        "",
        *table(["benchmark", "measured as", *models.values(), *columns], rows),
        "",
        *_others(found, models),
        "Shares are in percent, intervals 95 % over rows. Published figures were measured by others, with prompts that "
        "are not published: they stand beside, and no equality is claimed.",
        "",
        *(f"- Published: {source}" for source in sources),
        *(f"- {visible(note)}" for note in notes(found)),
        *(f"- {name}: {value}" for name, value in found["settings"].items()),
    ]


def _others(found: dict[str, Any], models: dict[str, str]) -> list[str]:
    rows = [
        [name, figure, *(texts.get(model, _DASH) for model in models)] for name, figure, texts in other_figures(found)
    ]
    return (
        ["Other figures of the same answers:", "", *table(["benchmark", "figure", *models.values()], rows), ""]
        if rows
        else []
    )
