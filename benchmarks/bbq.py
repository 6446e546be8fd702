"""A published model on real questions: Gemma 3 270M on BBQ, few demonstrations against few demonstrations and RL.

    python -m benchmarks.bbq prepare FOLDER                           # the repository's data/: Age.jsonl, ...
    gemma-keras run benchmarks/bbq.yaml                               # an hour on two cores with AMX
    python -m benchmarks.bbq table benchmarks/runs/bbq

BBQ (Parrish et al. 2022, arXiv:2110.08193; nyu-mll/BBQ, CC BY 4.0) asks who did something, of two people that a context
names, with "cannot be determined" as a third answer in changing words. Of each question there is an ambiguous version,
whose context does not say it, and a disambiguated one, which does.

`prepare` writes JSON lines into .cache/bbq: demonstrations and prompts of two categories, a category to choose settings
by, and one to test on that nothing was trained on or chosen by. `table` writes the figures between two marks of
benchmarks/README.md.
"""

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.report.records import read_run

ROOT = Path(__file__).resolve().parents[1]
CACHE, PAGE = ROOT / ".cache/bbq", ROOT / "benchmarks/README.md"
BEGIN, END = "<!-- python -m benchmarks.bbq writes from here -->", "<!-- bbq: to here -->"
TRAINING, VALIDATION, TEST = ("Nationality", "Physical_appearance"), "Disability_status", "Age"
DEMONSTRATIONS, ANSWERED = 256, 1600
CONDITIONS = {"ambiguous": "ambig", "disambiguated": "disambig"}
LABELS = {
    "sft": "tuned on 256 demonstrations",
    "longer": "tuned on them for longer",
    "policy": "RLOO from there, exact answers",
    "answers": "tuned on the answers to RL's questions as well",
}
PAIRS = (("policy", "sft"), ("policy", "longer"), ("policy", "answers"))


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare").add_argument("folder", type=Path, help="CATEGORY.jsonl or CATEGORY.jsonl.gz")
    commands.add_parser("table").add_argument("run", type=Path, help="folder of a finished run")
    options = parser.parse_args(arguments)
    if options.command == "prepare":
        prepare(options.folder)
        return 0
    text = "\n".join(table({stage.name: stage.evaluation for stage in read_run(options.run).stages}))
    print(text)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


def prepare(folder: Path) -> None:
    """Write the parts. Rows lie in the order of a hash, so that the same are chosen wherever this runs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    training = sorted((row for name in TRAINING for row in questions(folder, name)), key=lambda row: row["key"])
    demonstrations, prompts = training[:DEMONSTRATIONS], training[DEMONSTRATIONS:]
    parts = {"demonstrations": demonstrations, "prompts": prompts, "answers": demonstrations + prompts[:ANSWERED]}
    for part, category, most in (("validation", VALIDATION, 128), ("test", TEST, 400)):
        rows = sorted(questions(folder, category), key=lambda row: row["key"])
        for condition, short in CONDITIONS.items():
            parts[f"{part}_{condition}"] = [row for row in rows if row["condition"] == short][:most]
    for name, rows in parts.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (CACHE / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{CACHE / name}.jsonl: {len(rows)} rows")


def questions(folder: Path, category: str) -> Iterator[dict[str, Any]]:
    """A category's rows as `prompt`, which lists the answers, and `answer`, word for word one of them."""
    packed, plain = folder / f"{category}.jsonl.gz", folder / f"{category}.jsonl"
    text = gzip.decompress(packed.read_bytes()).decode() if packed.exists() else plain.read_text(encoding="utf-8")
    for line in text.splitlines():
        row = json.loads(line)
        answers = [row["ans0"], row["ans1"], row["ans2"]]
        listed = "\n".join(f"- {answer}" for answer in answers)
        yield {
            "prompt": f"{row['context']}\n\n{row['question']}\n{listed}",
            "answer": answers[row["label"]],
            "condition": row["context_condition"],
            "key": hashlib.sha256(f"{category}{row['example_id']}".encode()).hexdigest(),
        }


def table(evaluations: dict[str, dict]) -> list[str]:
    """Right answers of each policy, and the differences on the same questions, each with its interval of 95 %."""
    found = [evaluations[f"test_{condition}"] for condition in CONDITIONS]
    lines = [f"| | {' | '.join(CONDITIONS)} |", "|---|---|---|"]
    for name, label in LABELS.items():
        policies = [one["policies"][name] for one in found]
        cells = [_with_interval(one["accuracy"], one["accuracy_ci95"]) for one in policies]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for policy, baseline in PAIRS:
        differences = [_difference(one["pairs"], policy, baseline) for one in found]
        lines.append(f"| RLOO less “{LABELS[baseline]}” | {' | '.join(differences)} |")
    return lines


def _difference(pairs: Sequence[dict], policy: str, baseline: str) -> str:
    for pair in pairs:
        for first, second, sign in ((policy, baseline, 1), (baseline, policy, -1)):
            if (pair["policy"], pair["baseline"]) == (first, second):
                of = pair["difference"]["accuracy"]
                return _with_interval(sign * of["mean"], sorted(sign * end for end in of["ci95"]), "+")
    raise KeyError(f"no pair of {policy} and {baseline}")


def _with_interval(value: float, ends: Sequence[float], sign: str = "") -> str:
    low, high = (f"{100 * end:{sign}.1f}" for end in ends)
    return f"{100 * value:{sign}.1f} % [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
