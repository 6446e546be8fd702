"""Who finds implicit hatred? ToxiGen's statements by the list of swear words and by a classifier of our own.

    python -m benchmarks.toxicity gemma-3-270m.gguf path/to/data

The groups that the statements are about are dealt into four parts. For each part a reward model is trained from MODEL
on pairs of the other parts, in which the hateful statement is chosen (`toxicity_classifier.yaml`), and scores the
statements of this one: no group is scored by a model that has seen a word about it. Prints a table for README.md: by
group, the area under the ROC curve of hateful against neutral statements.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.filters import area
from gemma_keras.random import generator

WORKFLOW = Path(__file__).with_name("toxicity_classifier.yaml")
PARTS = 4
Statements = dict[str, dict[str, list[str]]]
"""Group → `hate` or `neutral` → statements."""


def main(arguments: list[str] | None = None) -> int:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder, .gguf file or hub id")
    parser.add_argument("data", type=Path, help="folder of data, with evaluation/toxigen/prompts.jsonl")
    parser.add_argument("--backend", default="torch", choices=("jax", "tensorflow", "torch"), help="default torch")
    options = parser.parse_args(arguments)
    statements = read(options.data / "evaluation" / "toxigen" / "prompts.jsonl")
    groups = sorted(statements)
    scores: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in range(PARTS):
            heldout = groups[part::PARTS]
            pairs = [pair for group in groups if group not in heldout for pair in pairs_of(group, statements[group])]
            model = trained(pairs, options.model, options.backend, Path(folder) / str(part))
            found = scored(model, statements, heldout)
            scores |= found
            print(f"part {part}: {len(pairs)} pairs, held out {', '.join(heldout)}", file=sys.stderr, flush=True)
    print("\n".join(table(statements, scores)))
    return 0


def read(path: Path) -> Statements:
    """The statements that the prompts are lists of, each once."""
    found: Statements = {}
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        for line in row["prompt"].split("\n"):
            text = line.removeprefix("-").strip()
            of_kind = found.setdefault(row["group"], {"hate": [], "neutral": []})[row["kind"]]
            if text and text not in of_kind:
                of_kind.append(text)
    return {group: kinds for group, kinds in found.items() if all(kinds.values())}


def pairs_of(group: str, kinds: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    """A label, a hateful and a neutral statement about one group; each statement stands in one pair at least."""
    count = max(map(len, kinds.values()))
    hateful, neutral = (list(itertools.islice(itertools.cycle(kinds[kind]), count)) for kind in ("hate", "neutral"))
    order = generator(17, "pairs", group).permutation(count).tolist()
    return [(f"{group} {i}", hateful[i], neutral[other]) for i, other in enumerate(order)]


def trained(pairs: Sequence[tuple[str, str, str]], model: str, backend: str, folder: Path) -> Path:
    """The folder of a classifier that learned from some pairs. It reads bos and a statement, and nothing else."""
    from gemma_keras import open_tokenizer

    tokenizer = open_tokenizer(model)
    folder.mkdir()
    lines = [
        json.dumps({
            "prompt": label, "chosen": hateful, "rejected": neutral, "prompt_ids": [tokenizer.bos_token_id],
            "chosen_ids": tokenizer.encode(hateful), "rejected_ids": tokenizer.encode(neutral),
        })
        for label, hateful, neutral in pairs
    ]  # fmt: skip
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(WORKFLOW, folder)
    place = Path(model).resolve() if Path(model).exists() else model
    subprocess.run(
        [sys.executable, "-m", "pipelines", "run", WORKFLOW.name, "--out", "run", "--set", f"backend={backend}",
         "--set", f"stages.classifier.from={place}"],
        cwd=folder, check=True,
    )  # fmt: skip
    return folder / "run" / "stages" / "classifier" / "model"


def scored(model: Path, statements: Statements, groups: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """The toxicity of every statement about some groups."""
    from gemma_keras import GemmaRewardModel
    from pipelines.scoring.toxicity import classifier

    score = classifier(GemmaRewardModel.from_preset(model))
    return {
        group: {kind: [score("", text) for text in texts] for kind, texts in statements[group].items()}
        for group in groups
    }


def table(statements: Statements, scores: dict[str, dict[str, list[float]]]) -> list[str]:
    """Markdown: a row a group, and one of all."""
    from pipelines.scoring.toxicity import lexicon

    score = lexicon()
    words = {
        group: {kind: [score("", text) for text in texts] for kind, texts in kinds.items()}
        for group, kinds in statements.items()
    }
    lines = ["| group | hateful | neutral | list of swear words | our classifier |", "|---|---|---|---|---|"]
    for group in [*sorted(statements), None]:
        of_row = [group] if group else sorted(statements)
        counts = [sum(len(statements[one][kind]) for one in of_row) for kind in ("hate", "neutral")]
        areas = [
            area(*([value for one in of_row for value in found[one][kind]] for kind in ("hate", "neutral")))
            for found in (words, scores)
        ]
        cells = [group or "**all**", *map(str, counts), *(f"{value:.3f}" for value in areas)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
