"""What `plan --memory` says of real stages against the peaks that they reach, at three sizes of a model.

    python -m benchmarks.memory_plan                                    jax and torch, three sizes
    python -m benchmarks.memory_plan --backends tensorflow --sizes small

Each stage runs as a workflow runs it, in a process of its own whose peak stands in its `stage.json`. What a process
takes before it holds a model, imports and the allocator, is the peak of the same stage on a model of next to nothing;
both the figures here are the growth over that one. At most 3 GiB are held.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

from benchmarks.case import BACKENDS
from gemma_keras.config import GemmaConfig
from gemma_keras.files import write_text
from pipelines.host.files import read_json
from pipelines.memory.usage import GIB
from pipelines.run.memory import plan_memory
from pipelines.workflow.loading import load

ROOT = pathlib.Path(__file__).resolve().parent.parent
EMPTY = "empty"
TRAINED_PIECES = 400
GIVING_BACK = {"MALLOC_MMAP_MAX_": "65536", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc's own settings. With those of our stages the pages of freed arrays stay in the process for the next ones, and
the peak of a CPU would count the holes between them; a device's allocator joins free blocks."""
SIZES = {
    EMPTY: (512, 8, 64, 128),
    "small": (8192, 6, 512, 2048),
    "medium": (16_384, 8, 640, 2560),
    "large": (32_768, 8, 768, 3072),
}
"""Vocabulary, layers, width and feed-forward width."""
# Rows are planned for as long as `max_length` lets them be: that of the policy is the longest prompt, in a whole number
# of eights, and its response.

WORKFLOW = """\
name: memory
model: ./model
stages:
  sft:
    kind: instruction_tuning
    data: {path: rows.jsonl, prompt: prompt, completion: completion}
    max_length: 256
    overlong: truncate
    batch_size: 8
    micro_batch_size: 4
    max_steps: 1
    heldout_fraction: 0
  policy:
    kind: policy_optimization
    data: {path: rows.jsonl, prompt: prompt, answer: answer}
    reward: exact_answer
    max_length: 152
    steps: 1
    prompts_per_step: 4
    samples_per_prompt: 2
    micro_batch_size: 4
    max_new_tokens: 96
    eval_prompts: 2
    eval_every: 0
"""


@dataclasses.dataclass(frozen=True)
class Compared:
    """One stage at one size.

    Attributes:
        planned_gib, measured_gib: growth over the same stage on an empty model.
    """

    backend: str
    size: str
    stage: str
    planned_gib: float
    measured_gib: float

    @property
    def ratio(self) -> float:
        """Planned over measured."""
        return self.planned_gib / self.measured_gib


def compare(backend: str, sizes: list[str], settings: tuple[str, ...] = (), stages: str = "") -> list[Compared]:
    """Plan and run the stages at each size.

    Args:
        settings: as of `--set`. stages: the only stage, default both.

    Raises:
        RuntimeError: a stage failed.
    """
    planned, measured = {}, {}
    for size in (EMPTY, *sizes):
        with tempfile.TemporaryDirectory() as folder:
            planned[size], measured[size] = _figures(pathlib.Path(folder), backend, size, settings, stages)
    return [
        Compared(backend, size, stage, planned[size][stage] - planned[EMPTY][stage], peak - measured[EMPTY][stage])
        for size in sizes
        for stage, peak in measured[size].items()
    ]


def _figures(folder, backend, size, settings, only) -> tuple[dict[str, float], dict[str, float]]:
    """GiB of each stage, planned and measured."""
    environ = {**os.environ, **GIVING_BACK, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}

    def run(*command: str) -> None:
        done = subprocess.run([sys.executable, *command], env=environ, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{backend}, {size}: {done.stderr[-2000:]}")

    run("-c", f"from benchmarks.memory_plan import write_inputs; write_inputs({str(folder)!r}, {SIZES[size]})")
    file = folder / "workflow.yaml"
    head, *parts = WORKFLOW.split("  sft:")
    sft, policy = parts[0].split("  policy:")
    chosen = [f"  {name}:{text}" for name, text in (("sft", sft), ("policy", policy)) if only in ("", name)]
    write_text(file, head + "".join(chosen))
    options = [option for setting in settings for option in ("--set", setting)]
    planned = {one.stage: one.peak.total / GIB for one in plan_memory(load(file, settings, backend))}
    # A compiler's memory is none of the stage's: what is measured takes its programs from the cache of a run before.
    environ["GEMMA_KERAS_CACHE"] = str(folder / "cache")
    environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    for out in ("run",) if backend == "torch" else ("first", "run"):
        run("-m", "pipelines", "run", str(file), "--backend", backend, "--out", str(folder / out), "--quiet", *options)
    measured = {name: read_json(folder / "run/stages" / name / "stage.json")["peak_memory_gib"] for name in planned}
    return planned, measured


def write_inputs(folder: str, sizes: tuple[int, int, int, int]) -> None:
    """A model of random weights, and rows that are as long as the stages take them; in a process of its own."""
    from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaTokenizer

    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u")]
    texts = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(400)) for i in range(32)]
    rows = [{"prompt": text[: 120 + i], "completion": text, "answer": str(i)} for i, text in enumerate(texts)]
    place = pathlib.Path(folder)
    write_text(place / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    vocabulary, layers, width, inner = sizes
    config = GemmaConfig(
        vocabulary_size=vocabulary, num_layers=layers, num_query_heads=4, num_key_value_heads=1,
        head_dim=width // 4, hidden_dim=width, intermediate_dim=inner,
    )  # fmt: skip
    trained = GemmaTokenizer.train(texts, TRAINED_PIECES, config.family)
    proto = trained.model_proto + b"".join(_piece(i) for i in range(TRAINED_PIECES, vocabulary))
    model = GemmaCausalLM(GemmaBackbone(config), GemmaTokenizer(proto, config.family))
    model.save_to_preset(place / "model")


def _piece(number: int) -> bytes:
    """A piece that no text has, as a tokenizer's file holds it: random weights sample every id, each must be one."""
    text = f"#{number}#".encode()
    piece = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", -float(number))
    return b"\x0a" + bytes([len(piece)]) + piece


def render(found: list[Compared]) -> str:
    """The table."""
    lines = [
        "| backend | size | stage | planned GiB | measured GiB | planned / measured |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        figures = f"{one.planned_gib:.2f} | {one.measured_gib:.2f} | {one.ratio:.2f}"
        lines.append(f"| {one.backend} | {one.size} | {one.stage} | {figures} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Plan, measure and print the table."""
    sizes = [size for size in SIZES if size != EMPTY]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=("jax", "torch"), choices=BACKENDS)
    parser.add_argument("--sizes", nargs="+", default=sizes, choices=sizes)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, as of `run`")
    parser.add_argument("--stage", default="", choices=("sft", "policy"), help="default both")
    options = parser.parse_args(arguments)
    found = []
    for backend in options.backends:
        found += compare(backend, options.sizes, tuple(options.set), options.stage)
        print(render(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
