"""What a gradient of the 34M model at batch 1 takes as the context grows: memory, and tokens a second of one thread.

    python -m benchmarks.context                                   256 to 8,192 tokens, each with and without remat
    python -m benchmarks.context --backends jax --lengths 8192 --remat block
    python -m benchmarks.context --backends jax --analyse          on JAX only what the compiler says; runs nothing

Each figure comes from a fresh process. `peak` is what the process's memory grew by from the built model to the end of
its first gradient, compilation and the gradients themselves included; `analysis` is the compiler's own sum of
temporaries, which only JAX tells. Tokens a second count CPU time of one thread; they are of a second gradient, above
2,048 tokens of the first one, compilation included except on JAX.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

from benchmarks.case import BACKENDS, ModelSize

ROOT = pathlib.Path(__file__).resolve().parent.parent
LENGTHS = (256, 1024, 2048, 4096, 8192)
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
LARGEST_TIMED_TWICE = 2048


@dataclasses.dataclass(frozen=True)
class Growth:
    """What one process found.

    Attributes:
        peak_gib, analysis_gib: see the module's docstring; None where unmeasured.
        tokens_per_second: or None.
    """

    backend: str
    length: int
    remat: str
    peak_gib: float | None = None
    analysis_gib: float | None = None
    tokens_per_second: float | None = None


def measure(backend: str, length: int, remat: str, analyse_only: bool = False, timeout: float | None = None) -> Growth:
    """One figure, in a fresh process.

    Raises:
        RuntimeError: the process failed.
    """
    program = f"from benchmarks.context import child; child({length}, {remat!r}, {analyse_only})"
    environ = {**os.environ, **ONE_THREAD, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    if done.returncode:
        raise RuntimeError(f"{backend}, {length} tokens, remat {remat}: {done.stderr[-2000:]}")
    return Growth(backend, length, remat, **json.loads(done.stdout.splitlines()[-1]))


def child(length: int, remat: str, analyse_only: bool) -> None:
    """Measure in this process and print what was found as a line of JSON."""
    import keras
    import numpy as np

    from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, backends
    from pipelines.host.process_memory import peak_memory_gib
    from pipelines.training.language_model import next_token_loss_sum

    config = GemmaConfig(**dataclasses.asdict(ModelSize()))
    model = GemmaCausalLM(GemmaBackbone(config, remat=remat))
    ids = np.random.default_rng(17).integers(8, config.vocabulary_size, (1, length), dtype=np.int32)
    batch = {
        "token_ids": ids,
        "padding_mask": np.ones(ids.shape, bool),
        "target_ids": np.roll(ids, -1, axis=1),
        "target_mask": np.ones(ids.shape, bool),
    }
    found: dict[str, float] = {}

    def loss(arrays):
        return next_token_loss_sum(model, arrays)

    before = _resident_gib()
    if keras.backend.backend() == "jax":
        run, found["analysis_gib"] = _compiled_on_jax(model, loss, batch)
    else:
        gradients = backends.compile_gradients(loss, model)

        def run():
            backends.to_host(gradients(batch)[0])

    if not analyse_only:
        seconds = _cpu_seconds(run)
        found["peak_gib"] = peak_memory_gib() - before
        if length <= LARGEST_TIMED_TWICE:
            seconds = _cpu_seconds(run)
        found["tokens_per_second"] = length / seconds
    print(json.dumps(found))


def _cpu_seconds(run) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def _resident_gib() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _compiled_on_jax(model, loss, batch):
    """The program of `backends.compile_gradients`, which does not show what its compiler says; GiB of temporaries."""
    import jax
    from keras import StatelessScope

    def of_values(values, arrays):
        with StatelessScope(state_mapping=list(zip(model.trainable_variables, values, strict=True))):
            return loss(arrays)

    values = [variable.value for variable in model.trainable_variables]
    gradients = jax.jit(
        jax.value_and_grad(of_values, has_aux=True), compiler_options={"xla_allow_excess_precision": False}
    )
    program = gradients.lower(values, batch).compile()
    return (
        lambda: jax.block_until_ready(program(values, batch)),
        program.memory_analysis().temp_size_in_bytes / 2**30,
    )


def render(found: list[Growth]) -> str:
    """The table."""
    lines = ["| backend | tokens | remat | analysis GiB | peak GiB | tokens/s |", "|---|---|---|---|---|---|"]
    for one in found:
        figures = (one.analysis_gib, one.peak_gib, one.tokens_per_second)
        cells = [
            "" if figure is None else format(figure, form)
            for figure, form in zip(figures, (".2f", ".2f", ".0f"), strict=True)
        ]
        lines.append("| " + " | ".join([one.backend, f"{one.length:,}", one.remat, *cells]) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--remat", nargs="+", default=("none", "block"), choices=("none", "block"))
    parser.add_argument("--analyse", action="store_true", help="only what JAX's compiler says")
    options = parser.parse_args(arguments)
    found = []
    for backend in options.backends:
        for remat in options.remat:
            for length in options.lengths:
                found.append(measure(backend, length, remat, options.analyse))
                print(render(found[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(render(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
