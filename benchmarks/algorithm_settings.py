"""The comparison of algorithms whole: the same number of settings tried for each, then its best one over three seeds.

    python -m benchmarks.algorithm_settings

Runs `quickstart.yaml` and `quickstart_algorithms.yaml` in the current folder, and goes on where it was stopped. Run i
of the search has the i-th setting of every algorithm, and is judged by the gold reward on prompts of another part
than the test's. Writes the table of the settings between two marks of benchmarks/README.md, then what
`benchmarks.algorithms` and `benchmarks.algorithm_curves` write.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import algorithm_curves, algorithms
from benchmarks.pages import write_between
from pipelines.report.records import RunRecord, read_run

ROOT = Path(__file__).resolve().parents[1]
FILE, SEARCH, TEST = ROOT / "workflows/quickstart_algorithms.yaml", Path("runs/algorithm_settings"), [17, 18, 19]
BEGIN, END = "<!-- python -m benchmarks.algorithm_settings writes from here -->", "<!-- settings: to here -->"
COMMON_KL = 1.0  # nats: where all are read off, as a reward says little without what it cost

Setting = dict[str, float | int]
SETTINGS: dict[str, list[Setting]] = {
    "rejection": [{"learning_rate": rate} for rate in (1e-4, 3e-4, 1e-3)],
    "chosen": [{"learning_rate": rate} for rate in (3e-5, 1e-4, 3e-4)],
    "dpo": [{"loss.beta": 0.5}, {"loss.beta": 1.0}, {"loss.beta": 2.0}],
    "iterated": [
        {"stages.dpo.learning_rate": 3e-5, "stages.dpo.loss.beta": 1.0},
        {"stages.dpo.learning_rate": 1e-4, "stages.dpo.loss.beta": 1.0},
        {"stages.dpo.learning_rate": 1e-4, "stages.dpo.loss.beta": 3.0},
    ],
    **{name: [{"kl_weight": weight} for weight in (0.1, 0.2, 0.4)] for name in ("rloo", "reinforce", "ppo")},
    "grpo": [{"kl_weight": weight} for weight in (0.2, 0.4, 0.8)],
}
"""Of each algorithm: the settings tried, as keys of its stage. All share the number of sampled responses."""


def main() -> int:
    """Run what is not finished, and write the table and the figure."""
    tries = len(SETTINGS["rloo"])
    gemma_keras("run", ROOT / "workflows/quickstart.yaml")
    for number in range(tries):
        gemma_keras(
            *("run", FILE, "--out", SEARCH / str(number + 1), "--set", "stages.evaluation.data.split=sft"),
            *(part for name, settings in SETTINGS.items() for part in overrides(name, settings[number])),
        )
    found = {name: [figures(number + 1, name) for number in range(tries)] for name in SETTINGS}
    lines = table(found)
    print("\n".join(lines))
    write_between(algorithms.PAGE, BEGIN, END, lines)
    gemma_keras(
        *("run", FILE, "--seeds", ",".join(map(str, TEST))),
        *(part for name, settings in SETTINGS.items() for part in overrides(name, settings[best(found[name])])),
    )
    algorithm_curves.write(read_run(Path("runs") / FILE.stem))
    return algorithms.main([str(Path("runs") / FILE.stem)])


def gemma_keras(*arguments: object) -> None:
    """Run the command line; an error ends this program too."""
    subprocess.run([sys.executable, "-m", "pipelines", *map(str, arguments), "--quiet"], check=True)


def overrides(name: str, setting: Setting) -> list[str]:
    """A setting as arguments of `run`."""
    return [part for key, value in setting.items() for part in ("--set", f"stages.{name}.{key}={value!r}")]


def figures(number: int, name: str) -> tuple[float, float]:
    """KL to the tuned model and gold reward of an algorithm in a run of the search."""
    found = algorithms.evaluated(_search(number), name)
    return found["kl_sequence"], found["gold"]["mean"]


def best(found: Sequence[tuple[float, float]]) -> int:
    """Which setting has the highest gold reward."""
    return int(np.argmax([gold for _, gold in found]))


def at_common_kl(found: Sequence[tuple[float, float]], start: float) -> float | None:
    """The gold reward at `COMMON_KL`, on straight lines between the settings and the start; None beyond all of them."""
    points = sorted([(0.0, start), *found])
    if points[-1][0] < COMMON_KL:
        return None
    return float(np.interp(COMMON_KL, *zip(*points, strict=True)))


def table(found: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Each setting with its gold reward and KL, the best in bold, and what all give at one KL."""
    start = algorithms.evaluated(_search(1), "sft")["gold"]["mean"]
    lines = [f"| | settings tried: gold reward (KL to `sft`) | at {COMMON_KL:g} nat |", "|---|---|---|"]
    for name, settings in SETTINGS.items():
        cells = []
        for index, (setting, (kl, gold)) in enumerate(zip(settings, found[name], strict=True)):
            told = ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in setting.items())
            text = f"{told}: {gold:.3f} ({kl:.2f})"
            cells.append(f"**{text}**" if index == best(found[name]) else text)
        common = at_common_kl(found[name], start)
        told = "not reached" if common is None else f"{common:.3f}"
        lines.append(f"| {algorithms.LABELS[name]} | {'; '.join(cells)} | {told} |")
    return [
        *lines,
        "",
        f"Seed 17, 1,024 prompts of the tuning split, where `sft` has {start:.3f}. At {COMMON_KL:g} nat: on straight "
        "lines between the settings, `sft` at 0.",
    ]


def _search(number: int) -> RunRecord:
    return read_run(SEARCH / str(number))


if __name__ == "__main__":
    sys.exit(main())
