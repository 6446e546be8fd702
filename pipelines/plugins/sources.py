"""Which reward functions a user brings along, read from their source without running any of it.

They come from the files that `--plugin` names, and from installed packages that announce them as entry points:

    [project.entry-points."gemma_keras.rewards"]
    polite = "my_package.rewards:polite"

In a file each public function at the top level is a reward that takes `completions`, or `completion_ids`, by name:
what TRL's trainers hand to a reward function.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from pipelines.host.errors import ConfigError

GROUP = "gemma_keras.rewards"
REWARD_PARAMETERS = frozenset({"completions", "completion_ids"})
"""What a function takes at least one of, by name, where it is a reward."""


@dataclasses.dataclass(frozen=True)
class UserFunction:
    """A reward function of a user's own.

    Attributes:
        name: as workflows and metrics name it.
        file: absolute path of the source that it stands in.
        origin: where that is, for messages: `/path/to/my_rewards.py:12`, or `my_package.rewards:polite`.
        digest: SHA-256 of the file, 64 hexadecimal digits.
        entry_point: `module:function` of an installed package; None for a file's.
        package: that package and its version; None for a file's.
    """

    name: str
    file: str
    origin: str
    digest: str
    entry_point: str | None = None
    package: str | None = None

    @property
    def version(self) -> str:
        """What a stage's key holds of it: the digest, and the version of the package."""
        return self.digest if self.package is None else f"{self.package}, {self.digest}"


def functions_in(paths: Iterable[Path], reserved: Collection[str]) -> dict[str, UserFunction]:
    """The reward functions of files, by name.

    Args:
        paths: files that `--plugin` names, relative to the current folder.
        reserved: names that are taken, those of the shipped functions.

    Raises:
        ConfigError: a file that is missing, no Python or without a reward; a name that is taken.
    """
    found: dict[str, UserFunction] = {}
    for path in dict.fromkeys(Path(os.path.expanduser(path)).resolve() for path in paths):
        for function in _functions_of(path):
            if function.name in reserved:
                raise ConfigError(
                    f"{function.origin}: the reward {function.name!r} has the name of a shipped one; give it another, "
                    "or one with _ in front if it is no reward"
                )
            if function.name in found:
                raise ConfigError(
                    f"{function.origin}: the reward {function.name!r} is defined at {found[function.name].origin} too; "
                    "rename one of them"
                )
            found[function.name] = function
    return found


def _functions_of(path: Path) -> list[UserFunction]:
    source = _read(path)
    try:
        tree = ast.parse(source, str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno or 1}: no valid Python: {error.msg}") from error
    except ValueError as error:  # a null byte
        raise ConfigError(f"{path}:1: no valid Python: {error}") from error
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = {one.name: one.lineno for one in functions if _is_reward(one)}  # the last of a name counts
    if not lines:
        raise ConfigError(
            f"{path}:1: no reward in it; expected a public function that takes `completions`, such as: def "
            "polite(prompts, completions, **columns)"
        )
    digest = hashlib.sha256(source).hexdigest()
    return [UserFunction(name, str(path), f"{path}:{line}", digest) for name, line in lines.items()]


def _is_reward(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    taken = {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}
    return not function.name.startswith("_") and not REWARD_PARAMETERS.isdisjoint(taken)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--plugin {path}: cannot be read ({error.strerror}); expected a Python file") from error


@functools.cache
def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """The reward functions that installed packages announce, by name; the first package of a name counts, as anywhere
    in Python's path."""
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for one in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(one.name, one)
    return found


def installed_function(entry_point: importlib.metadata.EntryPoint) -> UserFunction:
    """A function that an installed package announces, with the digest of its module.

    Raises:
        ConfigError: there is no source of that module.
    """
    place = f"{entry_point.module}:{entry_point.attr}"
    file = _module_file(entry_point.module)
    if file is None:
        raise ConfigError(
            f"the reward {entry_point.name!r} is announced as {place}, and there is no such module in Python source; "
            "install its package again"
        )
    distribution = entry_point.dist
    package = "unknown" if distribution is None else f"{distribution.name} {distribution.version}"
    digest = hashlib.sha256(_read(file)).hexdigest()
    return UserFunction(entry_point.name, str(file), place, digest, place, package)


def _module_file(module: str) -> Path | None:
    """The source of a module, found part by part: `importlib.util.find_spec` would import the packages above it."""
    spec, search, parts = None, None, module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        finders = (finder.find_spec(name, search) for finder in sys.meta_path)
        spec = next((found for found in finders if found is not None), None)
        if spec is None:
            return None
        try:
            search = list(spec.submodule_search_locations or ())
        except KeyError:  # a namespace within one that is not imported
            return None
    origin = None if spec is None else spec.origin
    return Path(origin).resolve() if origin is not None and origin.endswith(".py") else None
