"""A real model on a real task: Gemma 3 270M writes sentences of so many words that hold a given word, from few
demonstrations by RL.

    python -m benchmarks.real_gain prepare train.jsonl test.jsonl     # GSM8K's files (MIT), each row with `question`
    gemma-keras run benchmarks/real_gain.yaml --plugin benchmarks/real_gain_reward.py
    python -m benchmarks.real_gain table runs/real_gain

The sentences are those of GSM8K's questions. A prompt asks for as many words as one of them has, and for its longest
word; the sentence itself is the demonstration. Whether an answer does both is checked by the reward. `prepare` writes
JSON lines into .cache/real_gain: 256 demonstrations; prompts for RL, of other sentences of the training split; a part
of that split to choose settings by; and words of the test split that no other part asks for, each with any number of
words. `table` writes the figures between two marks of benchmarks/README.md.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.pages import write_between
from pipelines.report.records import read_run

ROOT = Path(__file__).resolve().parents[1]
CACHE, PAGE = ROOT / ".cache/real_gain", ROOT / "benchmarks/README.md"
BEGIN, END = "<!-- python -m benchmarks.real_gain writes from here -->", "<!-- real gain: to here -->"
DEMONSTRATIONS, VALIDATION, TEST = 256, 256, 800
LEAST_WORDS, MOST_WORDS, LEAST_LETTERS = 4, 10, 5
LABELS = {
    "sft": "tuned on 256 demonstrations",
    "longer": "tuned on them for longer",
    "policy": "RL from there, checked answers",
    "answers": "tuned on sentences for RL's prompts as well",
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
    lines = table(evaluations["test"])
    print("\n".join(lines))
    write_between(PAGE, BEGIN, END, lines)
    return 0


def prepare(train: Path, test: Path) -> None:
    """Write the parts. Rows lie in the order of a hash, so that the same are chosen wherever this runs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = by_hash(train)
    known = {row["word"] for row in rows}
    words = {row["word"] for row in by_hash(test)} - known
    unseen = sorted((asked(count, word) for count in range(LEAST_WORDS, MOST_WORDS + 1) for word in words), key=_hash)
    chosen = DEMONSTRATIONS + VALIDATION
    parts = {
        "demonstrations": rows[:DEMONSTRATIONS],
        "validation": rows[DEMONSTRATIONS:chosen],
        "prompts": rows[chosen:],
        "test": [{"prompt": prompt} for prompt in unseen[:TEST]],
    }
    for name, part in parts.items():
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (CACHE / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{CACHE / name}.jsonl: {len(part)} rows")


def by_hash(path: Path) -> list[dict[str, str]]:
    """One row for each number of words with each word, with the first sentence that has both."""
    rows: dict[str, dict[str, str]] = {}
    for sentence in sentences(path):
        words = re.findall(r"[a-z]+", sentence.lower())
        word, count = max(words, key=len), len(sentence.split())
        if len(word) >= LEAST_LETTERS:
            prompt = asked(count, word)
            rows.setdefault(prompt, {"prompt": prompt, "answer": sentence, "word": word})
    return [rows[prompt] for prompt in sorted(rows, key=_hash)]


def asked(count: int, word: str) -> str:
    """A prompt, as the reward reads it."""
    return f'Write a sentence of exactly {count} words with the word "{word}".'


def sentences(path: Path) -> Iterator[str]:
    """Those of a file's questions that are neither short nor long and hold no digit."""
    for line in path.read_text(encoding="utf-8").splitlines():
        for sentence in re.split(r"(?<=[.?!])\s+", json.loads(line)["question"].strip()):
            if re.fullmatch(r"[A-Z][A-Za-z' ,]+[.?!]", sentence) and LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS:
                yield sentence


def table(evaluation: dict) -> list[str]:
    """Right answers of each policy, and the differences on the same prompts, each with its interval of 95 %."""
    lines = ["| | as asked | tokens | KL to the first, nats |", "|---|---|---|---|"]
    for name, label in LABELS.items():
        found = evaluation["policies"][name]
        score = found["judge_score"]
        length, kl = found["mean_length"], found["kl_sequence"]
        lines.append(f"| {label} | {_with_interval(score['mean'], score['ci95'])} | {length:.1f} | {kl:.2f} |")
    for policy, baseline in PAIRS:
        lines.append(f"| RL less “{LABELS[baseline]}” | {_difference(evaluation['pairs'], policy, baseline)} | | |")
    return [
        *lines,
        "",
        f"One answer, sampled at temperature 1, to each of {evaluation['prompts']} prompts whose words no other part "
        "asks for.",
    ]


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def _difference(pairs: Sequence[dict], policy: str, baseline: str) -> str:
    for pair in pairs:
        for first, second, sign in ((policy, baseline, 1), (baseline, policy, -1)):
            if (pair["policy"], pair["baseline"]) == (first, second):
                of = pair["difference"]["judge_score"]
                return _with_interval(sign * of["mean"], sorted(sign * end for end in of["ci95"]), "+")
    raise KeyError(f"no pair of {policy} and {baseline}")


def _with_interval(value: float, ends: Sequence[float], sign: str = "") -> str:
    low, high = (f"{100 * end:{sign}.1f}" for end in ends)
    return f"{100 * value:{sign}.1f} % [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
