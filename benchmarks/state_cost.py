"""What the states of a stage cost: runs of a workflow's first stages with them and without, in turn.

    python -m benchmarks.state_cost workflows/quickstart.yaml pretrained --runs 5
    python -m benchmarks.state_cost workflows/gsm8k_gemma3_270m.yaml sft --runs 5 --set model=gemma-3-270m.gguf \\
        --set stages.sft.max_steps=30

Of the named stage, the last one that runs: seconds without and with, each run, their means and the ratio of the means;
and how many states were taken, the longest pause of its loop and the processor time of the writer.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipelines.host.paths import shipped_workflows
from pipelines.workflow import yaml_reader


def main(arguments: list[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflow", help="YAML file or the name of a shipped one")
    parser.add_argument("stage")
    parser.add_argument("--runs", type=int, default=5, help="of each; default 5")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between states; default 30")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `gemma-keras run`")
    options = parser.parse_args(arguments)
    path = shipped_workflows().get(options.workflow) or Path(options.workflow)
    seconds: dict[float, list[float]] = {0.0: [], options.every: []}
    with tempfile.TemporaryDirectory() as folder:
        cut_after(path, options.stage, Path(folder) / "first.yaml")
        for number in range(options.runs):
            for every, found in seconds.items():
                about = run(Path(folder), f"{number}-{every:g}", options.stage, every, options.set)
                found.append(about["seconds"])
                print(f"every {every:g} s: {about['seconds']:.1f} s {about['states']}", flush=True)
    without, with_them = (sum(found) / len(found) for found in seconds.values())
    print(f"without {without:.1f} s, with {with_them:.1f} s: {with_them / without:.3f}")
    return 0


def cut_after(path: Path, stage: str, target: Path) -> None:
    """The same workflow without what comes after a stage."""
    data = yaml_reader.read_file(path).value
    names = list(data["stages"])
    data["stages"] = {name: data["stages"][name] for name in names[: names.index(stage) + 1]}
    data.pop("seeds", None)
    target.write_text(yaml_reader.dump(data), encoding="utf-8")


def run(folder: Path, name: str, stage: str, every: float, settings: list[str]) -> dict[str, Any]:
    """One run in a fresh folder; the `stage.json` of the stage."""
    sets = [word for setting in [*settings, f"state.every_seconds={every:g}"] for word in ("--set", setting)]
    command = [sys.executable, "-m", "pipelines", "run", str(folder / "first.yaml"), "--out", str(folder / name)]
    subprocess.run([*command, "--quiet", *sets], check=True)
    about: dict[str, Any] = json.loads((folder / name / "stages" / stage / "stage.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder / name)
    return about


if __name__ == "__main__":
    sys.exit(main())
