"""Rows of benchmarks as they lie in files, with the columns that the sets have on the hub, so that lm-eval's prompts
are the same from either place."""

import functools
import gzip
import json
import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.host.errors import DataError
from pipelines.tasks.benchmarks.base import Rows

LETTERS = "ABCDEFGHIJ"


def read_rows(path: Path) -> Rows:
    """Objects of a file of JSON lines, perhaps in gzip.

    Raises:
        DataError: no file, or a line that is no object.
    """
    found = path if path.exists() else path.with_name(f"{path.name}.gz")
    if not found.is_file():
        raise DataError(f"{path}:1: no such file")
    about = found.stat()
    return _rows_of(found, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=4)
def _rows_of(found: Path, modified: int, size: int) -> Rows:
    """Time and size are there for the cache: a set of many parts is read once."""
    rows: Rows = []
    with gzip.open(found, "rt", encoding="utf-8") if found.suffix == ".gz" else found.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{found}:{number}: no JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{found}:{number}: expected an object, got {line[:60]!r}")
            rows.append(row)
    return rows


def _labelled(choices: list[str], gold: int, question: str, text: str) -> dict[str, Any]:
    labels = list(LETTERS[: len(choices)])
    return {text: question, "choices": {"text": choices, "label": labels}, "answerKey": labels[gold]}


def piqa(folder: Path, part: str) -> Mapping[str, Rows]:
    """`goal, sol1, sol2, label`."""
    return {"validation": read_rows(folder / "valid.jsonl")}


def hellaswag(folder: Path, part: str) -> Mapping[str, Rows]:
    """What lm-eval makes of `activity_label, ctx_a, ctx_b, endings` lies there made; it is given so that the same comes
    out again."""
    return {"validation": [_parts_of_hellaswag(row) for row in read_rows(folder / "val.jsonl")]}


def _parts_of_hellaswag(row: dict[str, Any]) -> dict[str, Any]:
    activity, _, context = row["query"].partition(": ")
    return {"activity_label": activity, "ctx_a": context, "ctx_b": "", "endings": row["choices"], "label": row["gold"]}


def arc_easy(folder: Path, part: str) -> Mapping[str, Rows]:
    """`question, choices, answerKey`."""
    return _arc(folder, "arc_easy.jsonl")


def arc_challenge(folder: Path, part: str) -> Mapping[str, Rows]:
    """As `arc_easy`."""
    return _arc(folder, "arc_challenge.jsonl")


def _arc(folder: Path, name: str) -> Mapping[str, Rows]:
    def rows(file: str) -> Rows:
        found = read_rows(folder / file)
        return [
            _labelled(row["choices"], row["gold"], row["query"].removeprefix("Question: "), "question") for row in found
        ]

    return {"train": rows("train.jsonl"), "test": rows(name)}


def openbookqa(folder: Path, part: str) -> Mapping[str, Rows]:
    """`question_stem, choices, answerKey`."""
    rows = read_rows(folder / "openbook_qa.jsonl")
    return {"test": [_labelled(row["choices"], row["gold"], row["query"], "question_stem") for row in rows]}


def boolq(folder: Path, part: str) -> Mapping[str, Rows]:
    """`passage, question, label`, out of one prompt."""
    return {"validation": list(_boolq(folder / "boolq.jsonl"))}


def _boolq(path: Path) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_rows(path), 1):
        passage, found, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
        if not found or row["choices"] != ["no", "yes"]:
            raise DataError(f"{path}:{number}: expected a passage, a question and the choices no and yes")
        # lm-eval puts the question mark.
        yield {"passage": passage, "question": question.rstrip().removesuffix("?"), "label": row["gold"]}


def winogrande(folder: Path, part: str) -> Mapping[str, Rows]:
    """`sentence, option1, option2, answer`, out of two beginnings and their end."""
    return {"validation": [_blank(row) for row in read_rows(folder / "winogrande.jsonl")]}


def _blank(row: dict[str, Any]) -> dict[str, Any]:
    first, second = row["context_options"]
    start = os.path.commonprefix([first, second]).rfind(" ") + 1
    sentence = f"{first[:start]}_ {row['continuation']}"
    return {"sentence": sentence, "option1": first[start:], "option2": second[start:], "answer": str(row["gold"] + 1)}


