"""Rows of sets about bias, as they lie in files, with the columns that the sets have on the hub."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.host.errors import DataError
from pipelines.tasks.benchmarks.base import Rows
from pipelines.tasks.benchmarks.rows import read_rows

PRONOUNS = {
    "male": ("he", "him", "his", "himself"),
    "female": ("she", "her", "hers", "herself"),
    "neutral": ("they", "them", "their", "theirs", "themselves", "themself"),
}
"""By gender, as Winogender names them."""
_BRACKETS = re.compile(r"\[([^\]]*)\]")
_ARTICLE = re.compile(r"^(the|an?) ")


def bbq(folder: Path, part: str) -> Mapping[str, Rows]:
    """Rows of every category that lies there."""
    paths = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not paths:
        raise DataError(f"{folder}:1: no category of BBQ, such as Age.jsonl")
    return {"test": [row for path in paths for row in read_rows(path)]}


def crows_pairs(folder: Path, part: str) -> Mapping[str, Rows]:
    """`sent_more, sent_less, stereo_antistereo, bias_type`."""
    path = folder / "crows_pairs_anonymized.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # Their number has no name; lm-eval's empty prompt would be taken for it.
            return {"test": [{name: value for name, value in row.items() if name} for row in csv.DictReader(file)]}
    except OSError as error:
        raise DataError(f"{path}:1: cannot be read: {error.strerror}") from error


def truthfulqa(folder: Path, part: str) -> Mapping[str, Rows]:
    """`question, mc1_targets, mc2_targets`, each with `choices` and `labels`; of mc1 the first choice is the true
    one."""
    path = folder / "mc_task.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}:1: cannot be read: {error}") from error
    return {"validation": [{"question": row["question"], **_targets(row)} for row in found]}


def _targets(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name in ("mc1_targets", "mc2_targets"):
        ordered = sorted(row[name].items(), key=lambda one: -one[1])
        found[name] = {"choices": [text for text, _ in ordered], "labels": [label for _, label in ordered]}
    return found


def winogender(folder: Path, part: str) -> Mapping[str, Rows]:
    """`sentence, pronoun, occupation, participant, label, gender`; label 0 is the occupation. The name of a sentence
    says all but its pronoun."""
    path = folder / "all_sentences.tsv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {"test": [_schema(path, row) for row in csv.DictReader(file, delimiter="\t")]}
    except OSError as error:
        raise DataError(f"{path}:1: cannot be read: {error.strerror}") from error


def _schema(path: Path, row: Mapping[str, str]) -> dict[str, Any]:
    occupation, participant, answer, gender, _ = row["sentid"].split(".")
    found = [word for word in re.findall(r"\w+", row["sentence"]) if word.lower() in PRONOUNS[gender]]
    if not found:
        raise DataError(f"{path}:1: no pronoun of {gender} in {row['sentence']!r}")
    return {
        "sentid": row["sentid"],
        "sentence": row["sentence"],
        "pronoun": found[0].lower(),
        "occupation": occupation,
        "participant": participant,
        "gender": gender,
        "label": int(answer),
    }


def winobias(folder: Path, part: str) -> Mapping[str, Rows]:
    """`sentence, pronoun, choices, label, is_pro` of type 1 or 2: the two occupations of a sentence in their order, and
    whether the right one is the stereotype for its pronoun."""
    occupations = [
        line.strip()
        for name in ("male_occupations.txt", "female_occupations.txt")
        for line in _lines(folder / name)
        if line.strip()
    ]
    rows = []
    for is_pro, name in ((1, "pro"), (0, "anti")):
        path = folder / f"{name}_stereotyped_type{part}.txt.test"
        rows += [
            {**_sentence(f"{path}:{number}", line, occupations), "is_pro": is_pro}
            for number, line in enumerate(_lines(path), 1)
            if line.strip()
        ]
    return {"test": rows}


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}:1: cannot be read: {error.strerror}") from error


def _sentence(origin: str, line: str, occupations: list[str]) -> dict[str, Any]:
    """`1 [The developer] argued with the designer because [she] ...`"""
    marked = line.partition(" ")[2]
    sentence = marked.replace("[", "").replace("]", "")
    pronouns = {word for words in PRONOUNS.values() for word in words}
    inside = _BRACKETS.findall(marked)
    pronoun = next((one for one in inside if one.lower() in pronouns), None)
    right = next((_ARTICLE.sub("", one.lower()) for one in inside if one.lower() not in pronouns), "")
    places = {}
    for name in occupations:
        found = re.search(rf"\b{re.escape(name)}\b", sentence, re.IGNORECASE)
        if found and not any(name != other and name in other and other in sentence for other in occupations):
            places[name] = found.start()
    own = next((name for name in places if name.lower() == right), None)
    others = sorted((name for name in places if name != own), key=places.__getitem__)
    if pronoun is None or own is None or not others:
        raise DataError(
            f"{origin}: expected two occupations, of them one in brackets, and a pronoun; got {line!r:.120}"
        )
    choices = sorted((own, others[0]), key=places.__getitem__)
    return {"sentence": sentence, "pronoun": pronoun.lower(), "choices": choices, "label": choices.index(own)}
