"""Where the names in a workflow point: relative paths, model folders, shipped workflows. Imports no Keras."""

import os
from pathlib import Path

from gemma_keras.checkpoints import peft
from gemma_keras.checkpoints.formats import MODEL_FILES, recognize
from pipelines.host.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]


def find_path(name: str, base_folder: Path) -> Path | None:
    """The existing file or folder of that name, absolute; None where there is none.

    Relative names start from the YAML file's folder. A name that is not there is looked up from the current folder too,
    so that a workflow inside the installed package can start from `runs/...` of the user's folder.
    """
    if not name or "\0" in name or len(name) > 4096:
        return None
    path = Path(os.path.expanduser(name))
    for candidate in [path] if path.is_absolute() else [base_folder / path, Path.cwd() / path]:
        try:
            if candidate.exists():
                return candidate.resolve()
        except OSError:
            continue
    return None


def find_model(path: Path) -> Path | None:
    """The model in a path: a file or folder of any format, or a stage's folder with `model/`; else None."""
    return next((place for place in (path, path / "model") if recognize(place) is not None), None)


def adapter_problem(name: str, path: Path) -> str | None:
    """What to say of an adapter's folder where a model of its own is needed; None for anything else.

    A stage's result depends on all weights that it starts from, and an adapter names the largest part of them only.
    """
    return adapter_refusal(name) if peft.is_adapter(path) else None


def adapter_refusal(name: str) -> str:
    """What to say of a name that is an adapter, see `adapter_problem`."""
    return f"{name!r} is an adapter; add it to its base model first: gemma-keras convert {name} FOLDER"


def model_source(name: str) -> str:
    """What a command's user named: a model's folder or file, an adapter's or a stage's folder; else the name as it is,
    for the hub.

    Raises:
        ConfigError: the path exists and holds no model.
    """
    path = Path(os.path.expanduser(name))
    if not path.exists():
        return name
    found = path if peft.is_adapter(path) else find_model(path)
    if found is None:
        raise ConfigError(f"{name}: no model there; expected a stage's folder, {MODEL_FILES}")
    return str(found)


def cache_folder() -> Path:
    """Where what can be made again is kept: `GEMMA_KERAS_CACHE`, else a folder in the user's cache; beside the runs
    where the user has no home."""
    if named := os.environ.get("GEMMA_KERAS_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "gemma_keras"
    except RuntimeError:
        return Path("runs/.cache").absolute()


def shipped_workflows() -> dict[str, Path]:
    """The workflows that come with the project by name: in the wheel below this package, in a checkout beside it."""
    for folder in (PACKAGE / "workflows", PACKAGE.parent / "workflows"):
        found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if found:
            return found
    return {}


def documentation(name: str) -> Path | None:
    """A page that comes with the project, such as docs/algorithms/NAME.md: in the wheel below this package, in a
    checkout beside it; None where it is in neither."""
    return next((path for path in (PACKAGE / name, PACKAGE.parent / name) if path.is_file()), None)
