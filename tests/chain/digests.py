"""What a change of the code's structure must leave equal bit for bit: the chain's weights on each backend, and the
quickstart's figures.

    python tests/chain/digests.py                   # runs both, prints JSON: a quarter of an hour on two cores
    python tests/chain/digests.py --compare FILE    # the same, and says what differs from an earlier print
    python tests/chain/digests.py --backends jax --no-quickstart

Equal bits are promised on one machine with one set of versions, so the print names both. `before_rooms.json` beside
this file is the print from before the rooms of `pipelines/` were drawn.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("keras", "numpy", "jax", "jaxlib", "tensorflow", "torch")
QUICKSTART_KEYS = ("reward_model", "policy", "evaluation")
# What a run measures of the machine and not of the models.
TIMES = (
    "step_time", "seconds", "peak_memory_gib",
    "tokens_per_second", "model_flops_utilization", "sampling/tokens_per_second", "sampling/model_flops_utilization",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print, and compare where asked to; the exit code is 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--no-quickstart", action="store_true")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    found = {
        "platform": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "chain": {backend: chain_digests(backend) for backend in options.backends},
        "quickstart": None if options.no_quickstart else quickstart_figures(),
    }
    print(json.dumps(found, indent=1))
    if options.compare is None:
        return 0
    lines = differences(json.loads(options.compare.read_text(encoding="utf-8")), found)
    print("\n".join(lines) or "equal", file=sys.stderr)
    return int(bool(lines))


def chain_digests(backend: str) -> dict[str, str]:
    """SHA-256 of every file of weights, preferences, samples, metrics (without times) and final figures in a run of
    `chain.yaml`."""
    with tempfile.TemporaryDirectory() as folder:
        run_workflow(Path(__file__).parent / "chain.yaml", Path(folder), backend)
        return {
            path.relative_to(folder).as_posix(): digest(path)
            for path in sorted(Path(folder, "stages").rglob("*"))
            if path.is_file() and path.name not in ("stage.json", "files.json")
        }


def quickstart_figures() -> dict:
    """Of a run of the quickstart on JAX: the summary's figures, and SHA-256 of each stage's weights."""
    with tempfile.TemporaryDirectory() as folder:
        run_workflow(ROOT / "workflows" / "quickstart.yaml", Path(folder), "jax")
        summary = json.loads(Path(folder, "summary.json").read_text(encoding="utf-8"))
        weights = sorted(Path(folder, "stages").rglob("*.safetensors"))
        digests = {path.relative_to(folder).as_posix(): digest(path) for path in weights}
        return {**{key: summary[key] for key in QUICKSTART_KEYS}, "weights": digests}


def run_workflow(workflow: Path, folder: Path, backend: str) -> None:
    """Run it with this checkout's code, each stage in a process of its own."""
    environment = {
        "OMP_NUM_THREADS": "1", **os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TF_ENABLE_ONEDNN_OPTS": "0",
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", "pipelines", "run", str(workflow), "--out", str(folder), "--quiet"]
    subprocess.run(command, env=environment, cwd=workflow.parent, check=True, stdout=sys.stderr)


def digest(path: Path) -> str:
    """SHA-256 of a file; of metrics and final figures without the times in them."""
    if path.name == "metrics.jsonl":
        rows = [without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    if path.name == "final.json":
        return hashlib.sha256(
            json.dumps(without_times(json.loads(path.read_text(encoding="utf-8")))).encode()
        ).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(value):
    """The same JSON value without the figures in `TIMES`, at any depth."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def differences(before: dict, after: dict, place: str = "") -> list[str]:
    """A line for each value that differs; what was not run again is left out."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after]) if place not in ("", ".chain") else before.keys() & after.keys()
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{place}.{key}")]
    if before == after or (place == ".quickstart" and after is None):
        return []
    return [f"{place}: {before} -> {after}"]


if __name__ == "__main__":
    sys.exit(main())
