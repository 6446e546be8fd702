"""lm-eval's tasks of a benchmark, over rows of a folder or of the hub."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from gemma_keras.random import generator
from pipelines.engines.lm_eval.bias_tasks import BIAS_TASKS
from pipelines.engines.lm_eval.code_tasks import CODE_TASKS
from pipelines.engines.lm_eval.configurations import with_examples
from pipelines.engines.lm_eval.toxicity_tasks import TOXICITY_TASKS
from pipelines.host.errors import DataError
from pipelines.tasks.benchmarks.base import Benchmark, Rows
from pipelines.tasks.benchmarks.choice import Chosen, set_folders

POOL = 64
"""Tested rows that become examples where a set has no others at hand."""
TASKS = Path(lm_eval.tasks.__file__).parent
OURS = {**CODE_TASKS, **BIAS_TASKS, **TOXICITY_TASKS}
"""Benchmark → our own configuration of its task, in place of lm-eval's."""

Tasks = dict[str, ConfigurableTask]


def be_quiet() -> None:
    """No bars and no notices of lm-eval's and `datasets`': a stage shows its own progress."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    lm_eval.api.task.tqdm = lambda rows, **_: rows


def load_tasks(
    chosen: Chosen,
    data: Path | None,
    seed: int,
    fixed_shots: bool = False,
    samples: int = 1,
    temperature: float = 0.0,
    more: Mapping[str, Any] | None = None,
) -> Tasks:
    """The tasks of a benchmark, by name, ready to be evaluated.

    Args:
        data: folder of data; a set that is not there, and all without one, comes from the hub.
        seed: of the examples.
        fixed_shots: True puts the first examples of the pool before every question, False those that lm-eval draws for
            each.
        samples, temperature: answers to each question that is answered in words or code, and how they are drawn.
        more: what a task of ours is given beside, see `code_tasks`.

    Raises:
        DataError: a set that is nowhere, with what to bring.
    """
    benchmark = chosen.benchmark
    if chosen.own is not None:
        found = TaskManager(include_defaults=False).load([chosen.own(seed=seed, name=chosen.name)])["tasks"]
    elif benchmark is None:
        found = _from_hub(lambda: TaskManager().load([chosen.name])["tasks"], chosen.name, "what its task names")
    else:
        include = str(TASKS / benchmark.folder) if benchmark.folder else None
        manager = TaskManager(include_defaults=False, include_path=include)
        ours = OURS.get(chosen.name)
        specs = []
        for name, part in benchmark.tasks.items():
            spec = load_yaml(manager.task_index[name].yaml_path) if ours is None else ours(samples, **(more or {}))
            if fixed_shots and "samples" not in (spec.get("fewshot_config") or {}):
                spec["fewshot_config"] = {**(spec.get("fewshot_config") or {}), "sampler": "first_n"}
            specs.append({**spec, "task": name, **_data_of(benchmark, part, chosen, data, seed)})
        found = _from_hub(lambda: manager.load(specs)["tasks"], chosen.name, benchmark.hub)
    tasks: Tasks = dict(found)
    for task in tasks.values():
        if chosen.shots is not None:
            task.set_config("num_fewshot", chosen.shots)
        elif task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(seed)
        if task.OUTPUT_TYPE == "generate_until" and (samples > 1 or temperature):
            _sample(task, samples, temperature)
    return tasks


def draw_rows(tasks: Tasks, limit: int | None, seed: int, name: str) -> tuple[Tasks, dict[str, list[int]]]:
    """The tasks with the rows that are asked alone, and which those are of each: at most `limit` of all together, drawn
    by the seed, the same for every model. A task of which none is drawn is left out."""
    places = [(task, row) for task, one in tasks.items() for row in range(len(one.task_docs))]
    if limit is not None and limit < len(places):
        drawn = generator(seed, "benchmark rows", name).permutation(len(places))[:limit]
        places = [places[i] for i in sorted(drawn.tolist())]
    rows: dict[str, list[int]] = {}
    for task, row in places:
        rows.setdefault(task, []).append(row)
    for task, chosen in rows.items():
        _ask_only(tasks[task], chosen)
    return {task: tasks[task] for task in rows}, rows


def _ask_only(task: ConfigurableTask, rows: Sequence[int]) -> None:
    """Make a task's tested split these rows. They are processed, which lm-eval would do again at each look at them."""
    docs = task.task_docs
    docs = docs.select(rows) if isinstance(docs, datasets.Dataset) else [docs[row] for row in rows]
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    task.dataset = {**task.dataset, split: docs}
    task.set_config("process_docs", None)
    task.task_docs = docs


