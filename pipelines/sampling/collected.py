"""All responses of a collecting stage as a file, those of prompts without a preference included.

Preferences are a selection: a pair of equal responses has none, and what a model says most often is most often equal.
Whoever asks what the model says, such as a reward's normalisation, reads this file.
"""

import dataclasses
import json
from pathlib import Path

from gemma_keras.files import write_text
from pipelines.data.jsonl import read_jsonl
from pipelines.host.errors import DataError
from pipelines.sampling.rollout import Rollout

RESPONSES_FILE = "responses.jsonl"


@dataclasses.dataclass(frozen=True)
class Collected:
    """The ids of a prompt and of each response that was sampled to it."""

    prompt_ids: list[int]
    response_ids: list[list[int]]

    def sequences(self) -> list[list[int]]:
        """Prompt and response together, for each response: what a reward model scores."""
        return [self.prompt_ids + ids for ids in self.response_ids]


def write_responses(folder: Path, rollout: Rollout, samples_per_prompt: int) -> None:
    """Write `responses.jsonl`, a line a prompt.

    Args:
        rollout: rows i * samples_per_prompt + j, sample j of prompt i.
    """
    lines = []
    for start in range(0, len(rollout), samples_per_prompt):
        responses = [rollout.response_list(row) for row in range(start, start + samples_per_prompt)]
        lines.append(json.dumps({"prompt_ids": rollout.prompt_list(start), "response_ids": responses}) + "\n")
    write_text(folder / RESPONSES_FILE, "".join(lines))


def read_responses(folder: Path) -> list[Collected]:
    """The responses that the stage in `folder` sampled, prompt by prompt.

    Raises:
        DataError: no such file, or a line that is none of ours.
    """
    if not (folder / RESPONSES_FILE).is_file():
        raise DataError(
            f"{folder / RESPONSES_FILE}:1: missing. Expected all responses of a finished preference_collection stage. "
            "Run that stage again."
        )
    found = []
    for row in read_jsonl(folder / RESPONSES_FILE):
        prompt_ids, response_ids = row.values.get("prompt_ids"), row.values.get("response_ids")
        if not prompt_ids or not response_ids:
            raise DataError(
                f"{row.origin}: expected `prompt_ids` and `response_ids`, got {', '.join(row.values) or 'nothing'}. "
                "Run the stage again that wrote it."
            )
        found.append(Collected(prompt_ids, response_ids))
    return found
