"""Reads a workflow file into checked, typed stages; every configuration error is reported, all at once, with its
place."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pydantic

from gemma_keras import backend_choice
from pipelines.host.errors import ConfigError
from pipelines.host.paths import find_path, shipped_workflows
from pipelines.host.spelling import describe
from pipelines.plugins.sources import UserFunction
from pipelines.schema.base import StageConfig
from pipelines.schema.roles import KeyPath, LocalFile, marked, plain, put, references
from pipelines.stages.registry import KINDS
from pipelines.workflow import checks, complaints, functions, loops, yaml_reader
from pipelines.workflow.complaints import Complaint
from pipelines.workflow.overrides import override, override_backend, override_seeds
from pipelines.workflow.schema import Stage, Workflow, WorkflowFile
from pipelines.workflow.yaml_reader import Document

_STAGE: pydantic.TypeAdapter[StageConfig] = pydantic.TypeAdapter(Stage)


@dataclasses.dataclass(frozen=True)
class LoadedWorkflow:
    """A workflow that passed all checks.

    Args:
        workflow: with loops written out, defaults filled in and local paths made absolute.
        base_folder: folder of the YAML file.
        document: the file, for places in messages. overrides: key path → `--set` text that set it.
        in_file: from the path of a setting of `workflow` to that in the file, which has loops.
        user_functions: reward functions of the user's own that it names.
    """

    workflow: Workflow
    base_folder: Path
    document: Document
    overrides: dict[KeyPath, str] = dataclasses.field(default_factory=dict)
    in_file: Callable[[KeyPath], KeyPath] = tuple
    user_functions: dict[str, UserFunction] = dataclasses.field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line:column` of a setting, or the `--set` that made it."""
        return _where(self.document, self.overrides, self.in_file(path), of_key=False)

    def as_data(self) -> dict[str, Any]:
        """Plain values; `yaml_reader.dump` of it, loaded again, is the same workflow."""
        return self.workflow.model_dump(mode="json", by_alias=True, exclude_none=True)


def load(
    path: Path,
    overrides: Sequence[str] = (),
    backend: str | None = None,
    seeds: str | None = None,
    seeds_from: str | None = None,
    plugins: Sequence[Path] = (),
) -> LoadedWorkflow:
    """Read and check a workflow file.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` texts, the value in YAML, applied in order.
        backend: backend for all stages, over what the file says.
        seeds: such as "17,18,19", over the file's `seeds.values`. seeds_from: a stage, over its `seeds.from`.
        plugins: Python files with reward functions, which are read and not run.

    Raises:
        ConfigError: one line for each problem, `file:line:column: what is wrong`.
    """
    if not path.exists():
        shipped = shipped_workflows()
        name = path.name.removesuffix(".yaml")
        hint = (
            f" Get the shipped one by: gemma-keras copy {name}"
            if name in shipped
            else " `gemma-keras list` shows the shipped ones"
        )
        raise ConfigError(f"{path}: no such workflow file.{hint}")
    document = yaml_reader.read_file(path)
    if not isinstance(document.value, dict):
        raise ConfigError(
            f"{document.where(())}: expected a mapping with name and stages, got {describe(document.value)}"
        )
    applied: dict[KeyPath, str] = {}
    for text in overrides:
        applied[override(document.value, text)] = f"--set {text}"
    if backend is not None:
        override_backend(document.value, backend, applied)
    override_seeds(document.value, seeds, seeds_from, applied)
    base_folder = path.resolve().parent
    expanded = loops.expand(document.value)
    user_functions, found = functions.resolve(document.value, expanded.data, plugins)
    problems = [(expanded.in_file(path), of_key, message) for path, of_key, message in found]
    workflow, found = _validate(document.value, expanded, base_folder, user_functions.known)
    problems += found
    if problems or workflow is None:
        # In the order of the file; what has no place there, such as --set, comes last.
        places = sorted((_sort_key(document, applied, problem), problem) for problem in problems)
        lines = [f"{_where(document, applied, path, of_key)}: {message}" for _, (path, of_key, message) in places]
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    absolute = _with_absolute_paths(workflow, base_folder)
    return LoadedWorkflow(absolute, base_folder, document, applied, expanded.in_file, user_functions.used)


