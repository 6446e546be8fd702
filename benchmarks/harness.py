"""Benchmarks through our model and through lm-eval's own `hf`, in turn: seconds, and that they agree.

    python -m benchmarks.harness gemma-3-270m.gguf path/to/evaluation --rows 64

For each task the same rows and examples, both models in float32 on the same threads, each after two rows that do not
count. `hf` reads batches of `--batch` rows and holds the logits of all their positions, ours 2,048 positions and a
chunk of logits. Seconds are those of lm-eval's `evaluate`. Prints a table for README.md.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

TASKS = {
    "piqa": (0, False), "boolq": (0, False), "winogrande": (5, True), "arc_challenge": (25, True),
    "hellaswag": (10, True), "gsm8k": (5, True),
}  # fmt: skip
"""Benchmark → examples before a question, and whether they are the same for all."""
SHARE_OF_ANSWERS = 8
"""Rows are so many times fewer where answers are in words."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder, .gguf file or hub id")
    parser.add_argument("data", type=Path, help="folder of data")
    parser.add_argument("--rows", type=int, default=64, help="of each task; default 64")
    parser.add_argument("--batch", type=int, default=8, help="rows that `hf` reads at once; default 8")
    parser.add_argument("--only", action="append", choices=list(TASKS), help="repeatable; default all")
    options = parser.parse_args(arguments)
    from lm_eval.models.huggingface import HFLM

    from gemma_keras import GemmaCausalLM
    from pipelines.engines.lm_eval.model import GemmaKerasLM
    from pipelines.engines.lm_eval.tasks import be_quiet

    be_quiet()
    model = GemmaCausalLM.from_preset(options.model, dtype="float32")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model.save_to_preset(folder)
        theirs = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=options.batch)
        for name in options.only or TASKS:
            shots, is_fixed = TASKS[name]
            count = options.rows if name != "gsm8k" else max(1, options.rows // SHARE_OF_ANSWERS)
            found = []
            for make in (lambda: GemmaKerasLM(model, batch_tokens=2048), lambda: theirs):
                measured(make(), name, options.data, 2, shots, is_fixed)
                # Ours anew, so that it knows no examples from before.
                found.append(measured(make(), name, options.data, count, shots, is_fixed))
            (our_seconds, our_figure), (seconds, figure) = found
            how = f"{shots}-shot{', the same' if is_fixed and shots else ''}"
            rows.append([name, how, count, f"{our_seconds:.1f}", f"{seconds:.1f}", f"{seconds / our_seconds:.1f}",
                         "yes" if our_figure == figure else f"{our_figure} and {figure}"])  # fmt: skip
            print(rows[-1], flush=True)
    head = ["benchmark", "examples", "rows", "ours, s", "`hf`, s", "ratio", "equal score"]
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(map(str, cells))} |")
    return 0


def measured(model: Any, name: str, data: Path, count: int, shots: int, is_fixed: bool) -> tuple[float, Any]:
    """Seconds of `evaluate`, and its figures."""
    from lm_eval.evaluator import evaluate

    from pipelines.engines.lm_eval.tasks import draw_rows, load_tasks
    from pipelines.tasks.benchmarks.choice import choose

    (chosen,) = choose([name])
    tasks, _ = draw_rows(load_tasks(chosen.with_shots(shots), data, 17, is_fixed), count, 17, name)
    started = time.perf_counter()
    found = evaluate(model, {"tasks": tasks}, bootstrap_iters=0)
    seconds = time.perf_counter() - started
    figures = {key: value for of in found["results"].values() for key, value in of.items() if isinstance(value, float)}
    return seconds, figures


if __name__ == "__main__":
    raise SystemExit(main())
