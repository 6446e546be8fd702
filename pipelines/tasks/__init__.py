"""Built-in tasks: instructions made by a program, with known answers and a gold reward.

A task is plain numpy and needs no model library. `task(name)` is the one way in; the registry is closed.
"""

import dataclasses
from collections.abc import Callable

from pipelines.host.spelling import did_you_mean
from pipelines.tasks import small_world
from pipelines.tasks.items import GoldReward, TaskItem


@dataclasses.dataclass(frozen=True)
class Task:
    """What every built-in task offers.

    Args:
        name: its name in `data: {task: NAME}`.
        splits: names of its disjoint parts.
        prompts: (split, size, seed) -> `size` items; the first m of n are the same for every n.
        pretraining_texts: (size, seed) -> plain texts to learn the task's world from.
        tokenizer_texts: () -> texts in which every word of the task is frequent.
        gold_reward: (item, completion, finished) -> GoldReward. `finished`: the completion ended by a stop token.
        gold_parts: names of the parts of the gold reward.
    """

    name: str
    splits: tuple[str, ...]
    prompts: Callable[[str, int, int], list[TaskItem]]
    pretraining_texts: Callable[[int, int], list[str]]
    tokenizer_texts: Callable[[], list[str]]
    gold_reward: Callable[[TaskItem, str, bool], GoldReward]
    gold_parts: tuple[str, ...]


TASKS = {
    "small_world": Task(
        name="small_world",
        splits=tuple(small_world.SPLITS),
        prompts=small_world.prompts,
        pretraining_texts=small_world.pretraining_texts,
        tokenizer_texts=small_world.tokenizer_texts,
        gold_reward=small_world.gold_reward,
        gold_parts=tuple(small_world.WEIGHTS),
    )
}


def task(name: str) -> Task:
    """The built-in task called `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TASKS:
        raise ValueError(f"Unknown task {name!r}.{did_you_mean(name, TASKS)} Expected one of: {', '.join(TASKS)}.")
    return TASKS[name]
