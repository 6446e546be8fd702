"""What the command line sets over a workflow file: `--set dotted.key=value`, `--backend`, `--seeds`, `--seeds-from`."""

from typing import Any

from pipelines.host.errors import ConfigError
from pipelines.host.spelling import describe, did_you_mean
from pipelines.schema.named import NAME, named_fields
from pipelines.schema.roles import KeyPath
from pipelines.stages.registry import KINDS
from pipelines.workflow import yaml_reader

BLOCKS = ("seeds", "state")
"""Mappings of a workflow that it may leave out."""


def override(data: dict[str, Any], text: str) -> KeyPath:
    """Apply one `dotted.key=value`; returns the path that it set.

    Raises:
        ConfigError: no such text, or a key where none can be.
    """
    dotted, separator, value_text = text.partition("=")
    keys = dotted.split(".")
    if not separator or not all(keys):
        raise ConfigError(
            f"--set {text}: expected key=value with a dotted key, e.g. --set stages.sft.learning_rate=1e-5"
        )
    value = yaml_reader.read_text(value_text, f"--set {text}").value
    path: list[str | int] = []
    target: Any = data
    for key in keys[:-1]:
        target = _step_into(target, key, path, text)
    last = _child_key(target, keys[-1], path, text)
    target[last] = value
    return (*path, last)


def _step_into(target: Any, key: str, path: list[str | int], text: str) -> Any:
    child = _child_key(target, key, path, text)
    if isinstance(target, dict) and (name := _name_at(target, key)) is not None:
        target[child] = {NAME: name}
    elif isinstance(target, dict) and child not in target:
        if path == ["stages"] or (not path and key not in BLOCKS):
            raise ConfigError(
                f"--set {text}: there is no {'stage' if path else 'key'} {key!r}.{did_you_mean(key, target)}"
            )
        target[child] = {}
    path.append(child)
    return target[child]


def _name_at(stage: dict[str, Any], key: str) -> str | None:
    """What stands at a key of a stage, or by default, where it is a name for which a mapping may stand, such as that of
    an algorithm."""
    config = KINDS.get(str(stage.get("kind")))
    names = {} if config is None else named_fields(config)
    found = stage.get(key, names.get(key))
    return found if key in names and isinstance(found, str) else None


def _child_key(target: Any, key: str, path: list[str | int], text: str) -> str | int:
    if isinstance(target, list):
        if not key.isdecimal() or int(key) >= len(target):
            where = ".".join(map(str, path))
            raise ConfigError(
                f"--set {text}: `{where}` is a list of {len(target)}; expected an index from 0, got {key!r}"
            )
        return int(key)
    if not isinstance(target, dict):
        raise ConfigError(f"--set {text}: `{'.'.join(map(str, path))}` is {describe(target)}, it has no key {key!r}")
    return key


def override_backend(data: dict[str, Any], backend: str, applied: dict[KeyPath, str]) -> None:
    """Put `backend` into the place of the workflow's and of every stage's; `applied` learns who set it."""
    data["backend"] = backend
    applied[("backend",)] = f"--backend {backend}"
    stages = data.get("stages")
    for stage in stages.values() if isinstance(stages, dict) else ():
        if isinstance(stage, dict):
            stage.pop("backend", None)


def override_seeds(data: dict[str, Any], values: str | None, first: str | None, applied: dict[KeyPath, str]) -> None:
    """Put seeds, such as "17,18,19", and the stage that they begin at into the place of the file's; `applied` learns
    who set them.

    Raises:
        ConfigError: no list, or a stage to begin at without seeds.
    """
    written = data.get("seeds")
    seeds = {**written} if isinstance(written, dict) else {}
    if values is not None:
        option = f"--seeds {values}"
        seeds["values"] = yaml_reader.read_text(f"[{values}]", option).value
        applied[("seeds", "values")] = option
    if first is not None:
        option = f"--seeds-from {first}"
        if "values" not in seeds:
            raise ConfigError(f"{option}: there are no seeds to run from there; name them: --seeds 17,18,19")
        seeds["from"] = first
        applied[("seeds", "from")] = option
    if values is not None or first is not None:
        data["seeds"] = seeds
