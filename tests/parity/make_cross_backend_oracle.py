"""Makes `cross_backend_oracle/`: a pretrained and a tuned folder, and what one backend does with them.

    KERAS_BACKEND=torch python tests/parity/make_cross_backend_oracle.py

`pretrained/` and `tuned/` are models of the built-in task (weights in bfloat16, to be small), `tuning.jsonl` and
`prompts.jsonl` the data, kept so that the task may change. `torch.npz`, named after the backend, holds `losses` float64
(50,) of instruction tuning from `pretrained/`, and the first rollout from `tuned/`: `token_ids` int32 (n, r),
`response_mask` bool (n, r). The test runs the same two functions on every backend.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("cross_backend_oracle")
SEED = 23
UPDATES = 50
TINY = {
    "num_layers": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
TUNING = {
    "kind": "instruction_tuning", "data": {"path": str(FOLDER / "tuning.jsonl")}, "max_length": 64, "batch_size": 16,
    "learning_rate": 3e-3, "max_steps": UPDATES, "epochs": 3.0,
}  # fmt: skip
PROMPTS, SAMPLES, NEW_TOKENS = 32, 4, 16


def run_stage(config: dict, folder: Path, name: str, source: Path | None = None) -> Path:
    """Run one stage into `folder / name`; it starts from the model of the folder `source`, or from scratch."""
    from pipelines.schema.model import ScratchModel
    from pipelines.stages.context import StageContext
    from pipelines.stages.registry import KINDS, stage_function

    options = config if source is None else {**config, "from": "source"}
    model = ScratchModel.model_validate({"config": TINY, "tokenizer": {"vocabulary_size": 400}})
    inputs = {} if source is None else {"source": source}
    output = folder / name
    output.mkdir(parents=True)
    context = StageContext(name, output, inputs, SEED, model, folder, quiet=True)
    stage_function(config["kind"])(KINDS[config["kind"]].model_validate(options), context)
    return output


def tuning_losses(source: Path, folder: Path) -> np.ndarray:
    """The loss of each update of instruction tuning from `source / "model"`: float64 (50,). The tuned model is left in
    `folder / "sft"`."""
    output = run_stage(TUNING, folder, "sft", source)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return np.array([row["loss"] for row in rows if "loss" in row])


def first_rollout(source: Path):
    """The first rollout of policy optimization from `source / "model"`: token_ids int32 (n, r), response_mask bool (n,
    r)."""
    from gemma_keras import GemmaCausalLM
    from pipelines.data.examples import load_examples
    from pipelines.sampling.prompts import encode_prompts
    from pipelines.sampling.rollout import Sampling
    from pipelines.schema.data import FileData

    model = GemmaCausalLM.from_preset(source / "model")
    examples = load_examples(FileData(path=str(FOLDER / "prompts.jsonl")), "prompt", source)
    prompts = encode_prompts(model.tokenizer, examples, 64, NEW_TOKENS)
    sampling = Sampling(model, NEW_TOKENS, 1.0, PROMPTS * SAMPLES, SEED, "policy")
    rollout = sampling.sample(prompts, range(len(prompts)), SAMPLES, step=1)
    return rollout.response_ids, rollout.response_mask


def save_small(source: Path, target: Path) -> None:
    """The model of a stage's folder with bfloat16 weights, without what the tests do not need."""
    from gemma_keras import GemmaCausalLM

    GemmaCausalLM.from_preset(source / "model").save_to_preset(target / "model", dtype="bfloat16")
    (target / "model" / "tokenizer.json").unlink()


def main() -> None:
    from pipelines.tasks import task

    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, split, size in (("tuning", "sft", 400), ("prompts", "rl", PROMPTS)):
        items = task("small_world").prompts(split, size, SEED)
        rows = [
            {"prompt": item.prompt, **({"completion": item.demonstration} if split == "sft" else {})} for item in items
        ]
        (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pretraining = {
        "kind": "pretraining", "data": {"task": "small_world", "split": "pretraining", "size": 1600}, "max_length": 64,
        "batch_size": 32, "learning_rate": 1e-2,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_small(run_stage(pretraining, folder, "pretrained"), FOLDER / "pretrained")
        losses = tuning_losses(FOLDER / "pretrained", folder)
        save_small(folder / "sft", FOLDER / "tuned")
    token_ids, response_mask = first_rollout(FOLDER / "tuned")
    np.savez_compressed(
        FOLDER / f"{os.environ['KERAS_BACKEND']}.npz", losses=losses, token_ids=token_ids, response_mask=response_mask
    )
    print(losses.round(3), response_mask.mean())


if __name__ == "__main__":
    main()
