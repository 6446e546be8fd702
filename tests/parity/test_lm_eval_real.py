"""The real Gemma 3 270M through our model and through lm-eval's own `hf`, on the same folder and the same rows."""

import os

import numpy as np
import pytest
from real_data import REAL_DATA, needs_data

pytestmark = [pytest.mark.slow, pytest.mark.needs("lm_eval", "torch"), needs_data]

ROWS = int(os.environ.get("GEMMA_KERAS_PARITY_ROWS", "100"))
"""Of each task; 0 for all."""
TASKS = ("piqa", "winogrande", "bbq", "crows_pairs", "arc_easy")
NATS_A_TOKEN = 1e-4


@pytest.fixture(scope="module")
def pair(real_gguf, tmp_path_factory):
    """Ours, and lm-eval's, the second without the bos that it puts twice before rolling text."""
    from lm_eval.models.huggingface import HFLM

    from gemma_keras import GemmaCausalLM
    from pipelines.engines.lm_eval.model import GemmaKerasLM

    folder = tmp_path_factory.mktemp("gemma") / "model"
    model = GemmaCausalLM.from_preset(real_gguf, dtype="float32")
    model.save_to_preset(folder)
    options = {"pretrained": str(folder), "device": "cpu", "dtype": "float32", "batch_size": 8}
    return GemmaKerasLM(model, batch_tokens=2048), HFLM(**options), HFLM(**options, add_bos_token=False)


def results(model, name, limit, shots=None):
    """Of lm-eval's `evaluate`: figures by task and metric, and every request with what came of it."""
    from lm_eval.evaluator import evaluate

    from pipelines.engines.lm_eval.tasks import be_quiet, draw_rows, load_tasks
    from pipelines.tasks.benchmarks.choice import choose

    be_quiet()
    (chosen,) = choose([name])
    tasks = load_tasks(chosen if shots is None else chosen.with_shots(shots), REAL_DATA, 17)
    tasks, _ = draw_rows(tasks, limit or None, 17, name)
    found = evaluate(model, {"tasks": tasks}, bootstrap_iters=0)
    figures = {
        (task, key): value
        for task, of in found["results"].items()
        for key, value in of.items()
        if "_stderr" not in key and isinstance(value, float)
    }
    requests = [
        (arguments, answer)
        for of_task in found["samples"].values()
        for row in of_task
        for arguments, answers in zip(row["arguments"], row["resps"], strict=True)
        for answer in answers
    ]
    return figures, requests


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.timeout(3600)
def test_every_request_of_a_task(pair, name):
    ours, theirs, _ = pair
    figures, requests = results(ours, name, ROWS)
    wanted, expected = results(theirs, name, ROWS)
    assert len(requests) == len(expected) >= 2 * (ROWS or 100)
    worst = 0.0
    for (arguments, (value, is_greedy)), (same, (other, is_other)) in zip(requests, expected, strict=True):
        assert arguments == same
        tokens = max(1, len(ours.tok_encode(arguments[1], add_special_tokens=False)))
        worst = max(worst, abs(value - other) / tokens)
        assert is_greedy == is_other
    print(f"{name}: {len(requests)} requests, at most {worst:.1e} nats a token apart")
    assert worst < NATS_A_TOKEN
    for key, value in figures.items():
        # A figure that is no share moves with its likelihoods; categories of which no row was drawn are NaN.
        tolerance = 1e-3 if "likelihood" in key[1] else 0.0
        assert value == pytest.approx(wanted[key], abs=tolerance, rel=0, nan_ok=True), key


@pytest.mark.timeout(1800)
def test_rolling_perplexity_of_texts(pair):
    from lm_eval.api.instance import Instance

    from pipelines.tasks.benchmarks import rows

    ours, _, theirs = pair
    texts = [row["answer"] for row in rows.gsm8k(REAL_DATA / "gsm8k", "")["test"][:20]]
    asked = [
        Instance("loglikelihood_rolling", {}, (text,), 0, metadata=("texts", n, 1)) for n, text in enumerate(texts)
    ]
    found, wanted = ours.loglikelihood_rolling(asked), theirs.loglikelihood_rolling(asked)
    lengths = [len(ours.tok_encode(text)) for text in texts]
    apart = np.abs(np.subtract(found, wanted)) / lengths
    print(f"rolling: at most {apart.max():.1e} nats a token apart")
    assert apart.max() < NATS_A_TOKEN


@pytest.mark.timeout(3600)
def test_worked_answers_are_equal(pair):
    """GSM8K behind five examples, eight questions."""
    ours, theirs, _ = pair
    figures, requests = results(ours, "gsm8k", 8)
    wanted, expected = results(theirs, "gsm8k", 8)
    assert [answer for _, answer in requests] == [answer for _, answer in expected] and len(requests) == 16
    assert figures == wanted
