"""A model card: the figures of a stage as a page of Markdown."""

from collections.abc import Mapping
from typing import Any

from pipelines.host.visible_text import visible
from pipelines.report.format import percent
from pipelines.stages.benchmark.tables import asked_how, by_benchmark, means, models_of, notes, with_interval, written

_DASH = "\N{EM DASH}"


def model_card(final: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The card.

    Args:
        final: what the stage's `run` returns. settings: name → value, of what the figures were measured with.
    """
    models, columns = models_of(final), final["columns"]
    lines = [f"# {', '.join(models.values())}", ""]
    lines += [*_table(final, models, columns), ""]
    lines += [
        "Shares are in percent, intervals 95 % over rows. Published figures were measured by others, with prompts that "
        "are not published: they stand beside, and no equality is claimed.",
        "",
    ]
    sources = dict.fromkeys(row["source"] for row in by_benchmark(final) if row["source"])
    lines += [f"- Published: {source}" for source in sources]
    lines += [f"- {visible(note)}" for note in notes(final)]
    lines += [f"- {name}: {value}" for name, value in settings.items()]
    return "\n".join(lines).rstrip() + "\n"


def _table(final: Mapping[str, Any], models: Mapping[str, str], columns: list[str]) -> list[str]:
    head = ["benchmark", "measured as", *(_cell(name) for name in models.values()), *map(_cell, columns)]
    lines = [_row(head), _row(["---"] * len(head))]
    for row in by_benchmark(final):
        of_models = [with_interval(row["models"][model]) for model in models]
        of_others = [written(row["published"].get(column), row.get("metric") or "acc") for column in columns]
        lines.append(_row([_cell(row["benchmark"]), _cell(asked_how(row)), *of_models, *of_others]))
    for mean in means(final):
        whole = mean.measured == mean.of
        name = f"mean of {mean.suite}" if whole else f"mean of {mean.measured} of the {mean.of} in {mean.suite}"
        values = [mean.values.get(one) for one in (*models, *columns)]
        lines.append(_row([name, "", *(_DASH if value is None else percent(value) for value in values)]))
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text that may not end its cell."""
    return visible(text).replace("|", "\\|").replace("\n", " ")
