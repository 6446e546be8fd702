"""What the machine can do at most, by each backend: products of matrices, and reading memory.

    KERAS_BACKEND=jax python -m benchmarks.peak          # one backend, as JSON

`benchmarks.run` measures it beside the rest, so that a page can say how much of it is used.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE, TINY_SIZE = 2048, 128
"""Of the square matrices that are multiplied; a vector is multiplied with one four times as wide and high."""
REPEATS = 7


def measure(backends, tiny: bool = False) -> dict[str, dict[str, float]]:
    """Backend → {"float32": GFLOP/s, "bfloat16": GFLOP/s, "read": GB/s}, each in a process of its own."""
    found = {}
    for backend in backends:
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
        command = [sys.executable, "-m", "benchmarks.peak"] + ["--tiny"] * tiny
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"The peak on {backend} cannot be measured: {done.stderr[-500:]}")
        found[backend] = json.loads(done.stdout.splitlines()[-1])
    return found


def here(size: int) -> dict[str, float]:
    """The same on this process' backend."""
    from keras import ops

    from gemma_keras.backends.product_peak import best_of_products, best_seconds, ramp

    found = {dtype: 2 * size**3 / best_of_products(size, dtype, REPEATS) / 1e9 for dtype in ("float32", "bfloat16")}
    vector, wide = ramp(1, 4 * size), ramp(4 * size, 4 * size)
    found["read"] = 4 * (4 * size) ** 2 / best_seconds(lambda: ops.matmul(vector, wide), REPEATS) / 1e9
    return found


def sentence(peaks: dict[str, dict[str, float]]) -> str:
    """For the head of a table."""
    products = ", ".join(f"{name} {each['float32']:,.0f} and {each['bfloat16']:,.0f}" for name, each in peaks.items())
    reads = ", ".join(f"{name} {each['read']:.1f}" for name, each in peaks.items())
    return (
        f"The machine's peak in the same run: products of 2,048 × 2,048 matrices, GFLOP/s in float32 and bfloat16: "
        f"{products}; reading 256 MiB by a product with a vector, GB/s: {reads}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small matrices, to try this itself")
    print(json.dumps(here(TINY_SIZE if parser.parse_args().tiny else SIZE)))
