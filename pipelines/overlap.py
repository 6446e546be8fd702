"""Whether a stage's prompts were seen by another stage of the run, by the hash of their content (built-in task)."""

from collections.abc import Sequence

from pipelines.configs import Data, TaskData, Workflow
from pipelines.data.columns import Prompt
from pipelines.data.sources import load_rows
from pipelines.tasks import task


def prompts_seen_elsewhere(examples: Sequence[Prompt], data: Data, workflow: Workflow, stage: str, base_folder) -> dict[str, int] | None:
    """How many of some prompts share their content with the data of each other stage.

    Args:
        examples: the prompts of `stage`, from `data`.

    Returns:
        For each stage that takes prompts of the same task, the number of shared contents; None where `data` is not the built-in task.
        Plain texts (pretraining) hold no prompts to compare and are left out: the task's splits keep them apart.
    """
    if not isinstance(data, TaskData):
        return None
    content_hash = task(data.task).content_hash
    own = {content_hash(example.prompt) for example in examples if isinstance(example.prompt, str)}
    shared = {}
    for name, config in workflow.stages.items():
        other = getattr(config, "data", None)
        is_training = name != stage and config.kind != "evaluation"
        if not is_training or not isinstance(other, TaskData) or other.task != data.task or other.split == "pretraining":
            continue
        rows = load_rows(other, base_folder, seed=workflow.seed)
        shared[name] = len(own & {content_hash(row.values["prompt"]) for row in rows})
    return shared
