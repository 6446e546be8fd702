"""What 8 and 4 bits a kernel weight cost in accuracy: a language model on texts, a reward model on preference pairs.

    python -m benchmarks.quantization policy gemma-3-270m questions.jsonl --columns question answer
    python -m benchmarks.quantization reward runs/quickstart/stages/reward/model
    runs/quickstart/stages/preferences/preferences.jsonl

Prints a table. A policy is compared at every position of the texts over its whole vocabulary; a reward model on pairs
of the ids that were sampled.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MODES = (None, "int8", "int4")
MOST_TOKENS = 256
ROWS_AT_ONCE = 8


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization", description=__doc__)
    parser.add_argument("kind", choices=("policy", "reward"))
    parser.add_argument("model", help="folder or .gguf file")
    parser.add_argument("data", type=Path, help="JSON lines: texts, or pairs with chosen_ids and rejected_ids")
    parser.add_argument("--columns", nargs="+", default=["text"], help="of the texts, joined by a line break")
    parser.add_argument("--rows", type=int, default=64, help="use the first so many rows")
    options = parser.parse_args(arguments)
    rows = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()[: options.rows]]
    table = (
        policy_table(options.model, rows, options.columns)
        if options.kind == "policy"
        else reward_table(options.model, rows)
    )
    for line in table:
        print(line, flush=True)
    return 0


def policy_table(source: str, rows: list[dict], columns: list[str]) -> Iterator[str]:
    """Loss, KL from the unquantized model and agreement on the likeliest token, over all positions of the texts."""
    from gemma_keras import GemmaCausalLM

    tokenizer = GemmaCausalLM.from_preset(source).tokenizer
    texts = [
        [tokenizer.bos_token_id, *tokenizer.encode("\n".join(row[column] for column in columns))][:MOST_TOKENS]
        for row in rows
    ]
    yield "| kernels | MiB | loss (nats a token) | KL(full, this) | same likeliest token |"
    yield "|---|---|---|---|---|"
    full = compare = None
    for mode in MODES:
        model = GemmaCausalLM.from_preset(source, dtype="float32")
        if mode is not None:
            model.quantize(mode)
        hidden = _hidden_of(model)
        if full is None:
            full, compare = hidden, _comparison(model)
        sums = np.zeros(4)
        for ids, is_token in _batches(texts):
            sums += _sums(compare, full(ids, is_token), hidden(ids, is_token), ids, is_token)
        loss, kl, same = sums[:3] / sums[3]
        yield f"| {mode or 'float32'} | {_kernel_mib(model):,.0f} | {loss:.4f} | {kl:.5f} | {same:.2%} |"


def reward_table(source: str, pairs: list[dict]) -> Iterator[str]:
    """Accuracy on the pairs, decisions that stay, and how far normalized rewards move."""
    from gemma_keras import GemmaRewardModel
    from pipelines.measures.intervals import groups_of, score_interval
    from pipelines.scoring.reward_models import SequenceScorer

    sides = [[pair["prompt_ids"] + pair[side] for pair in pairs] for side in ("chosen_ids", "rejected_ids")]
    length = max(len(ids) for side in sides for ids in side)
    prompts = groups_of(tuple(pair["prompt_ids"]) for pair in pairs)
    yield "| kernels | MiB | accuracy (95 %) | same decision | reward moves by, in its standard deviations |"
    yield "|---|---|---|---|---|"
    full = None
    for mode in MODES:
        model = GemmaRewardModel.from_preset(source, dtype="float32")
        if mode is not None:
            model.quantize(mode)
        scorer = SequenceScorer(model)
        scores = np.stack([model.normalized(scorer.raw_scores(side, length)) for side in sides])
        full = scores if full is None else full
        right = scores[0] > scores[1]
        low, high = score_interval(right, groups=prompts)
        same = (right == (full[0] > full[1])).mean()
        moved = np.abs(scores - full).mean()
        accuracy = f"{right.mean():.1%} [{low:.1%}, {high:.1%}]"
        yield f"| {mode or 'float32'} | {_kernel_mib(model):,.1f} | {accuracy} | {same:.1%} | {moved:.3f} |"


def _hidden_of(model) -> Callable:
    from gemma_keras import backends

    return backends.compile_forward(
        lambda ids, is_token: model.backbone({"token_ids": ids, "padding_mask": is_token}), [model]
    )


def _comparison(model) -> Callable:
    """(exact states, other states, ids), each of one row → per position: loss of the other ones, KL, and whether they
    agree."""
    from keras import ops

    from gemma_keras import backends
    from gemma_keras.head import full_logits
    from pipelines.algorithms.kl import exact_token_kl

    def compare(exact, other, ids):
        matrix, cap = model.backbone.token_embedding.as_output_matrix(), model.config.final_logit_soft_cap
        exact, other = (ops.log_softmax(full_logits(states, matrix, cap), axis=-1)[0] for states in (exact, other))
        loss = -ops.take_along_axis(other, ops.roll(ids, -1, axis=1)[0][:, None], axis=1)[:, 0]
        return loss, exact_token_kl(exact, other), ops.argmax(exact, axis=-1) == ops.argmax(other, axis=-1)

    return backends.compile_forward(compare, [model])


def _sums(compare: Callable, exact, other, ids: np.ndarray, is_token: np.ndarray) -> np.ndarray:
    """Over positions that have a next token: loss, KL, agreements, and their number."""
    from gemma_keras.backends import to_host

    sums = np.zeros(4)
    for row in range(len(ids)):  # all logits of a batch would be gigabytes
        part = slice(row, row + 1)
        counted = is_token[row] & np.append(is_token[row, 1:], False)
        figures = [
            np.asarray(to_host(values), np.float64)[counted] for values in compare(exact[part], other[part], ids[part])
        ]
        sums += [*(values.sum() for values in figures), counted.sum()]
    return sums


def _batches(texts: list[list[int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(texts), ROWS_AT_ONCE):
        part = texts[start : start + ROWS_AT_ONCE]
        ids = np.zeros((ROWS_AT_ONCE, MOST_TOKENS), np.int32)
        is_token = np.zeros(ids.shape, bool)
        is_token[:, 0] = True  # attention over no key is 0/0
        for row, text in enumerate(part):
            ids[row, : len(text)], is_token[row, : len(text)] = text, True
        yield ids, is_token


def _kernel_mib(model) -> float:
    """Memory of all projections, scales included; int4 keeps two weights a byte."""
    variables = [variable for projection in model.backbone.projections().values() for variable in projection.variables]
    return sum(int(np.prod(variable.shape)) * np.dtype(variable.dtype).itemsize for variable in variables) / 2**20


if __name__ == "__main__":
    sys.exit(main())
