"""Reads a workflow file into checked, typed stages; every configuration error is reported, all at once, with its place."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic

from gemma_keras import backend_choice
from pipelines import references, schema_errors, yaml_reader
from pipelines.configs import KINDS, FileData, ScratchModel, Stage, StageConfig, Workflow
from pipelines.errors import ConfigError
from pipelines.paths import find_path, shipped_workflows
from pipelines.yaml_reader import Document, KeyPath

_STAGE = pydantic.TypeAdapter(Stage)


@dataclasses.dataclass(frozen=True)
class LoadedWorkflow:
    """A workflow that passed all checks.

    Args:
        workflow: with defaults filled in and local paths made absolute.
        base_folder: folder of the YAML file.
        document: the file, for places in messages. overrides: key path → `--set` text that set it.
    """

    workflow: Workflow
    base_folder: Path
    document: Document
    overrides: dict[KeyPath, str] = dataclasses.field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line:column` of a setting, or the `--set` that made it."""
        return _where(self.document, self.overrides, path, of_key=False)

    def as_data(self) -> dict[str, Any]:
        """Plain values; `yaml_reader.dump` of it, loaded again, is the same workflow."""
        return self.workflow.model_dump(mode="json", by_alias=True, exclude_none=True)


def load(path: Path, overrides: Sequence[str] = (), backend: str | None = None) -> LoadedWorkflow:
    """Read and check a workflow file.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` texts, the value in YAML, applied in order.
        backend: backend for all stages, over what the file says.

    Raises:
        ConfigError: one line for each problem, `file:line:column: what is wrong`.
    """
    if not path.exists():
        shipped = shipped_workflows()
        name = path.name.removesuffix(".yaml")
        hint = f" Get the shipped one by: gemma-keras copy {name}" if name in shipped else " `gemma-keras list` shows the shipped ones"
        raise ConfigError(f"{path}: no such workflow file.{hint}")
    document = yaml_reader.read_file(path)
    if not isinstance(document.value, dict):
        raise ConfigError(f"{document.where(())}: expected a mapping with name and stages, got {schema_errors.describe(document.value)}")
    applied: dict[KeyPath, str] = {}
    for text in overrides:
        applied[_override(document.value, text)] = f"--set {text}"
    if backend is not None:
        _override_backend(document.value, backend, applied)
    base_folder = path.resolve().parent
    workflow, problems = _validate(document.value, base_folder)
    if problems or workflow is None:
        # In the order of the file; what has no place there, such as --set, comes last.
        places = sorted((_sort_key(document, applied, problem), problem) for problem in problems)
        lines = [f"{_where(document, applied, path, of_key)}: {message}" for _, (path, of_key, message) in places]
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return LoadedWorkflow(_with_absolute_paths(workflow, base_folder), base_folder, document, applied)


def _validate(data: dict[str, Any], base_folder: Path) -> tuple[Workflow | None, list[tuple[KeyPath, bool, str]]]:
    problems: list[tuple[KeyPath, bool, str]] = []
    workflow = None
    stages: dict[str, StageConfig]
    try:
        workflow = Workflow.model_validate(data)
        stages = {**workflow.stages}
    except pydantic.ValidationError as error:
        problems = schema_errors.problems(error, data)
        stages = _valid_stages(data.get("stages"))
    raw: Any = data.get("stages")
    raw = raw if isinstance(raw, dict) else {}
    kinds = {name: str(stage.get("kind")) if isinstance(stage, dict) else "" for name, stage in raw.items()}
    names = list(kinds)
    for position, name in enumerate(names):
        earlier = names[:position]
        if name in stages:
            found = references.stage_problems(name, stages[name], kinds, earlier, base_folder)
        elif kinds[name] in KINDS:
            found = references.reference_problems(name, references.partial_config(kinds[name], raw[name]), kinds, earlier, base_folder)
        else:
            found = []
        problems += [(("stages", name, *path), False, message) for path, message in found]
    if workflow is not None:
        problems += [(path, path[:1] == ("stages",), message) for path, message in references.model_problems(workflow, base_folder)]
        problems += _backend_problems(workflow)
    return workflow, problems


def _valid_stages(raw: Any) -> dict[str, StageConfig]:
    """The stages that are right in themselves, so that their references are checked although others are wrong."""
    stages: dict[str, StageConfig] = {}
    for name, data in raw.items() if isinstance(raw, dict) else ():
        try:
            stages[name] = _STAGE.validate_python(data)
        except pydantic.ValidationError:
            continue
    return stages


