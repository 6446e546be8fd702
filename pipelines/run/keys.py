"""A stage's key: the hash of everything its result depends on. Equal keys mean that the finished folder can stand.

Paths do not enter, the contents they lead to do; so a run can be moved, and an edited data file is noticed. Of what
lies on the hub the commit enters.
"""

import fnmatch
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma_keras import backend_choice
from gemma_keras.checkpoints.formats import FILE_SUFFIXES
from pipelines.host.errors import DataError
from pipelines.host.files import file_digest
from pipelines.host.paths import PACKAGE, find_model, find_path
from pipelines.plugins.sources import UserFunction
from pipelines.run.hub_commits import HubCommit
from pipelines.run.hub_names import put_contents
from pipelines.schema.model import ScratchModel
from pipelines.schema.roles import (
    LocalFile,
    functions_of,
    input_stages,
    marked,
    plain,
    references_of,
    uses_workflow_model,
)
from pipelines.workflow.schema import Workflow

BACKEND_PACKAGES = {"jax": ("jax", "jaxlib"), "tensorflow": ("tensorflow",), "torch": ("torch",)}
PLAIN_FILES = (".jsonl", ".json", ".txt", *FILE_SUFFIXES, "")
"""Read by our own code; the empty one is a folder, of a model."""
UNKNOWN = "unknown"
"""In place of a commit; no stage runs under it."""
ARITHMETIC_SWITCHES = (
    "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE",
)  # fmt: skip
PRESENTATION = (
    "cli.py",
    "__main__.py",
    "commands/*",
    "report/*",
    "host/activity.py",
    "host/progress.py",
    "stages/*/report.py",
    "stages/*/report/*",
)
"""What of `pipelines` only shows results: editing it does not make a model stale."""

KeyParts = dict[str, Any]


