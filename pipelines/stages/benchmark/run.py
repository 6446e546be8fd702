"""Models on benchmarks. lm-eval has the tasks, the examples, the filters and the metrics; ours are the model behind
them, the rows that are drawn, the intervals and what stands beside.
"""

import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from gemma_keras.install_advice import install_command
from pipelines.data.columns import Prompt, Text
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.jsonl import read_jsonl
from pipelines.engines.lm_eval.model import GemmaKerasLM
from pipelines.engines.lm_eval.own_tasks import built_in_task, own_task
from pipelines.engines.lm_eval.results import measure
from pipelines.engines.lm_eval.tasks import be_quiet, draw_rows, load_tasks
from pipelines.engines.lm_eval.toxicity_tasks import metric_of
from pipelines.host.errors import DataError
from pipelines.host.files import write_json, write_json_lines
from pipelines.host.parts import Keep
from pipelines.host.paths import find_path
from pipelines.sampling.frozen import frozen_dtype
from pipelines.scoring.raters import open_scorer
from pipelines.scoring.toxicity import Scorer
from pipelines.stages.benchmark.config import Benchmarks, TaskBenchmark
from pipelines.stages.context import StageContext
from pipelines.tasks import kept, task
from pipelines.tasks.benchmarks import SUITES
from pipelines.tasks.benchmarks.base import TOXICITY, Entry
from pipelines.tasks.benchmarks.choice import Chosen, choose, published, set_folders

LEAST_LETTERS = 20
"""Of a row's text that is looked for among the prompts a model learned from; shorter ones are choices and labels."""


def run(config: Benchmarks, context: StageContext) -> dict:
    """Measure every model on every benchmark.

    Args:
        config: the stage's options. context: its surroundings.

    Returns:
        `columns`, the models whose figures were published, and `benchmarks`, of each model and benchmark what `_about`
        and `_measured` say; `settings`, what they were measured with. Also in `benchmarks.json`, and some rows in
        `samples.jsonl`.
    """
    be_quiet()
    chosen = choose(config.names) + [_own(config, context, place) for place in range(len(config.own))]
    data = None if config.data is None else find_path(config.data, context.base_folder)
    toxicity = functools.cache(functools.partial(open_scorer, config.toxicity, context, config.dtype))
    found: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    with context.progress(len(config.models) * len(chosen), "asking", unit="benchmarks") as progress:
        for name in config.models:
            model = _model(name, config, context)
            seen, with_turns = context.seen_by(name), _has_turns(name, config, context)
            for one in chosen:
                context.doing(f"reading {one.name}")
                model.keep, model.cut = _keeping(name, one.name, config, context), 0
                model.advance = lambda requests, tokens: progress.advance(0, work=tokens)
                row, kept = _measured(model, one, with_turns, data, toxicity, config, context)
                if kept:
                    row["seen_in_training"] = None if seen is None else _seen_rows(seen, kept)
                    samples += [
                        {"model": _called(name), "benchmark": one.name, **shown} for shown in _shown(kept, config)
                    ]
                found.append({"model": _called(name), **row})
                progress.advance()
    _warn(found, context)
    final = {"columns": published(chosen), "benchmarks": found, "settings": _settings(config, context)}
    write_json(context.output / "benchmarks.json", final)
    write_json_lines(context.output / "samples.jsonl", samples)
    return final


def _model(name: str, config: Benchmarks, context: StageContext) -> GemmaKerasLM:
    """A model that is asked."""
    context.doing("loading weights")
    source, dtype = str(context.model_source(name)), frozen_dtype(config.dtype)
    return GemmaKerasLM(source, dtype, config.batch_tokens, config.max_length, context.seed)


def _keeping(model: str, benchmark: str, config: Benchmarks, context: StageContext) -> Callable[[str, Any], Keep]:
    """What keeps the answers of a model: in the stage's state until it is finished, and for later stages of the run."""

    def keep(kind: str, work: Any) -> Keep:
        inside = context.parts(f"{model}/{benchmark}/{kind}")
        if context.kept_parts is None:
            return inside
        digest = context.kept_parts.digest_of(model, f"models.{config.models.index(model)}")
        if digest is None:
            return inside
        return context.kept_parts.around(inside, {"model": digest, "dtype": config.dtype, "kind": kind, **work})

    return keep


def _settings(config: Benchmarks, context: StageContext) -> dict[str, Any]:
    """What the card says of how its figures came about."""
    sampled = f"{config.samples} at temperature {config.temperature:g}" if config.temperature else "greedy"
    return {
        "Engine": f"lm-eval {importlib.metadata.version('lm-eval')}, {keras.backend.backend()}, {config.dtype}",
        "Examples before a question": "the same before each" if config.fixed_shots else "as lm-eval draws them",
        "Answers in words": sampled,
        "Programs": f"run in a sandbox ({config.sandbox})" if config.sandbox != "none" else "run without a sandbox",
        "Seed": context.seed,
    }


def _called(name: str) -> str:
    """A model's name for readers: without the commit that it was pinned to."""
    return re.sub(r"@[0-9a-f]{40}", "", name)


