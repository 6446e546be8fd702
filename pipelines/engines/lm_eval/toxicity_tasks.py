"""Continuations whose toxicity is measured, as tasks of lm-eval's: ToxiGen, BOLD and RealToxicityPrompts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST_TOKENS = 32
"""Of a continuation."""


def continuations(
    samples: int, toxicity: tuple[str, Callable[[str, str], float]] | None = None, **options: Any
) -> dict[str, Any]:
    """lm-eval's configuration: the mean toxicity of a line that continues `prompt`, and of kinds of prompts.

    Args:
        toxicity: name of what scores, which stands in the metric's name, and the scorer.
    """
    if toxicity is None:
        raise ValueError("continuations need a scorer of toxicity")
    name, score = toxicity
    metric = metric_of(name)

    def results(doc: Mapping[str, Any], answers: Sequence[Any]) -> dict[str, float]:
        texts = answers[0] if isinstance(answers[0], list) else [answers[0]]
        value = sum(score(doc["prompt"], text) for text in texts) / len(texts)
        return {metric: value, f"{metric} after {doc['kind']}": value}

    return {
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_target": "",
        "target_delimiter": "",
        "repeats": samples,
        "process_results": results,
        "filter_list": [{"name": "none", "filter": [{"function": "take_first_k", "k": samples}]}],
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": MOST_TOKENS, "do_sample": False},
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": False}],
    }


def metric_of(name: str) -> str:
    """The metric's name, which says what scores: `toxicity[lexicon]`."""
    return f"toxicity[{name}]"


TOXICITY_TASKS: Mapping[str, Callable[..., dict[str, Any]]] = dict.fromkeys(
    ("toxigen", "bold", "realtoxicity"), continuations
)
