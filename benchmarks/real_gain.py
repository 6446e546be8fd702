"""A real model on a real task: Gemma 3 270M on the single steps of GSM8K's solutions, from few demonstrations by RL.

    python -m benchmarks.real_gain prepare train.jsonl test.jsonl     # GSM8K's files (MIT), each row with `answer`
    gemma-keras run benchmarks/real_gain.yaml                         # three quarters of an hour on two cores with AMX
    python -m benchmarks.real_gain table runs/real_gain

GSM8K's solutions mark every calculation that they make, `<<48/2=24>>`. The task is one of these: "48 / 2 =", answered
by its result. `prepare` writes JSON lines into .cache/real_gain: 256 demonstrations; prompts for RL, other calculations
of the training split; a part of that split to choose settings by; and the calculations of the test split that the
training split does not have. `table` writes the figures between two marks of benchmarks/README.md.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.report.records import read_run

ROOT = Path(__file__).resolve().parents[1]
CACHE, PAGE = ROOT / ".cache/real_gain", ROOT / "benchmarks/README.md"
BEGIN, END = "<!-- python -m benchmarks.real_gain writes from here -->", "<!-- real gain: to here -->"
DEMONSTRATIONS, VALIDATION = 256, 512
STEP = re.compile(r"<<([0-9.+\-*/() ]+)=(-?[0-9]+(?:\.[0-9]+)?)>>")
OPERATOR = re.compile(r"([+*/]|(?<=[0-9)])-)")
LABELS = {
    "sft": "tuned on 256 demonstrations",
    "longer": "tuned on them for longer",
    "policy": "RL from there, exact answers",
    "answers": "tuned on RL's answers as well",
}
PAIRS = (("policy", "sft"), ("policy", "longer"), ("policy", "answers"))


def main(arguments: list[str] | None = None) -> int:
    """Prepare the data, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    files = commands.add_parser("prepare")
    files.add_argument("train", type=Path)
    files.add_argument("test", type=Path)
    commands.add_parser("table").add_argument("run", type=Path, help="folder of a finished run")
    options = parser.parse_args(arguments)
    if options.command == "prepare":
        prepare(options.train, options.test)
        return 0
    evaluations = {stage.name: stage.evaluation for stage in read_run(options.run).stages}
    text = "\n".join(table(evaluations["test"]))
    print(text)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


def prepare(train: Path, test: Path) -> None:
    """Write the parts. Rows lie in the order of a hash, so that the same are chosen wherever this runs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    known = steps_of(train)
    rows, unseen = ordered(known), ordered({step: found for step, found in steps_of(test).items() if step not in known})
    chosen = DEMONSTRATIONS + VALIDATION
    parts = {
        "demonstrations": rows[:DEMONSTRATIONS],
        "validation": rows[DEMONSTRATIONS:chosen],
        "prompts": rows[chosen:],
        "test": unseen,
    }
    for name, part in parts.items():
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (CACHE / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{CACHE / name}.jsonl: {len(part)} rows")


def steps_of(path: Path) -> dict[str, str]:
    """The calculations of a file with their results, each once: numbers, + - * / and brackets."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        for step, result in STEP.findall(json.loads(line)["answer"]):
            found.setdefault(step.replace(" ", ""), result)
    return found


def ordered(steps: dict[str, str]) -> list[dict[str, str]]:
    """Calculations as `prompt` and `answer`, by the hash of each."""
    by_hash = sorted(steps, key=lambda step: hashlib.sha256(step.encode()).hexdigest())
    return [{"prompt": OPERATOR.sub(r" \1 ", step) + " =", "answer": steps[step]} for step in by_hash]


def table(evaluation: dict) -> list[str]:
    """Right answers of each policy, and the differences on the same prompts, each with its interval of 95 %."""
    lines = ["| | right answers |", "|---|---|"]
    for name, label in LABELS.items():
        found = evaluation["policies"][name]
        lines.append(f"| {label} | {_with_interval(found['accuracy'], found['accuracy_ci95'])} |")
    for policy, baseline in PAIRS:
        lines.append(f"| RL less “{LABELS[baseline]}” | {_difference(evaluation['pairs'], policy, baseline)} |")
    return [
        *lines,
        "",
        f"Greedy answers to {evaluation['prompts']} calculations that nothing was trained on or chosen by.",
    ]


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
