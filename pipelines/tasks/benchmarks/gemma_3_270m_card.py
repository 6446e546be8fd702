"""The model card of Gemma 3 270M, pretrained."""

from pipelines.tasks.benchmarks.base import Entry, Suite

COLUMN = "Gemma 3 270M PT"


def _entry(benchmark: str, shots: int, figure: float) -> Entry:
    return Entry(benchmark, f"{shots}-shot", {COLUMN: figure}, shots=shots)


SUITE = Suite(
    "gemma_3_270m_card",
    "the model card of Gemma 3 270M: pretrained",
    (COLUMN,),
    (
        _entry("hellaswag", 10, 40.9),
        _entry("boolq", 0, 61.4),
        _entry("piqa", 0, 67.7),
        _entry("triviaqa", 5, 15.4),
        _entry("arc_challenge", 25, 29.0),
        _entry("arc_easy", 0, 57.7),
        _entry("winogrande", 5, 52.0),
    ),
)