def stage_backend(workflow: Workflow, name: str) -> str:
    """The backend of a stage: its own, the workflow's, KERAS_BACKEND, the Keras configuration file, else what is installed.

    Raises:
        ConfigError: unknown, or not installed; says which package to install.
    """
    try:
        return backend_choice.choose_backend(workflow.stages[name].backend or workflow.backend)
    except backend_choice.BackendError as error:
        raise ConfigError(str(error)) from error


def _backend_problems(workflow: Workflow) -> list[tuple[KeyPath, bool, str]]:
    found: dict[str, tuple[KeyPath, bool, str]] = {}
    for name, config in workflow.stages.items():
        path: KeyPath = ("stages", name, "backend") if config.backend else ("backend",)
        try:
            stage_backend(workflow, name)
        except ConfigError as error:
            found.setdefault(str(error), (path, False, str(error)))
    return list(found.values())


def _override(data: dict[str, Any], text: str) -> KeyPath:
    """Apply one `dotted.key=value`; returns the path that it set."""
    dotted, separator, value_text = text.partition("=")
    keys = dotted.split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {text}: expected key=value with a dotted key, e.g. --set stages.sft.learning_rate=1e-5")
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
    if isinstance(target, dict) and child not in target:
        if path == ["stages"] or not path:
            raise ConfigError(f"--set {text}: there is no {'stage' if path else 'key'} {key!r}.{schema_errors.did_you_mean(key, target)}")
        target[child] = {}
    path.append(child)
    return target[child]


def _child_key(target: Any, key: str, path: list[str | int], text: str) -> str | int:
    if isinstance(target, list):
        if not key.isdecimal() or int(key) >= len(target):
            where = ".".join(map(str, path))
            raise ConfigError(f"--set {text}: `{where}` is a list of {len(target)}; expected an index from 0, got {key!r}")
        return int(key)
    if not isinstance(target, dict):
        raise ConfigError(f"--set {text}: `{'.'.join(map(str, path))}` is {schema_errors.describe(target)}, it has no key {key!r}")
    return key


def _override_backend(data: dict[str, Any], backend: str, applied: dict[KeyPath, str]) -> None:
    data["backend"] = backend
    applied[("backend",)] = f"--backend {backend}"
    stages = data.get("stages")
    for stage in stages.values() if isinstance(stages, dict) else ():
        if isinstance(stage, dict):
            stage.pop("backend", None)


def _where(document: Document, overrides: dict[KeyPath, str], path: KeyPath, of_key: bool) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in overrides:
            return overrides[path[:length]]
    return document.where(path, of_key)


def _sort_key(document: Document, overrides: dict[KeyPath, str], problem: tuple[KeyPath, bool, str]) -> tuple[int, int, int, str]:
    place = _where(document, overrides, problem[0], problem[1])
    if place.startswith("--"):
        return 1, 0, 0, place
    line, column = place.rsplit(":", 2)[1:]
    return 0, int(line), int(column), problem[2]


def _with_absolute_paths(workflow: Workflow, base_folder: Path) -> Workflow:
    """Local paths made absolute, so that the run folder's copy of the workflow means the same from anywhere."""
    names = set(workflow.stages)

    def absolute(name: str) -> str:
        found = None if name in names else find_path(name, base_folder)
        return name if found is None else str(found)

    data = workflow.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(workflow.model, str):
        data["model"] = absolute(workflow.model)
    elif isinstance(workflow.model, ScratchModel):
        data["model"] = workflow.model.model_dump(mode="json", exclude_none=True)
    for name, config in workflow.stages.items():
        stage = data["stages"][name]
        for reference in references.references(config):
            if reference.is_function or reference.role == "data":
                continue
            target: Any = stage
            for key in reference.path[:-1]:
                target = target[key]
            prefix = reference.name[: len(reference.name) - len(reference.target)]
            target[reference.path[-1]] = prefix + absolute(reference.target)
        settings = getattr(config, "data", None)
        if isinstance(settings, FileData):
            stage["data"]["path"] = str(find_path(settings.path, base_folder) or settings.path)
        if "ratings" in stage:
            stage["ratings"] = str(find_path(stage["ratings"], base_folder) or stage["ratings"])
    return Workflow.model_validate(data)