def _from_hub(load: Callable[[], Any], name: str, hub: str) -> Any:
    """`load()`, told what to bring where the hub does not give it."""
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{name}:1: its rows are neither in the folder of data nor to be had from the hub ({hub}): {reason[:200]}. "
            "Bring them, or leave it out."
        ) from error


def _data_of(benchmark: Benchmark, part: str, chosen: Chosen, data: Path | None, seed: int) -> dict[str, Any]:
    """What makes lm-eval read rows of a folder; nothing where they come from the hub."""
    folders = set_folders(data, benchmark)
    if not folders:
        return _on_hub(benchmark, chosen) if chosen.name in OURS else {}
    read = functools.partial(_splits, benchmark, tuple(folders), part, chosen.shots or 0, seed, chosen.name)
    return {"custom_dataset": lambda **_: read(), "dataset_path": "json"}


def _on_hub(benchmark: Benchmark, chosen: Chosen) -> dict[str, Any]:
    """Of a task of ours; those that lm-eval has none of are read from a folder alone."""
    if not benchmark.folder:
        raise DataError(
            f"{chosen.name}:1: its rows are not in the folder of data. Bring them there ({benchmark.hub}), as "
            f"{benchmark.local}, or leave it out."
        )
    return {"dataset_path": benchmark.hub}


def _splits(
    benchmark: Benchmark, folders: tuple[Path, ...], part: str, shots: int, seed: int, name: str
) -> dict[str, datasets.Dataset]:
    found: dict[str, Rows] = {}
    for folder in folders:
        for split, rows in benchmark.read(folder, part).items():
            found.setdefault(split, []).extend(rows)
    found = with_pool(found, benchmark, shots, seed, name)
    return {split: datasets.Dataset.from_list(rows) for split, rows in found.items() if rows}


def with_pool(splits: Mapping[str, Rows], benchmark: Benchmark, shots: int, seed: int, name: str) -> dict[str, Rows]:
    """Splits that hold examples to show: where the set has none at hand, rows drawn by the seed, which, and their like,
    are not asked then."""
    found = dict(splits)
    if not benchmark.pool or benchmark.pool in found:
        return found
    tested = found[benchmark.tested]
    if not shots:
        # lm-eval opens it, and shows nothing of it.
        return {**found, benchmark.pool: tested[:1]}
    pool, asked = with_examples(tested, min(POOL, len(tested) // 2), seed, name)
    return {**found, benchmark.pool: pool, benchmark.tested: asked}


def _sample(task: ConfigurableTask, samples: int, temperature: float) -> None:
    """Several answers, of which words are also counted by what most of them say."""
    task.set_config("repeats", samples)
    task.set_config("generation_kwargs", {"do_sample": temperature > 0, "temperature": temperature}, update=True)
    if task.config.task in OURS or samples == 1:
        return
    for one in task.config.filter_list or [{"name": "none", "filter": [{"function": "take_first"}]}]:
        steps = [step for step in one["filter"] if step["function"] != "take_first"]
        steps += [{"function": "majority_vote"}, {"function": "take_first"}]
        components = [[step["function"], {k: v for k, v in step.items() if k != "function"}] for step in steps]
        task._filters.append(build_filter_ensemble(f"{one['name']}-maj@{samples}", components))
