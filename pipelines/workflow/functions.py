"""Which names in a workflow mean reward functions of a user's own: of a file that `--plugin` names, or of an installed
package.

A workflow names them as it names the shipped ones, and never where they come from. Once found they stand behind
`function:`, so that nothing after this has to know them. Runs none of their code.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.graders.answers import REWARD_FUNCTIONS
from pipelines.plugins.sources import UserFunction, functions_in, installed, installed_function
from pipelines.schema.functions import FUNCTIONS
from pipelines.schema.roles import FUNCTION_PREFIX, GOLD, KeyPath, Reference, put, references
from pipelines.stages.registry import KINDS
from pipelines.workflow.complaints import Complaint

SHIPPED = (GOLD, *REWARD_FUNCTIONS, *FUNCTIONS)


@dataclasses.dataclass(frozen=True)
class UserFunctions:
    """The reward functions of a user's own around a workflow.

    Attributes:
        used: those that it names. known: names of all that there are.
    """

    used: dict[str, UserFunction] = dataclasses.field(default_factory=dict)
    known: tuple[str, ...] = ()


def resolve(
    written: Mapping[str, Any], data: dict[str, Any], plugins: Sequence[Path]
) -> tuple[UserFunctions, list[Complaint]]:
    """Find them, and put `function:` before their names.

    Args:
        written: the workflow as the file has it; any of it may be wrong. data: the same without loops, which is changed
            in place.
        plugins: files with rewards.

    Returns:
        The functions, and names that mean two things.

    Raises:
        ConfigError: as of `functions_in` and `installed_function`.
    """
    own = functions_in(plugins, SHIPPED)
    stages = data.get("stages")
    stages = stages if isinstance(stages, dict) else {}
    problems: list[Complaint] = [
        (path, True, f"stage {name!r} has the name of the reward at {own[name].origin}; rename one of them")
        for path, name in _stage_names(written)
        if name in own
    ]
    used: dict[str, UserFunction] = {}
    for path, reference in _may_name_functions(stages):
        name = reference.name.removeprefix(FUNCTION_PREFIX)
        if name in own:
            used[name] = own[name]
        elif name in installed():
            used[name] = installed_function(installed()[name])
            clash = "a shipped reward" if name in SHIPPED else "a stage" if name in stages else None
            if clash is not None:
                of = f"{used[name].package} has a reward {name!r} too ({used[name].origin})"
                problems.append((path, False, f"{name!r} is {clash}, and {of}; rename it there, or remove the package"))
        else:
            continue
        put(data, path, FUNCTION_PREFIX + name)
    return UserFunctions(used, (*own, *installed())), problems


def _stage_names(written: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """The stages of a file, those of its loops too, each with where it stands."""
    stages = written.get("stages")
    for name, settings in stages.items() if isinstance(stages, dict) else ():
        path = (*above, "stages", name)
        yield path, name
        if isinstance(settings, dict):
            yield from _stage_names(settings, path)


def _may_name_functions(stages: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Reference]]:
    """The places where a function can be named, with the keys that lead there."""
    for stage, settings in stages.items():
        if isinstance(settings, dict) and settings.get("kind") in KINDS:
            for reference in references(KINDS[settings["kind"]], settings):
                if reference.role.functions:
                    yield ("stages", stage, *reference.path), reference