def siqa(folder: Path, part: str) -> Mapping[str, Rows]:
    """`context, question, answerA, answerB, answerC, label`; context and question stand in one text, which lm-eval
    joins again by a blank."""
    return {"validation": list(map(_situation, read_rows(folder / "validation.jsonl")))}


def _situation(row: dict[str, Any]) -> dict[str, Any]:
    context, _, question = row["question"].partition(" ")
    choices = dict(zip(("answerA", "answerB", "answerC"), row["choices"], strict=True))
    return {"context": context, "question": question, **choices, "label": str(row["gold"] + 1)}


def commonsense_qa(folder: Path, part: str) -> Mapping[str, Rows]:
    """As on the hub."""
    return {"validation": read_rows(folder / "dev_rand_split.jsonl")}


def mmlu(folder: Path, part: str) -> Mapping[str, Rows]:
    """`question, choices, answer` of a subject."""

    def rows(name: str) -> Rows:
        found = [row for row in read_rows(folder / name) if row["subject"] == part]
        return [{**row, "answer": int(row["answer"])} for row in found]

    return {"dev": rows("dev.jsonl"), "test": rows("test.jsonl")}


def triviaqa(folder: Path, part: str) -> Mapping[str, Rows]:
    """`question, answer`, out of a prompt, to which lm-eval adds the question mark."""
    found = read_rows(folder / "triviaqa_sm_sub.jsonl")
    return {
        "validation": [{"question": _asked(row["context"]), "answer": {"aliases": row["aliases"]}} for row in found]
    }


def _asked(prompt: str) -> str:
    return prompt.removeprefix("Question: ").removesuffix("\nAnswer:").removesuffix("?")


def nq_open(folder: Path, part: str) -> Mapping[str, Rows]:
    """As on the hub."""
    return {"validation": read_rows(folder / "dev.jsonl")}


def gsm8k(folder: Path, part: str) -> Mapping[str, Rows]:
    """As on the hub."""
    return {name: read_rows(folder / f"{name}.jsonl") for name in ("train", "test")}


def math(folder: Path, part: str) -> Mapping[str, Rows]:
    """`problem, solution, level` of a category; the levels are not there."""
    rows = [row for row in read_rows(folder / "math.jsonl") if row["category"] == part]
    found = [
        {"problem": row["context"], "solution": row["chain_of_thought"], "level": "", "type": part} for row in rows
    ]
    return {"train": found[:1], "test": found}


def bbh(folder: Path, part: str) -> Mapping[str, Rows]:
    """`input, target` of a task."""
    path = folder / "bbh" / f"{part}.json"
    try:
        return {"test": json.loads(path.read_text(encoding="utf-8"))["examples"]}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}:1: cannot be read: {error}") from error


def agieval(folder: Path, part: str) -> Mapping[str, Rows]:
    """`query, choices, gold`, or `query, answer` of mathematics: the zero-shot prompts of AGIEval's own code."""
    return {"test": [_exam(row) for row in read_rows(folder / f"{part}.jsonl")]}


def _exam(row: dict[str, Any]) -> dict[str, Any]:
    passage = row["passage"] or ""
    if not row["options"]:
        return {"query": f"Q: {row['question']}\nA: The answer is", "answer": row["answer"]}
    options, last = " ".join(row["options"]), LETTERS[len(row["options"]) - 1]
    query = f"{passage}Q: {row['question']} Answer Choices: {options}\nA: Among A through {last}, the answer is"
    golds = [LETTERS.index(letter) for letter in row["label"]]
    return {"query": query, "choices": row["options"], "gold": golds}


def humaneval(folder: Path, part: str) -> Mapping[str, Rows]:
    """As on the hub."""
    return {"test": read_rows(folder / "HumanEval.jsonl")}


def mbpp(folder: Path, part: str) -> Mapping[str, Rows]:
    """As on the hub: the test split has ids 11 to 510, the examples 2, 3 and 4 (Austin et al., arXiv:2108.07732)."""
    rows = read_rows(folder / "mbpp.jsonl")
    return {
        "prompt": [row for row in rows if row["task_id"] in (2, 3, 4)],
        "test": [row for row in rows if 11 <= row["task_id"] <= 510],
    }