def key_of(parts: KeyParts) -> str:
    """The key: SHA-256 over the parts, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def key_parts(
    workflow: Workflow,
    name: str,
    backend: str,
    input_keys: dict[str, str],
    base_folder: Path,
    user_functions: Mapping[str, UserFunction],
    hub: Mapping[str, HubCommit],
) -> KeyParts:
    """What a stage's result depends on, part by part, so that a change can be named.

    Args:
        workflow: resolved. name: the stage. backend: the one it will run on.
        input_keys: key of every earlier stage. base_folder: where relative paths start.
        user_functions: reward functions of the user's own, of which those count that the stage names.
        hub: what the stage reads from there, by dotted key.

    Returns:
        Plain JSON: stage, kind, seed, backend, config (dotted key → value), inputs (stage → key), data (dotted
        key → digest, or commit), functions (name → digest), code (digest), versions (package → version), machine (what
        decides about arithmetic, see `machine`).

    Raises:
        DataError: a file can not be read.
    """
    config = workflow.stages[name]
    settings = {key: value for key, value in plain(config).items() if key not in ("kind", "backend", "require")}
    digests: dict[str, str] = {}
    paths = local_paths(workflow, name, base_folder)
    for dotted, path in paths.items():
        digests[dotted] = content_digest(path)
        _replace(settings, dotted.partition("/")[0], "(content)")
    if uses_workflow_model(config) and "model" not in digests:
        model = workflow.model
        settings["model"] = model.model_dump(mode="json") if isinstance(model, ScratchModel) else model
    for dotted, one in hub.items():
        put_contents(settings, dotted, one.name)
        if one.name.unpinned is None:
            digests[dotted] = one.commit or UNKNOWN
    # What `datasets` reads: files of its kinds, and the hub's.
    reads_tables = any(path.suffix not in PLAIN_FILES for path in paths.values()) or any(
        one.name.kind == "data" for one in hub.values()
    )
    return {
        "stage": name,
        "kind": config.kind,
        "seed": workflow.seed,
        "backend": backend,
        "config": flat(settings),
        "inputs": {stage: input_keys[stage] for stage in input_stages(config, set(workflow.stages))},
        "data": digests,
        "functions": {one: user_functions[one].version for one in functions_of(config) if one in user_functions},
        "code": code_digest(),
        "versions": versions(backend, reads_tables, config.packages),
        "machine": machine(backend),
    }


def state_key(parts: KeyParts, length: str | None) -> str:
    """What a stage's states stand under: its key, but without the setting that only says how long it works, so that a
    longer one goes on from them.

    Args:
        length: that setting, see `StageConfig.lasts`; None where there is none.
    """
    return key_of({**parts, "config": {name: value for name, value in parts["config"].items() if name != length}})


def changes(old: KeyParts, new: KeyParts) -> list[str]:
    """What differs between two sets of parts, in words; empty where nothing does. The old ones may be damaged."""
    old = {name: value for name, value in old.items() if isinstance(value, dict) or not isinstance(new.get(name), dict)}
    found = []
    for part in ("kind", "seed", "backend"):
        if old.get(part) != new[part]:
            found.append(f"{part} changed: {_short(old.get(part))} -> {_short(new[part])}")
    found += [f"config changed: {change}" for change in _dict_changes(old.get("config", {}), new["config"])]
    found += [f"input changed: {name}" for name in _changed_names(old.get("inputs", {}), new["inputs"])]
    found += [f"data changed: {name}" for name in _changed_names(old.get("data", {}), new["data"])]
    found += [f"function changed: {name}" for name in _changed_names(old.get("functions", {}), new["functions"])]
    if old.get("code") != new["code"]:
        found.append("code changed")
    for part in ("versions", "machine"):
        found += [f"{part} changed: {change}" for change in _dict_changes(old.get(part, {}), new[part])]
    return found


@functools.cache
def code_digest() -> str:
    """SHA-256 over the sources of `gemma_keras` and `pipelines`, except what only shows results."""
    digest = hashlib.sha256()
    for package in (PACKAGE.parent / "gemma_keras", PACKAGE):
        for path in sorted(package.rglob("*.py")):
            relative = path.relative_to(package)
            if package == PACKAGE and any(fnmatch.fnmatch(relative.as_posix(), pattern) for pattern in PRESENTATION):
                continue
            digest.update(f"{package.name}/{relative.as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def versions(backend: str, reads_tables: bool = False, more: Sequence[str] = ()) -> dict[str, str]:
    """Installed versions of what computes: Keras, NumPy and the backend; of what encodes and stores, and of Python.

    Args:
        reads_tables: whether `datasets` reads what the stage learns from. more: packages of the stage's kind.
    """
    packages = ["keras", "numpy", "ml_dtypes", "sentencepiece", *BACKEND_PACKAGES[backend], *more]
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in [*packages, "datasets"] if reads_tables else packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def machine(backend: str) -> dict[str, str]:
    """What beside versions decides about arithmetic: the kind of accelerator, Keras' float type, and switches in the
    environment. The number of threads may change the last bits too; it is recorded and changes no key."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or os.environ.get("JAX_PLATFORMS") == "cpu"
    found = {"accelerator": "cpu", "floatx": backend_choice.float_type()}
    for kind, device in (("nvidia", "/dev/nvidia0"), ("tpu", "/dev/accel0"), ("amd", "/dev/kfd")):
        if Path(device).exists() and not is_hidden:
            found["accelerator"] = kind
    return found | {name: os.environ[name] for name in ARITHMETIC_SWITCHES if name in os.environ}


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or over the names and contents of a folder's files.

    Raises:
        DataError: it can not be read.
    """
    try:
        if path.is_file():
            return _file_digest(path)
        digest = hashlib.sha256()
        for parent, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                file = Path(parent, name)
                if file.is_file():
                    digest.update(f"{file.relative_to(path).as_posix()}\0{_file_digest(file)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise DataError(f"{error.filename or path}:1: cannot be read ({error.strerror})") from error


def fingerprint(path: Path) -> list[list[Any]]:
    """Name, size, time and inode of a file, or of each file of a folder: another one means that it was written to."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    found: list[list[Any]] = []
    for file in files:
        about = file.stat()
        found.append([file.relative_to(path).as_posix(), about.st_size, about.st_mtime_ns, about.st_ino])
    return found


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted keys; lists stay values."""
    if not isinstance(value, dict):
        return {prefix: value}
    result: dict[str, Any] = {}
    for key, child in value.items():
        result.update(flat(child, f"{prefix}.{key}" if prefix else str(key)))
    return result


def _file_digest(path: Path) -> str:
    about = path.stat()
    return _digest_of(str(path), about.st_size, about.st_mtime_ns, about.st_ino)


@functools.lru_cache(maxsize=4096)
def _digest_of(path: str, size: int, modified: int, inode: int) -> str:
    """Size, time and inode are there for the cache: one plan hashes a file once, however many stages read it."""
    return file_digest(Path(path))


def local_paths(workflow: Workflow, name: str, base_folder: Path) -> dict[str, Path]:
    """Files and folders outside the run that a stage reads, by dotted key; of a folder of which it reads some, each
    behind a slash."""
    config = workflow.stages[name]
    found: dict[str, Path | None] = {}
    for reference in references_of(config):
        if not reference.is_function and reference.role.is_model and reference.target not in workflow.stages:
            found[".".join(map(str, reference.path))] = _model_at(reference.target, base_folder)
    for one in marked(type(config), plain(config)):
        if isinstance(one.mark, LocalFile) and one.value is not None:
            path, dotted = find_path(one.value, base_folder), ".".join(map(str, one.path))
            parts = config.parts_read(one.path) if path is not None and path.is_dir() else None
            if path is None or parts is None:
                found[dotted] = path
            else:
                found |= {f"{dotted}/{part}": path / part for part in parts if (path / part).exists()}
    if uses_workflow_model(config) and isinstance(workflow.model, str):
        found["model"] = _model_at(workflow.model, base_folder)
    return {dotted: path for dotted, path in found.items() if path is not None}


def _model_at(name: str, base_folder: Path) -> Path | None:
    path = find_path(name, base_folder)
    return None if path is None else find_model(path)


def _replace(settings: dict[str, Any], dotted: str, value: str) -> None:
    *parents, last = dotted.split(".")
    target: Any = settings
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target[key]
    if isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value


def _changed_names(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]


def _dict_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [f"{name} {_short(old.get(name))} -> {_short(new.get(name))}" for name in _changed_names(old, new)]


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
