"""How `exact_answer` and math-verify grade: hand-graded cases, and questions that are answered by repeating them.

    pip install math-verify==0.9.0
    python -m benchmarks.answer_checks --math math.jsonl --rows 500

Prints a table. `--math`: JSON lines with `context`, `answer` and `chain_of_thought`, as llm-foundry stores MATH.
Without math-verify the first row alone is printed.
"""

import argparse
import json
import logging
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from pipelines.graders.answers import exact_answer

CASES = Path(__file__).parents[1] / "tests" / "pipelines" / "graders" / "answer_cases.yaml"
COLUMNS = (
    "cases right",
    "wrong ones that earn 1",
    "right ones that earn 0",
    "ms, median",
    "ms, slowest",
    "MATH: own solution earns 0",
    "MATH: repeating the question earns 1",
)
Check = Callable[[str, str], float]


def main(arguments: list[str] | None = None) -> int:
    """Grade and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer_checks", description=__doc__)
    parser.add_argument("--math", type=Path, help="MATH as JSON lines")
    parser.add_argument("--rows", type=int, default=500, help="of them, spread evenly over the file")
    options = parser.parse_args(arguments)
    cases = [case for group in yaml.safe_load(CASES.read_text(encoding="utf-8")).values() for case in group]
    rows = [json.loads(line) for line in options.math.read_text(encoding="utf-8").splitlines()] if options.math else []
    rows = rows[:: max(1, len(rows) // options.rows)]
    print(f"| | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    for name, check in [("exact_answer", exact_answer), *_math_verify()]:
        print(f"| {name} | {' | '.join([*_on_cases(check, cases), *_on_math(check, rows)])} |", flush=True)
    return 0


def _on_cases(check: Check, cases: Sequence[tuple[str, str, int]]) -> list[str]:
    given, seconds = [], []
    for completion, answer, _ in cases:
        start = time.perf_counter()
        given.append(check(completion, answer))
        seconds.append(time.perf_counter() - start)
    median, slowest = 1000 * statistics.median(seconds), 1000 * max(seconds)
    pairs = list(zip(given, (truth for _, _, truth in cases), strict=True))
    accepted, refused = pairs.count((1, 0)), pairs.count((0, 1))
    right = len(pairs) - accepted - refused
    return [f"{right} of {len(pairs)}", str(accepted), str(refused), f"{median:.2g}", f"{slowest:.2g}"]


def _on_math(check: Check, rows: Sequence[dict]) -> list[str]:
    refused = sum(not check(row["chain_of_thought"], row["answer"]) for row in rows)
    repeated = 0
    for row in rows:
        formulas = re.findall(r"\$+([^$]+)\$+", row["context"])
        repeated += any(check(rf"\boxed{{{formula}}}", row["answer"]) for formula in formulas)
    return [f"{refused} of {len(rows)}", f"{repeated} of {len(rows)}"]


def _math_verify() -> list[tuple[str, Check]]:
    try:
        import math_verify
    except ModuleNotFoundError:
        return []
    logging.disable(logging.CRITICAL)

    def check(completion: str, answer: str) -> float:
        gold = math_verify.parse(f"${answer}$")
        return float(math_verify.verify(gold, math_verify.parse(completion)))

    return [("math-verify", check)]


if __name__ == "__main__":
    sys.exit(main())
