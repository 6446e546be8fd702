"""Stages that a workflow repeats: `kind: repeat` written out, a stage of its own for each stage of each round.

    loop: {kind: repeat, times: 2, from: sft, stages: {pairs: {...}, dpo: {...}}}

becomes `loop_1_pairs`, `loop_1_dpo`, `loop_2_pairs`, `loop_2_dpo`. A round starts from the last model of the one
before, the first one from `from`: that is the `from` of each of its stages that has none. Inside the loop its stages
are called as they are written, and mean those of the same round; outside, `loop` means the last model of the last
round, and any other is called by its whole name.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.schema.roles import REWARD_MODEL_PREFIX, KeyPath, references
from pipelines.stages.registry import KINDS
from pipelines.workflow.complaints import Complaint
from pipelines.workflow.schema import MOST_ROUNDS, REPEAT


@dataclasses.dataclass(frozen=True)
class Expanded:
    """A workflow without loops.

    Args:
        data: as `Workflow` takes it.
        origins: of each stage that a loop made: where the file has it. starts: of those that start from what the loop
            starts from: where the file says so.
        problems: names that cannot be written out.
    """

    data: dict[str, Any]
    origins: Mapping[str, KeyPath]
    starts: Mapping[str, KeyPath]
    problems: list[Complaint]

    def in_file(self, path: KeyPath) -> KeyPath:
        """Where the file has what stands at `path` in `data`."""
        if len(path) > 1 and path[0] == "stages" and path[1] in self.origins:
            if path[2:] == ("from",) and path[1] in self.starts:
                return self.starts[str(path[1])]
            return (*self.origins[str(path[1])], *path[2:])
        return path


def expand(data: Mapping[str, Any]) -> Expanded:
    """Write the loops of a workflow out.

    Args:
        data: of the file. What is wrong in it beside the loops is left as it is.
    """
    written = data.get("stages")
    if not isinstance(written, Mapping):
        return Expanded(dict(data), {}, {}, [])
    stages: dict[str, Any] = {}
    origins: dict[str, KeyPath] = {}
    starts: dict[str, KeyPath] = {}
    last_models: dict[str, str] = {}
    first_stages: dict[str, str] = {}
    problems: list[Complaint] = []
    for name, stage in written.items():
        if not _is_loop(stage):
            stages[name] = stage
            continue
        made = dict(_rounds(str(name), stage))
        taken = [one for one in made if one in written]
        problems += [(("stages", name), True, f"makes a stage {one!r}, which there is; rename one") for one in taken]
        stages |= {one: config for one, (_, config) in made.items() if one not in taken}
        origins |= {one: ("stages", str(name), "stages", inner) for one, (inner, _) in made.items()}
        starts |= {one: ("stages", str(name), "from") for one, (inner, _) in made.items() if _lacks_from(stage, inner)}
        first_stages[str(name)] = next(iter(made), str(name))
        last = [one for one, (_, config) in made.items() if _makes_model(config)]
        if last:
            last_models[str(name)] = last[-1]
        else:
            message = (
                "no stage in it leaves a model for the next round; expected one, or its stages written by themselves"
            )
            problems.append((("stages", name, "stages"), True, message))
    # A loop's own stages too: one may start where another loop ended.
    expanded = {**data, "stages": {name: _renamed(stage, last_models) for name, stage in stages.items()}}
    seeds = data.get("seeds")
    if isinstance(seeds, Mapping) and seeds.get("from") in first_stages:
        expanded["seeds"] = {**seeds, "from": first_stages[seeds["from"]]}
    return Expanded(expanded, origins, starts, problems)


def _rounds(name: str, loop: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    """Each stage that a loop makes: its name, its name within the loop, its configuration."""
    inner = {str(one): config for one, config in loop["stages"].items() if isinstance(config, Mapping)}
    start = loop.get("from")
    for number in range(1, loop["times"] + 1):
        names = {one: f"{name}_{number}_{one}" for one in inner}
        model = start
        for one, config in inner.items():
            made = _renamed(config, names)
            if start is not None and _lacks_from(loop, one):
                made = {**made, "from": start}
            if _makes_model(config):
                model = names[one]
            yield names[one], (one, made)
        start = model


def _renamed(stage: Any, names: Mapping[str, str]) -> Any:
    """A stage whose references to `names` are to what they stand for."""
    if not isinstance(stage, Mapping) or stage.get("kind") not in KINDS:
        return stage
    made = copy.deepcopy(dict(stage))
    for reference in references(KINDS[str(stage["kind"])], stage):
        if not reference.is_function and reference.target in names:
            prefix = REWARD_MODEL_PREFIX if reference.name.startswith(REWARD_MODEL_PREFIX) else ""
            *parents, last = reference.path
            target: Any = made
            for key in parents:
                target = target[key]
            target[last] = prefix + names[reference.target]
    return made


def _is_loop(stage: Any) -> bool:
    """Whether it is a loop, and right enough to be written out."""
    if not isinstance(stage, Mapping) or stage.get("kind") != REPEAT:
        return False
    times, inner = stage.get("times"), stage.get("stages")
    return type(times) is int and 1 <= times <= MOST_ROUNDS and isinstance(inner, Mapping)


def _lacks_from(loop: Mapping[str, Any], inner: str) -> bool:
    """Whether a stage of a loop could start from a model, and says of none."""
    config = loop["stages"][inner]
    kind = config.get("kind")
    return kind in KINDS and "from_" in KINDS[kind].model_fields and config.get("from") is None


def _makes_model(config: Mapping[str, Any]) -> bool:
    return config.get("kind") in KINDS and KINDS[str(config["kind"])].produces == "policy"
