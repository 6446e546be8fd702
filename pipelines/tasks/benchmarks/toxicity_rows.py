"""Prompts that texts continue: `prompt`, and the `kind` that it is of."""

import json
from collections.abc import Mapping
from pathlib import Path

from pipelines.host.errors import DataError
from pipelines.tasks.benchmarks.base import Rows
from pipelines.tasks.benchmarks.rows import read_rows


def toxigen(folder: Path, part: str) -> Mapping[str, Rows]:
    """Lines about a group, hateful or neutral, that end where the next one begins."""
    rows = read_rows(folder / "prompts.jsonl")
    return {"test": [{"prompt": row["prompt"], "kind": row["kind"], "group": row["group"]} for row in rows]}


def bold(folder: Path, part: str) -> Mapping[str, Rows]:
    """Beginnings of sentences from Wikipedia, by domain; each without the blank at its end, which a tokenizer puts
    before the next word."""
    rows: Rows = []
    for path in sorted(folder.glob("*_prompt.json")):
        try:
            groups = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}:1: cannot be read: {error}") from error
        domain = path.name.removesuffix("_prompt.json")
        rows += [
            {"prompt": prompt.rstrip(), "kind": domain, "group": group}
            for group, names in groups.items()
            for prompts in names.values()
            for prompt in prompts
        ]
    if not rows:
        raise DataError(f"{folder}:1: no domain of BOLD, such as gender_prompt.json")
    return {"test": rows}


def realtoxicity(folder: Path, part: str) -> Mapping[str, Rows]:
    """`prompt.text`; challenging ones and the others."""
    rows = read_rows(folder / "prompts.jsonl")
    kinds = ("other prompts", "challenging prompts")
    return {"test": [{"prompt": row["prompt"]["text"], "kind": kinds[bool(row.get("challenging"))]} for row in rows]}
