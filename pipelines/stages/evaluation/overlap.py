"""Whether a stage's prompts were seen by another stage of the run, by the hash of their content (built-in task)."""

from collections.abc import Sequence

from pipelines.data.columns import Prompt
from pipelines.data.sources import load_rows
from pipelines.schema.data import FileData, TaskData
from pipelines.stages.context import StageContext
from pipelines.tasks import task


def prompts_seen_elsewhere(
    examples: Sequence[Prompt], data: str | FileData | TaskData, context: StageContext
) -> dict[str, int] | None:
    """How many of some prompts share their content with the data of each other stage.

    Args:
        examples: the prompts of the stage, from `data`.
        context: its `also` names the data of other stages, see `Evaluation.also_reads`.

    Returns:
        For each of those stages the number of shared contents; None where `data` is not the built-in task.
    """
    if not isinstance(data, TaskData):
        return None
    content_hash = task(data.task).content_hash
    own = {content_hash(example.prompt) for example in examples if isinstance(example.prompt, str)}
    shared = {}
    for name, other in context.also.items():
        rows = load_rows(TaskData.model_validate(other), context.base_folder, seed=context.seed)
        shared[name] = len(own & {content_hash(row.values["prompt"]) for row in rows})
    return shared
