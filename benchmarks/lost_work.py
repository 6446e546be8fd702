"""How much work a kill at a random moment of a run costs: with states inside a stage, and without them.

    gemma-keras run workflows/quickstart.yaml
    python -m benchmarks.lost_work runs/quickstart

From the time that each stage took: without states a stage starts over; with them it goes on from its last one, which is
at most `state.every_seconds` old, beside the update that is under way.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.report.records import read_run
from pipelines.workflow.schema import StateOptions


def main(arguments: list[str] | None = None) -> int:
    """Print both, in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--every", type=float, default=StateOptions().every_seconds, help="seconds between two states")
    options = parser.parse_args(arguments)
    seconds = [stage.seconds or 0.0 for _, stage in read_run(options.run).all_stages]
    print(f"{len(seconds)} stages, {sum(seconds):.0f} s; work lost to a kill, on average and at worst:")
    for label, every in (("without states", float("inf")), (f"a state every {options.every:g} s", options.every)):
        print(f"{label}: {mean_lost(seconds, every):.0f} s, {min(max(seconds), every):.0f} s")
    return 0


def mean_lost(seconds: Sequence[float], every: float) -> float:
    """Mean over all moments of a run of the time since the stage began, or since its last state.

    Args:
        seconds: that each stage takes. every: seconds between two states.
    """
    lost = 0.0
    for taken in seconds:
        whole, rest = (0.0, taken) if taken < every else divmod(taken, every)
        lost += (whole * every**2 if whole else 0.0) / 2 + rest**2 / 2
    return lost / sum(seconds)


if __name__ == "__main__":
    sys.exit(main())