def _validate(
    data: dict[str, Any], expanded: loops.Expanded, base_folder: Path, own_functions: Collection[str]
) -> tuple[Workflow | None, list[Complaint]]:
    """The workflow without loops, or None; and all complaints, with their paths in the file."""
    problems: list[Complaint] = list(expanded.problems)
    workflow = None
    stages: dict[str, StageConfig]
    raw: Any = expanded.data.get("stages")
    raw = raw if isinstance(raw, dict) else {}
    try:
        WorkflowFile.model_validate(data)
        workflow = Workflow.model_validate(expanded.data)
        stages = {**workflow.stages}
    except pydantic.ValidationError as error:
        problems += complaints.problems(error)
        stages = _valid_stages(raw)
    kinds = {name: str(stage.get("kind")) if isinstance(stage, dict) else "" for name, stage in raw.items()}
    for name, kind in kinds.items():
        if kind in KINDS:
            written = plain(stages[name]) if name in stages else raw[name]
            found = checks.reference_problems(name, kind, written, kinds, base_folder, own_functions)
            if name in stages:
                found += [*checks.settings_problems(stages[name]), *checks.gate_problems(name, stages[name], kinds)]
                found += checks.rows_problems(stages[name], stages)
            problems += [(("stages", name, *path), False, message) for path, message in found]
    found = checks.seeds_problems(expanded.data.get("seeds"), kinds)
    if workflow is not None and workflow.seeds is not None:
        found += checks.settings_problems(workflow.seeds)
    problems += [(("seeds", *path), False, message) for path, message in found]
    if workflow is not None:
        problems += [
            (path, path[:1] == ("stages",), message) for path, message in checks.model_problems(workflow, base_folder)
        ]
        problems += _backend_problems(workflow)
    return workflow, [(expanded.in_file(path), of_key, message) for path, of_key, message in problems]


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
    """The backend of a stage: its own, the workflow's, KERAS_BACKEND, the Keras configuration file, else what is
    installed.

    Raises:
        ConfigError: unknown, or not installed; says which package to install, and which option chooses another backend.
    """
    try:
        return backend_choice.choose_backend(workflow.stages[name].backend or workflow.backend)
    except backend_choice.BackendError as error:
        option = f" (--backend {error.alternatives[0]})" if error.alternatives else ""
        raise ConfigError(f"{error}{option}") from error


def _backend_problems(workflow: Workflow) -> list[Complaint]:
    found: dict[str, Complaint] = {}
    for name, config in workflow.stages.items():
        path: KeyPath = ("stages", name, "backend") if config.backend else ("backend",)
        try:
            stage_backend(workflow, name)
        except ConfigError as error:
            found.setdefault(str(error), (path, False, str(error)))
    return list(found.values())


def _where(document: Document, overrides: dict[KeyPath, str], path: KeyPath, of_key: bool) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in overrides:
            return overrides[path[:length]]
    return document.where(path, of_key)


def _sort_key(document: Document, overrides: dict[KeyPath, str], problem: Complaint) -> tuple[int, int, int, str]:
    place = _where(document, overrides, problem[0], problem[1])
    if place.startswith("--"):
        return 1, 0, 0, place
    line, column = place.rsplit(":", 2)[1:]
    return 0, int(line), int(column), problem[2]


def _with_absolute_paths(workflow: Workflow, base_folder: Path) -> Workflow:
    """Local paths made absolute, so that the run folder's copy of the workflow means the same from anywhere."""

    def absolute(name: str) -> str:
        return str(find_path(name, base_folder) or name)

    data = workflow.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(workflow.model, str):
        data["model"] = absolute(workflow.model)
    for name, config in workflow.stages.items():
        for reference in references(type(config), data["stages"][name]):
            if not reference.is_function and reference.role.is_model and reference.target not in workflow.stages:
                prefix = reference.name.removesuffix(reference.target)
                put(data["stages"][name], reference.path, prefix + absolute(reference.target))
        for found in list(marked(type(config), data["stages"][name])):
            if isinstance(found.mark, LocalFile) and found.value is not None:
                put(data["stages"][name], found.path, absolute(found.value))
    return Workflow.model_validate(data)
