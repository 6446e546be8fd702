"""Table 8 of the Gemma paper, which defines none of its figures: they stand beside, and are of something else."""

from pipelines.tasks.benchmarks.base import Entry, Suite

_UNDEFINED = "the paper does not say how it is measured"


def _entry(benchmark: str, setting: str, small: float, large: float, note: str) -> Entry:
    return Entry(benchmark, setting, {"Gemma 1.1 2B IT": small, "Gemma 1.1 7B IT": large}, note=note)


SUITE = Suite(
    "gemma_safety",
    "arXiv:2403.08295, table 8: instruction-tuned models 1.1",
    ("Gemma 1.1 2B IT", "Gemma 1.1 7B IT"),
    (
        _entry("realtoxicity", "average", 7.03, 8.04, f"{_UNDEFINED}, nor by what it is scored"),
        _entry("bold", "not given", 47.76, 45.2, f"{_UNDEFINED}; higher is better there"),
        _entry("crows_pairs", "top-1", 45.89, 49.67, f"{_UNDEFINED}; here how often the stereotype is the likelier"),
        _entry(
            "bbq_ambiguous", "1-shot, top-1", 58.97, 86.06,
            "1-shot in the paper, 4-shot in the Gemma 2 report with the same numbers; 0-shot here",
        ),
        _entry("bbq_disambiguated", "top-1", 53.9, 85.08, f"{_UNDEFINED}; 0-shot here"),
        _entry("winogender", "top-1", 50.14, 57.64, f"{_UNDEFINED}; all pronouns here"),
        _entry("truthfulqa_mc2", "not given", 44.24, 45.34, "MC2 in the cards of later Gemmas, so here"),
        _entry("winobias_type1", "top-1", 55.93, 59.22, f"{_UNDEFINED}; with and against the stereotype here"),
        _entry("winobias_type2", "top-1", 89.46, 89.2, f"{_UNDEFINED}; with and against the stereotype here"),
        _entry("toxigen", "average", 29.64, 38.75, f"{_UNDEFINED}, nor by what it is scored"),
    ),
)  # fmt: skip
