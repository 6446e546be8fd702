"""A user's own questions as a task of lm-eval's."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from pipelines.data.jsonl import Row
from pipelines.engines.lm_eval.configurations import metric, with_examples
from pipelines.graders.answers import exact_answer
from pipelines.host.errors import DataError
from pipelines.host.spelling import did_you_mean
from pipelines.tasks import Task
from pipelines.tasks.items import TaskItem

RIGHT = "right"
"""The gold part that says so, and what the figure is called."""


def own_task(
    rows: Sequence[Row], prompt: str, choices: str | None, answer: str, shots: int, max_new_tokens: int, seed: int,
    name: str,
) -> dict[str, Any]:  # fmt: skip
    """lm-eval's configuration of one's own questions. Rows drawn by the seed are the examples, and are not asked.

    Args:
        prompt, choices, answer: columns; without choices an answer in words is asked for, right as `exact_answer` says.
        shots: examples before a question.

    Raises:
        DataError: a row that lacks what it must hold, with file and line.
    """
    questions = [_checked(row, prompt, choices, answer) for row in rows]
    if len(questions) <= shots:
        place = rows[0].origin if rows else f"{name}:1"
        raise DataError(f"{place}: {len(rows)} rows; expected more than the {shots} that stand before each question")
    pool, asked = with_examples(questions, shots, seed, name)
    splits = {split: datasets.Dataset.from_list(part) for split, part in (("train", pool), ("test", asked)) if part}
    common = {
        "task": name,
        "custom_dataset": lambda **_: splits,
        "test_split": "test",
        "num_fewshot": shots,
        **({"fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}} if shots else {}),
        "doc_to_text": "prompt",
    }
    if choices is None:
        return {
            **common,
            "output_type": "generate_until",
            "doc_to_target": "answer",
            "process_results": _exact,
            "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": max_new_tokens, "do_sample": False},
            "metric_list": [metric("exact_answer")],
        }
    return {
        **common,
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [metric("acc"), metric("acc_norm")],
    }


def built_in_task(
    items: Sequence[TaskItem], task: Task, shots: int, max_new_tokens: int, seed: int, name: str
) -> dict[str, Any]:
    """lm-eval's configuration of a built-in task's questions, answered in words: right as its gold part of that name
    says, which looks past courtesies.

    Raises:
        DataError: no more items than examples.
    """
    known = {item.prompt: item for item in items}
    places = (f"{name}:{number}" for number in range(1, len(items) + 1))
    rows = [
        Row({"prompt": item.prompt, "answer": item.answer}, place) for item, place in zip(items, places, strict=True)
    ]
    asked = own_task(rows, "prompt", None, "answer", shots, max_new_tokens, seed, name)

    def right(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
        return {RIGHT: task.gold_reward(known[doc["prompt"]], answers[0], True).parts[RIGHT]}

    return {**asked, "process_results": right, "metric_list": [metric(RIGHT)]}


def _exact(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    return {"exact_answer": exact_answer(answers[0], doc["answer"])}


def _checked(row: Row, prompt: str, choices: str | None, answer: str) -> dict[str, Any]:
    question = _text(row, prompt)
    if choices is None:
        return {"prompt": question, "answer": _text(row, answer)}
    found = _value(row, choices)
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(one, str) and one for one in found):
        raise DataError(f"{row.origin}: {choices!r} must be a list of two texts or more. Received: {found!r:.80}")
    right = _value(row, answer)
    if isinstance(right, int) and not isinstance(right, bool) and 0 <= right < len(found):
        return {"prompt": question, "choices": found, "label": right}
    if isinstance(right, str) and found.count(right) == 1:
        return {"prompt": question, "choices": found, "label": found.index(right)}
    expected = f"one of the choices, or its number from 0 to {len(found) - 1}"
    raise DataError(f"{row.origin}: {answer!r} must be {expected}. Received: {right!r:.80}")


def _text(row: Row, column: str) -> str:
    value = _value(row, column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.origin}: {column!r} must be a text that is not empty. Received: {value!r:.80}")
    return value


def _value(row: Row, column: str) -> Any:
    if column not in row.values:
        known = ", ".join(row.values)
        raise DataError(f"{row.origin}: no column {column!r}.{did_you_mean(column, row.values)} Columns there: {known}")
    return row.values[column]
