"""What the tests of single stages share: a context in a temporary folder and tiny models on disk."""

import json

import numpy as np

from pipelines.configs import KINDS, Workflow
from pipelines.stage_context import StageContext

WORDS = ["red", "blue", "green", "one", "two", "three", "cat", "dog", "sun", "moon"]
SCRATCH = {
    "config": {
        "family": "gemma3", "num_layers": 2, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_dim": 16,
        "intermediate_dim": 32, "use_post_norms": True, "use_query_key_norm": True,
    },
    "tokenizer": {"vocabulary_size": 300},
}  # fmt: skip


def stage_config(kind, **options):
    """The typed options of one stage, as the runner would hand them in."""
    return KINDS[kind].model_validate({"kind": kind, **options})


def make_context(folder, name, kind, model=SCRATCH, inputs=None, seed=11):
    """A context whose output is `folder / name`."""
    output = folder / name
    output.mkdir(parents=True, exist_ok=True)
    stage = {"kind": "pretraining", "data": {"path": "unused.jsonl"}}
    workflow = Workflow.model_validate({"name": "test", "seed": seed, "model": model, "stages": {name: stage}})
    return StageContext(name, kind, output, inputs or {}, seed, workflow, folder, quiet=True)


def write_jsonl(path, rows):
    """Write rows as JSON lines and give the path as text."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_jsonl(path):
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sentences(count, seed=0):
    """Texts of the form "red cat: cat red", learnable in a few steps."""
    random = np.random.default_rng(seed)
    pairs = [random.choice(WORDS, 2, replace=False) for _ in range(count)]
    return [f"{a} {b}: {b} {a}" for a, b in pairs]


def tiny_tuned_model(folder, seed=3):
    """A random model with a trained tokenizer, saved as a stage's folder would be; the folder of the stage."""
    from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer

    tokenizer = GemmaTokenizer.train(sentences(50), 300, "gemma3")
    config = GemmaConfig(vocabulary_size=tokenizer.vocabulary_size, **SCRATCH["config"])
    GemmaCausalLM(GemmaBackbone(config, seed=seed), tokenizer).save_to_preset(folder / "model")
    return folder
