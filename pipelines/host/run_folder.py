"""Where the parts of a run lie: what runs once, and what runs once for each of a workflow's `seeds`.

runs/NAME/stages/<stage>/                 once; all stages of a workflow without `seeds`
runs/NAME/seeds/<seed>/stages/<stage>/    once a seed
runs/NAME/workflow.yaml                   the resolved workflow, which says what is what
"""

import os
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

WORKFLOW_FILE = "workflow.yaml"
LOCK_FILE = "workflow.lock"
GATE_FILE = "gate.json"
"""In the folder of a run that ended at a gate: `{stage, message}`."""
STAGES = "stages"
SEEDS = "seeds"


def stages_before(stages: Iterable[str], first: str | None) -> list[str]:
    """Of a workflow's stages, in its order, those that run once where its seeds begin at the stage `first`.

    The others, `first` and all that are written after it, run once a seed; so do all of them without a `first`.
    """
    return [] if first is None else list(takewhile(lambda name: name != first, stages))


def seed_folder(run_folder: Path, seed: int) -> Path:
    """Where the stages, the summary and the report of one seed lie."""
    return run_folder / SEEDS / str(seed)


def stage_folder(run_folder: Path, name: str, seed: int | None) -> Path:
    """Where a stage lies; `seed` is None for one that runs once."""
    return (run_folder if seed is None else seed_folder(run_folder, seed)) / STAGES / name


def folders_with_stages(run_folder: Path) -> list[Path]:
    """The run's folder and those of its seeds, each where it has a folder of stages."""
    places = [run_folder, *sorted((run_folder / SEEDS).glob("*"))]
    return [place for place in places if (place / STAGES).is_dir()]


def run_of(folder: Path) -> tuple[Path, int | None]:
    """The run that a folder belongs to: itself, or where it is that of a seed, the run and the seed."""
    folder = Path(os.path.abspath(folder))
    run_folder = folder.parent.parent
    is_seed = folder.parent.name == SEEDS and folder.name.isdecimal() and (run_folder / WORKFLOW_FILE).is_file()
    return (run_folder, int(folder.name)) if is_seed else (folder, None)
