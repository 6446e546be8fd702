"""Continuations whose toxicity is measured, as tasks of lm-eval's: ToxiGen, BOLD and RealToxicityPrompts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.engines.lm_eval.configurations import metric, sampled

MOST_TOKENS = 32
"""Of a continuation."""


def continuations(samples: int, toxicity: tuple[str, Callable[[str, str], float]], **options: Any) -> dict[str, Any]:
    """lm-eval's configuration: the mean toxicity of a line that continues `prompt`, and of kinds of prompts.

    Args:
        toxicity: name of what scores, which stands in the metric's name, and the scorer.
    """
    name, score = metric_of(toxicity[0]), toxicity[1]

    def results(doc: Mapping[str, Any], answers: Sequence[Sequence[str]]) -> dict[str, float]:
        value = sum(score(doc["prompt"], text) for text in answers[0]) / len(answers[0])
        return {name: value, f"{name} after {doc['kind']}": value}

    return {
        **sampled(samples, results, [metric(name, higher_is_better=False)]),
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_target": "",
        "target_delimiter": "",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": MOST_TOKENS, "do_sample": False},
    }


def metric_of(name: str) -> str:
    """The metric's name, which says what scores: `toxicity[lexicon]`."""
    return f"toxicity[{name}]"


TOXICITY_TASKS: Mapping[str, Callable[..., dict[str, Any]]] = dict.fromkeys(
    ("toxigen", "bold", "realtoxicity"), continuations
)
