"""Table 6 of the Gemma paper."""

from pipelines.tasks.benchmarks.base import Entry, Suite

_MISTRAL = "as Mistral's paper measures it, which gives no more"


def _entry(benchmark: str, setting: str, small: float, large: float, note: str = "") -> Entry:
    return Entry(benchmark, setting, {"Gemma 2B": small, "Gemma 7B": large}, note=note)


SUITE = Suite(
    "gemma_paper",
    "arXiv:2403.08295, table 6: pretrained models",
    ("Gemma 2B", "Gemma 7B"),
    (
        _entry("mmlu", "5-shot, top-1", 42.3, 64.3),
        _entry("hellaswag", "0-shot", 71.4, 81.2),
        _entry("piqa", "0-shot", 77.3, 81.2),
        _entry("siqa", "0-shot", 49.7, 51.8),
        _entry("boolq", "0-shot", 69.4, 83.2),
        _entry("winogrande", "partial scoring", 65.4, 72.3),
        _entry("commonsense_qa", "7-shot", 65.3, 71.3),
        _entry("openbookqa", "not given", 47.8, 52.8, "the paper gives no setting; 0-shot here"),
        _entry("arc_easy", "not given", 73.2, 81.5, f"{_MISTRAL}; 0-shot here"),
        _entry("arc_challenge", "not given", 42.1, 53.2, f"{_MISTRAL}; 0-shot here"),
        _entry("triviaqa", "5-shot", 53.2, 63.4),
        _entry("nq_open", "5-shot", 12.5, 23.0),
        _entry("humaneval", "pass@1", 22.0, 32.3),
        _entry("mbpp", "3-shot", 29.2, 44.4),
        _entry("gsm8k", "maj@1", 17.7, 46.4, "the paper gives no shots; 5-shot here"),
        _entry("math", "4-shot", 11.8, 24.3),
        _entry("agieval", "not given", 24.2, 41.7, f"English exams, {_MISTRAL}; 0-shot here"),
        _entry("bbh", "not given", 35.2, 55.1, f"{_MISTRAL}; 3-shot chain of thought here"),
    ),
)
