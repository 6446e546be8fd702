"""What the report says in words where no kind of stage has words of its own."""

from collections.abc import Sequence

from pipelines.report.format import number, percent
from pipelines.report.parts import Figures, KindReport
from pipelines.report.records import is_finite_number

NO_STAGE = {
    "chain": "No stage of this run has finished yet, so there is nothing to draw.",
    "losses": "This run has no finished stage that logged a loss.",
    "samples": "No stage of this run kept samples.",
    "config": "The workflow of this run was not kept.",
    "versions": "No finished stage wrote the versions it ran with.",
}
_STYLES = {"number": number, "percent": percent}


def over_seeds(row: Figures) -> str:
    """Mean and range of a row of the table over seeds: `0.936 (0.930 to 0.941)`."""
    mean, low, high = (_STYLES[row["style"]](row[key]) for key in ("mean", "min", "max"))
    return f"{mean} ({low} to {high})" if row["n"] > 1 else mean


def agreement(row: Figures) -> str:
    """How many seeds lie on the side on which most do: `3 of 3 seeds above 0`."""
    side = "above" if row["above"] >= row["below"] else "below"
    count = max(row["above"], row["below"])
    middle = percent(row["middle"], 0) if row["style"] == "percent" else number(row["middle"])
    return f"{count} of {row['n']} {'seed' if row['n'] == 1 else 'seeds'} {side} {middle}"


def verdict(figures: Figures, reports: Sequence[KindReport]) -> str:
    """The headline: that of the last kind which has one, else how far the run is."""
    seeds = figures.get("seeds")
    compared = next((row for row in seeds["table"] if "middle" in row), None) if seeds else None
    if compared is not None:
        return f"{compared['label']} {over_seeds(compared)}, {agreement(compared)}"
    for report in reversed(reports):
        words = report.verdict(figures)
        if words is not None:
            return f"Seed {figures['seed']}: {words}" if seeds else words
    count = len(figures["stages"])
    if not count:
        return "No stage has finished yet"
    said = f"{count} {'stage' if count == 1 else 'stages'} finished; none compares policies"
    losses = [(name, words) for name, stage in figures["stages"].items() if (words := loss_words(stage))]
    return f"{said}. Loss of {losses[-1][0]}: {losses[-1][1]}" if losses else said


def compares(figures: Figures, reports: Sequence[KindReport]) -> bool:
    """True where a kind of stage has something to say of one policy against another."""
    return any(report.verdict(figures) is not None for report in reports)


def loss_words(stage: Figures) -> str:
    """What a stage's training did: `from 5.52 to 0.412, held out from 5.60 to 0.430, 12,345
    tokens`; empty where it had no loss.

    Args:
        stage: its figures in the summary.
    """
    loss = stage.get("loss") or {}
    parts = [
        prefix + (f"from {number(loss[first])} to " if is_finite_number(loss.get(first)) else "") + number(loss[last])
        for prefix, first, last in (("", "first", "last"), ("held out ", "heldout_first", "heldout_last"))
        if is_finite_number(loss.get(last))
    ]
    tokens = stage["final"].get("tokens")
    if parts and is_finite_number(tokens):
        parts.append(f"{number(tokens)} tokens")
    return ", ".join(parts)
