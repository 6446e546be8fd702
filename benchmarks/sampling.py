"""What one draw of a token costs, on the backend of KERAS_BACKEND: a table of milliseconds.

    KERAS_BACKEND=jax OMP_NUM_THREADS=1 XLA_FLAGS=--xla_cpu_multi_thread_eigen=false python -m benchmarks.sampling

Ours, and the same draw with a sort of the vocabulary (or the library's own search for the largest), compiled as in the
decode loop and asked in turns; the best of several, in processor and in wall time. With the variables above both are
of one thread.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

SHAPES = ((16, 262_144), (16, 8192))
DRAWS = {
    "greedy": (0.0, None, None),
    "T = 1": (1.0, None, None),
    "top-k 5": (1.0, 5, None),
    "top-k 50": (1.0, 50, None),
    "top-p 0.9": (1.0, None, 0.9),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args(arguments)
    for line in table(options.samples):
        print(line, flush=True)
    return 0


def table(samples: int) -> Iterator[str]:
    """A line a shape and sampler."""
    import keras

    from gemma_keras import backends

    yield "| backend | logits | draw | ours: CPU ms | wall ms | by a sort: CPU ms | wall ms | × |"
    yield "|---|---|---|---|---|---|---|---|"
    for batch, vocabulary in SHAPES:
        random = np.random.default_rng(0)
        logits = keras.ops.convert_to_tensor(3 * random.standard_normal((batch, vocabulary), dtype=np.float32))
        uniforms = keras.ops.convert_to_tensor(random.random(batch, dtype=np.float32))
        for name, draw in DRAWS.items():
            forms = [_compiled(form, draw, logits, uniforms) for form in (backends.draw_tokens, draw_by_a_sort)]
            (ours, wall), (sort, sort_wall) = _best(forms, samples)
            yield (
                f"| {keras.backend.backend()} | {batch} × {vocabulary:,} | {name} | {ours:.2f} | {wall:.2f} | "
                f"{sort:.2f} | {sort_wall:.2f} | {sort / ours:.1f} |"
            )


def draw_by_a_sort(logits, uniforms, temperature, top_k, top_p):
    """As `backends.draw_tokens`, with the whole vocabulary sorted where something is cut off."""
    from keras import ops

    from gemma_keras.backends import reference_sampling

    if top_k is None and top_p is None:
        return reference_sampling.draw_tokens(logits, uniforms, temperature, None, None)
    logits = logits / temperature
    ranked = ops.flip(ops.sort(logits, axis=-1), axis=-1)
    shifted = logits - ranked[:, :1]
    weights = ops.exp(ranked - ranked[:, :1])
    mass = ops.sum(weights, axis=-1, keepdims=True)
    # The first whose predecessors hold less than is needed, or the first k.
    is_needed = ops.cumsum(weights, axis=-1) - weights < (top_p or 1.0) * mass
    number = (
        ops.full((logits.shape[0], 1), top_k) if top_p is None else ops.sum(ops.cast(is_needed, "int32"), 1)[:, None]
    )
    least = ops.take_along_axis(ranked, ops.cast(number, "int32") - 1, axis=1)
    token_ids = reference_sampling.inverse_transform(ops.where(logits >= least, ops.exp(shifted), 0.0), uniforms)
    return token_ids, ops.take_along_axis(shifted, token_ids[:, None], axis=-1)[:, 0] - ops.log(mass[:, 0])


def _compiled(form: Callable, draw: tuple, logits, uniforms) -> Callable[[], None]:
    from gemma_keras import backends

    program = backends.compile_forward(lambda *arrays: form(*arrays, *draw), [])

    def run() -> None:
        for found in program(logits, uniforms):
            backends.to_host(found)

    run()
    return run


def _best(functions: list[Callable], samples: int) -> list[tuple[float, float]]:
    """Processor and wall milliseconds of each, asked in turns."""
    found: list[list[tuple[float, float]]] = [[] for _ in functions]
    for _ in range(samples):
        for function, times in zip(functions, found, strict=True):
            cpu, wall = time.process_time(), time.perf_counter()
            function()
            times.append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
    return [(min(cpu for cpu, _ in times), min(wall for _, wall in times)) for times in found]


if __name__ == "__main__":
    sys.exit(main())
