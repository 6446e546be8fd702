"""How exact log-probabilities are in bfloat16, on the backend of KERAS_BACKEND: tables for benchmarks/README.md.

    KERAS_BACKEND=jax python -m benchmarks.half_precision head
    KERAS_BACKEND=jax python -m benchmarks.half_precision model gemma-3-270m
    KERAS_BACKEND=jax python -m benchmarks.half_precision rollouts gemma-3-270m

`head`: log-probabilities from given hidden states, beside float64, on the dense and on the chunked path.
`model`: responses sampled from a model in mixed_bfloat16. The same weights give each token a log-probability four
times: while it was sampled, by the scorer, by the scorer with one sequence at a time, and by the training pass. The
ratio of any two should be 1. What float32 gives beside is what half precision costs the model itself.
`rollouts`: responses drawn from rounded copies of a model in float32, as with `rollout_dtype`, and how far these
samplers lie from it.
"""

import argparse
import sys
from collections.abc import Iterator

import numpy as np

VOCABULARY, WIDTH, POSITIONS = 262_144, 64, (2, 64)
LARGEST_LOGIT = 30.0
LENGTHS = (16, 64, 256)
RESPONSES, ROLLOUTS = 4, 64
PROMPT = "Tell me about the sea."


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("head", "model", "rollouts"))
    parser.add_argument("model", nargs="?", help="folder or .gguf file")
    options = parser.parse_args(arguments)
    if options.what != "head" and options.model is None:
        parser.error(f"`{options.what}` needs a folder or a .gguf file")
    tables = {"model": model_table, "rollouts": rollout_table}
    for line in head_table() if options.what == "head" else tables[options.what](options.model):
        print(line, flush=True)
    return 0


def head_table() -> Iterator[str]:
    """Against float64 from the same bfloat16 states and matrix; the last row rounds the logits, as before."""
    import keras
    import ml_dtypes

    from gemma_keras import head

    random = np.random.default_rng(0)
    hidden, matrix = (random.standard_normal((*shape, WIDTH)) for shape in (POSITIONS, (VOCABULARY,)))
    matrix *= LARGEST_LOGIT / 2 / (hidden @ matrix.T).max()
    target_ids = random.permutation(VOCABULARY)[: hidden[..., 0].size].reshape(POSITIONS).astype(np.int32)
    # Every other position is sure of its target, as models mostly are of what they sample.
    sure = hidden[:, ::2]
    matrix[target_ids[:, ::2]] = sure * (LARGEST_LOGIT / np.square(sure).sum(axis=-1, keepdims=True))
    hidden, matrix = (array.astype(ml_dtypes.bfloat16).astype(np.float64) for array in (hidden, matrix))
    logits = hidden @ matrix.T
    exact = _log_probs(logits, target_ids)
    name = keras.backend.backend()
    yield "| backend | path | largest error (nats) | above 0 |"
    yield "|---|---|---|---|"
    shipped = head.DENSE_LOGITS
    for path, most in (("dense", 1 << 26), ("chunked", 1 << 23)):
        head.DENSE_LOGITS = most
        found = _head(hidden, matrix, target_ids)
        yield f"| {name} | {path} | {np.abs(found - exact).max():.1e} | {_share_above_zero(found)} |"
    head.DENSE_LOGITS = shipped
    rounded = _log_probs(logits.astype(ml_dtypes.bfloat16).astype(np.float64), target_ids)
    rounded += np.take_along_axis(logits - logits.astype(ml_dtypes.bfloat16), target_ids[..., None], axis=-1)[..., 0]
    yield (
        f"| (any) | (sum over bfloat16 logits, target in float32) | {np.abs(rounded - exact).max():.1e} | "
        f"{_share_above_zero(rounded)} |"
    )


def _log_probs(logits: np.ndarray, target_ids: np.ndarray) -> np.ndarray:
    largest = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - largest).sum(axis=-1)) + largest[..., 0]
    return np.take_along_axis(logits, target_ids[..., None], axis=-1)[..., 0] - total


def _share_above_zero(log_probs: np.ndarray) -> str:
    return f"{int((log_probs > 0).sum())} of {log_probs.size}"


def _head(hidden: np.ndarray, matrix: np.ndarray, target_ids: np.ndarray) -> np.ndarray:
    from keras import ops

    from gemma_keras import backends, head

    def function(hidden, matrix, target_ids):
        hidden, matrix = ops.cast(hidden, "bfloat16"), ops.cast(matrix, "bfloat16")
        return head.target_log_probs(hidden, matrix, target_ids, with_entropy=False)[0]

    run = backends.compile_forward(function, [])
    return np.asarray(backends.to_host(run(np.float32(hidden), np.float32(matrix), target_ids)), np.float64)


