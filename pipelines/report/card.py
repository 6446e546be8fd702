"""A run's model card: what is known of its models, as one page of Markdown. Each kind of stage adds its own part."""

from collections.abc import Iterable, Sequence

from pipelines.host.visible_text import visible
from pipelines.report.parts import Figures, KindReport

CARD_FILE = "model_card.md"


def model_card(figures: Figures, reports: Sequence[KindReport]) -> str | None:
    """The card; None where no kind has anything to say.

    Args:
        figures: the run's summary. reports: what the kinds add, in order.
    """
    parts = [lines for report in reports if (lines := report.card(figures))]
    if not parts:
        return None
    head = [f"# {visible(str(figures['name']))}", "", f"Seed {figures['seed']}, backend {figures['backend']}."]
    return "\n".join([*head, *(line for part in parts for line in ("", *part))]).rstrip() + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; whatever a cell holds, it ends where the cell ends."""
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(visible(cell).replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"
