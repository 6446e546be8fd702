"""What the report says in words where no kind of stage has words of its own."""

from collections.abc import Sequence

from pipelines.report.parts import Figures, KindReport

NO_STAGE = {
    "chain": "No stage of this run has finished yet, so there is nothing to draw.",
    "losses": "This run has no finished stage that logged a loss.",
    "samples": "No stage of this run kept samples.",
    "config": "The workflow of this run was not kept.",
    "versions": "No finished stage wrote the versions it ran with.",
}


def verdict(figures: Figures, reports: Sequence[KindReport]) -> str:
    """The headline: that of the last kind which has one, else how far the run is."""
    for report in reversed(reports):
        words = report.verdict(figures)
        if words is not None:
            return words
    count = len(figures["stages"])
    return (
        f"{count} {'stage' if count == 1 else 'stages'} finished; none compares policies"
        if count
        else "No stage has finished yet"
    )
