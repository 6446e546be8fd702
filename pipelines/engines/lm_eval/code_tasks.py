"""HumanEval and MBPP for lm-eval, graded in our sandbox: its own tasks run programs in the process that judges them,
and load their grader from the hub."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines.engines.lm_eval.configurations import metric, sampled
from pipelines.graders.code.asserts import BadTests
from pipelines.graders.code.extraction import extract_code
from pipelines.graders.code.grade import AT_ONCE, grade_code
from pipelines.graders.code.sandbox import Sandbox, SandboxError, choose
from pipelines.host.errors import DataError


def pass_at_k(passed: int, of: int, k: int) -> float:
    """Chance that one of k answers passes, without bias from `of` answers of which `passed` do.

    Source: arXiv:2107.03374, equation 1.
    """
    return 1.0 - math.comb(of - passed, k) / math.comb(of, k)


def ks_of(samples: int) -> list[int]:
    """The k that so many answers tell of: 1, 10, 100, and all of them."""
    return sorted({k for k in (1, 10, 100, samples) if k <= samples})


def humaneval(samples: int, sandbox: Sandbox = "auto", seconds: float = 5.0) -> dict[str, Any]:
    """lm-eval's configuration of HumanEval: its prompt, ends and length (lm-eval's `humaneval`).

    Raises:
        DataError: no such sandbox works here.
    """
    sandbox = _working(sandbox, "humaneval")

    def results(doc: Mapping[str, Any], answers: Sequence[Sequence[str]]) -> dict[str, float]:
        sources = [extract_code(answer, doc["prompt"], doc["entry_point"]) for answer in answers[0]]
        return _figures(sources, doc["test"], doc["entry_point"], doc["prompt"], sandbox, seconds)

    return {
        **_generated(samples, results),
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{canonical_solution}}",
        "target_delimiter": "",
        "test_split": "test",
        "generation_kwargs": {
            "until": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
            "max_gen_toks": 512,
            "do_sample": False,
        },
    }


def mbpp(samples: int, sandbox: Sandbox = "auto", seconds: float = 5.0) -> dict[str, Any]:
    """lm-eval's configuration of MBPP: its prompt with the three tests, and three solved examples before it
    (arXiv:2108.07732). As `humaneval`."""
    sandbox = _working(sandbox, "mbpp")

    def results(doc: Mapping[str, Any], answers: Sequence[Sequence[str]]) -> dict[str, float]:
        sources = [extract_code(answer) for answer in answers[0]]
        return _figures(sources, doc["test_list"], None, doc.get("test_setup_code") or "", sandbox, seconds)

    return {
        **_generated(samples, results),
        "doc_to_text": "You are an expert Python programmer, and here is your task: {{text}} Your code should pass "
        "these tests:\n\n{{test_list[0]}}\n{{test_list[1]}}\n{{test_list[2]}}\n[BEGIN]\n",
        "doc_to_target": "{{code}}\n[DONE]",
        "target_delimiter": "",
        "test_split": "test",
        "fewshot_split": "prompt",
        "fewshot_config": {"sampler": "first_n"},
        "generation_kwargs": {"until": ["[DONE]"], "max_gen_toks": 256, "do_sample": False},
    }


CODE_TASKS: Mapping[str, Callable[..., dict[str, Any]]] = {"humaneval": humaneval, "mbpp": mbpp}


def _generated(samples: int, results: Callable[..., dict[str, float]]) -> dict[str, Any]:
    return sampled(samples, results, [metric(f"pass@{k}") for k in ks_of(samples)])


def _working(sandbox: Sandbox, name: str) -> Sandbox:
    """The sandbox that is meant, before anything is asked of a model for it."""
    try:
        return choose(sandbox)
    except SandboxError as error:
        raise DataError(f"{name}:1: {error}") from error


def _figures(
    sources: Sequence[str], tests: Any, entry_point: str | None, helpers: str, sandbox: Sandbox, seconds: float
) -> dict[str, float]:
    def passes(source: str) -> bool:
        return grade_code(source, tests, entry_point, helpers, sandbox, seconds).passed

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            passed = sum(pool.map(passes, sources))
    except BadTests as error:
        raise DataError(f"{entry_point or 'mbpp'}:1: {error}") from error
    return {f"pass@{k}": pass_at_k(passed, len(sources), k) for k in ks_of(len(sources))}