def model_table(source: str) -> Iterator[str]:
    """Ratios of the same token's probabilities, of `RESPONSES` responses of each length."""
    import keras

    from gemma_keras import GemmaCausalLM

    model, exact = (GemmaCausalLM.from_preset(source, dtype=dtype) for dtype in ("mixed_bfloat16", "float32"))
    yield "| backend | tokens | scorer against | ratio of a token, off 1: mean, largest | of a response: mean |"
    yield "|---|---|---|---|---|"
    for length in LENGTHS:
        inputs, sampled = _sampled(model, length)
        scored = _scored(model, inputs, RESPONSES)
        others = {
            "training pass": _trained(model, inputs),
            "scorer, one sequence at a time": _scored(model, inputs, 1),
            "sampler": sampled,
            "(scorer in float32)": _scored(exact, inputs, RESPONSES),
        }
        for name, other in others.items():
            token = np.abs(np.expm1(other - scored))
            response = np.abs(np.expm1((other - scored).sum(axis=1)))
            yield (
                f"| {keras.backend.backend()} | {length} | {name} | {token.mean():.1e}, {token.max():.1e} | "
                f"{response.mean():.1e} |"
            )


def rollout_table(source: str) -> Iterator[str]:
    """KL of rounded samplers to the policy by k3 and k1 (`pipelines.algorithms.kl`), of `ROLLOUTS` responses."""
    import keras

    from gemma_keras import GemmaCausalLM
    from gemma_keras.backends import to_host
    from pipelines.algorithms.kl import k3
    from pipelines.sampling.rollout_copy import RolloutCopy

    policy = GemmaCausalLM.from_preset(source, dtype="float32")
    yield "| backend | rollout_dtype | nats a token: k3, k1 | log-ratio of a token: mean, largest | ratio over 2 |"
    yield "|---|---|---|---|---|"
    for rollout_dtype in ("bfloat16", "int8"):
        inputs, sampled = _sampled(RolloutCopy(policy, rollout_dtype).model, LENGTHS[1], ROLLOUTS)
        difference = sampled - _scored(policy, inputs, RESPONSES)
        nats = to_host(k3(keras.ops.convert_to_tensor(difference)))
        is_over = difference < -np.log(2)
        yield (
            f"| {keras.backend.backend()} | {rollout_dtype} | {nats.mean():.1e}, {difference.mean():.1e} | "
            f"{np.abs(difference).mean():.1e}, {np.abs(difference).max():.1e} | {is_over.mean():.2%} |"
        )


def _sampled(model, length: int, responses: int = RESPONSES) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of `model.score`, and the sampler's own log-probabilities."""
    from gemma_keras import Sampler
    from gemma_keras.generation import generate_tokens
    from gemma_keras.random import uniforms
    from gemma_keras.text.chat import encode_prompt

    prompt = np.tile(np.int32(encode_prompt(model.tokenizer, PROMPT)), (responses, 1))
    draws = np.stack([uniforms(0, "half", row, shape=length) for row in range(responses)])
    found = generate_tokens(model, prompt, np.ones(prompt.shape, bool), length, draws, Sampler(), ())
    positions = prompt.shape[1] - 1 + np.arange(length, dtype=np.int32)
    token_ids = np.concatenate([prompt, found.token_ids], axis=1)
    inputs = {
        "token_ids": token_ids,
        "padding_mask": np.ones(token_ids.shape, bool),
        "target_ids": found.token_ids,
        "target_positions": np.tile(positions, (responses, 1)),
    }
    return inputs, np.float64(found.log_probs)


def _scored(model, inputs: dict[str, np.ndarray], rows: int) -> np.ndarray:
    from gemma_keras import backends

    run = backends.compile_forward(lambda inputs: model.score(inputs, with_entropy=True)[0], [model])
    parts = [
        run({name: part[i : i + rows] for name, part in inputs.items()})
        for i in range(0, len(inputs["token_ids"]), rows)
    ]
    return np.float64(np.concatenate([backends.to_host(part) for part in parts]))


def _trained(model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    from keras import ops

    from gemma_keras import backends

    def loss(inputs):
        log_probs = model.score(inputs)
        return -ops.sum(log_probs), {"log_probs": log_probs}

    _, aux, _ = backends.compile_gradients(loss, model)(inputs)
    return np.float64(backends.to_host(aux["log_probs"]))


if __name__ == "__main__":
    sys.exit(main())
