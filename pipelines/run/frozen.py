"""`run --frozen`: a run that is what an earlier one was, or none at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.host.errors import ConfigError, DataError
from pipelines.host.files import read_json
from pipelines.run import keys
from pipelines.run.planning import PlannedStage

MOST_NAMED = 20
"""Differences that are written out."""


def need_equal(planned: Sequence[PlannedStage], lock: Path) -> None:
    """Make sure that every stage is the one that a lock names.

    Args:
        planned: the stages, with the lock's commits of the hub. lock: a run's `workflow.lock`.

    Raises:
        ConfigError: a line for each difference: what of a stage's key is another, stages that are new or gone; or the
            lock cannot be read.
    """
    locked = _stages(lock)
    found = []
    for stage in planned:
        before = locked.pop((stage.name, stage.seed), None)
        if before is None:
            found.append(f"{stage.label}: is not in it")
        elif before.get("key") != stage.key:
            found += [f"{stage.label}: {change}" for change in keys.changes(before, stage.parts) or ["its key changed"]]
    for name, seed in locked:
        found.append(f"{name if seed is None else f'{name}, seed {seed}'}: the workflow has no such stage any more")
    if found:
        more = [f"... and {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
        head = f"--frozen: not as in {lock}, so nothing was started. Put it back, or run without --frozen"
        raise ConfigError("\n".join([head, *found[:MOST_NAMED], *more]))


def _stages(lock: Path) -> dict[tuple[str, int | None], dict[str, Any]]:
    """Key and parts of each stage, by its name and seed."""
    if not lock.is_file():
        raise ConfigError(f"--frozen: no lock {lock}; run once without --frozen, or name another run's workflow.lock")
    try:
        record = read_json(lock)
        of_seeds = {None: record["stages"]} | {int(seed): stages for seed, stages in record.get("seeds", {}).items()}
        found = {(name, seed): dict(one) for seed, stages in of_seeds.items() for name, one in stages.items()}
    except (DataError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"--frozen: {lock} is no lock of a run ({error})") from error
    return found