def _own(config: Benchmarks, context: StageContext, place: int) -> Chosen:
    """Questions of one's own, or of the built-in task."""
    own = config.own[place]
    configure: Callable[..., dict[str, Any]]
    if isinstance(own, TaskBenchmark):
        built_in = task(own.task)
        items = kept.prompts(built_in, own.split, own.size, context.seed)
        configure = functools.partial(built_in_task, items, built_in, own.shots, own.max_new_tokens)
    else:
        options = own.model_dump(exclude={"name", "path"})
        configure = functools.partial(own_task, list(read_jsonl(context.file(own.path))), **options)
    entry = Entry(own.name, f"{own.shots}-shot", shots=own.shots)
    return Chosen(own.name, None, entry, own=configure)


def _measured(
    model: GemmaKerasLM,
    one: Chosen,
    with_turns: bool,
    data: Path | None,
    toxicity: Callable[[], tuple[str, Scorer]],
    config: Benchmarks,
    context: StageContext,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of a benchmark and its rows; of one that cannot be measured why, where it is one of a suite."""
    more: dict[str, Any] = {"sandbox": config.sandbox}
    metric = one.metric
    if metric == TOXICITY:
        more["toxicity"] = toxicity()
        metric = metric_of(more["toxicity"][0])
    options = (config.fixed_shots, config.samples, config.temperature, more)
    asked = one if config.shots is None or one.own is not None else one.with_shots(config.shots)
    try:
        needs = one.benchmark.needs if one.benchmark else ()
        missing = [name for name in needs if importlib.util.find_spec(name) is None]
        if missing:
            raise DataError(f"{one.name}:1: {', '.join(missing)} not installed: {install_command('lm-eval')}")
        tasks = load_tasks(asked, data, context.seed, *options)
        of_rows = sum(len(task.task_docs) for task in tasks.values())
        shots = max(task.get_config("num_fewshot") or 0 for task in tasks.values())
        tasks, rows = draw_rows(tasks, config.limit, context.seed, one.name)
        found = measure(model, tasks, metric, with_turns)
        for row in found.samples:
            row["row"] = rows[row["task"]][row["doc_id"]]
    except DataError as error:
        if one.suite is None:
            raise
        return {**_about(one), "skipped": str(error)}, []
    figures = {
        "metric": found.metric,
        "value": found.value,
        "ci95": None if found.interval is None else list(found.interval),
        "rows": found.rows,
        "of_rows": of_rows,
        "shots": shots,
        "turns": with_turns,
        "local": bool(one.own) or bool(one.benchmark and set_folders(data, one.benchmark)),
        "others": found.others,
        "others_ci95": {name: one and list(one) for name, one in found.other_intervals.items()},
        "parts": found.parts,
        "cut_contexts": model.cut,
        "skipped": None,
    }
    return {**_about(one), **figures}, found.samples


def _about(one: Chosen) -> dict[str, Any]:
    """What is known before it is measured; published figures as shares."""
    known = one.benchmark
    return {
        "benchmark": one.name,
        "suite": one.suite,
        "source": None if one.suite is None else SUITES[one.suite].source,
        "about": known.about if known else "",
        "kind": known.kind if known else "",
        "lower_is_better": bool(known and known.lower_is_better),
        "published": {column: value / 100 for column, value in one.entry.published.items()},
        "setting": one.entry.setting,
        "note": one.entry.note,
    }


def _has_turns(name: str, config: Benchmarks, context: StageContext) -> bool:
    """Whether a model is asked in turns."""
    return context.was_tuned_to_turns(name) if config.chat_template == "auto" else config.chat_template


def _seen_rows(seen: SeenPrompts, samples: Sequence[dict[str, Any]]) -> int:
    """How many of the rows hold a text that the model learned from as a prompt."""
    rows = {(one["task"], one["row"]): one["doc"] for one in samples}
    texts = [
        [value for value in row.values() if isinstance(value, str) and len(value) >= LEAST_LETTERS]
        for row in rows.values()
    ]
    return sum(any(_is_seen(seen, text) for text in row) for row in texts)


def _is_seen(seen: SeenPrompts, text: str) -> bool:
    forms = Prompt(text, None, ""), Text(text, "")
    return any(not seen.contents.isdisjoint(prompt_hashes(form).contents) for form in forms)


def _shown(samples: Sequence[dict[str, Any]], config: Benchmarks) -> list[dict[str, Any]]:
    """Some rows for a reader: what was asked, what came, and how it was counted."""
    return [
        {
            "task": one["task"],
            "row": one["row"],
            "asked": one["arguments"][0][0],
            "choices": [argument[1] for argument in one["arguments"]] if len(one["arguments"]) > 1 else None,
            "expected": one["target"],
            "answers": one["filtered_resps"],
            "counted": {name: one[name] for name in one["metrics"] if isinstance(one[name], (int, float))},
        }
        for one in samples[: config.samples_kept]
    ]


def _warn(found: Sequence[dict[str, Any]], context: StageContext) -> None:
    skipped = list(dict.fromkeys(one["benchmark"] for one in found if one["skipped"]))
    if skipped:
        context.warn(f"not measured, see the report: {', '.join(skipped)}")
    seen = [one for one in found if one.get("seen_in_training")]
    if seen:
        worst = max(seen, key=lambda one: one["seen_in_training"])
        context.warn(
            f"{worst['model']!r} learned from {worst['seen_in_training']} of the {worst['rows']} rows of "
            f"{worst['benchmark']}; see seen_in_training"
        )
