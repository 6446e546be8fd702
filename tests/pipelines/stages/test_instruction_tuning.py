"""Instruction tuning: loss on the response only, the exact mean over tokens, dropped rows."""

import math

import numpy as np
import pytest
from keras import ops
from stage_fixture import heldout_rows, make_context, read_jsonl, sentences, stage_config, tiny_tuned_model, write_jsonl

from gemma_keras import GemmaCausalLM
from pipelines.data.columns import Prompt
from pipelines.host.errors import ConfigError, DataError
from pipelines.stages.instruction_tuning import run as instruction_tuning


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tiny_tuned_model(tmp_path_factory.mktemp("tuned"))


def run(folder, tuned, rows, model="tuned", data=None, **options):
    data = data or {"path": write_jsonl(folder / "pairs.jsonl", rows)}
    settings = {"max_length": 48, "batch_size": 4, "learning_rate": 0.02, "from": model, **options}
    context = make_context(folder, "sft", inputs={"tuned": tuned})
    return instruction_tuning.run(stage_config("instruction_tuning", data=data, **settings), context), context


def pairs(count):
    return [dict(zip(("prompt", "completion"), text.split(": "), strict=True)) for text in sentences(count)]


def response_loss(model, row):
    """Sum and number of the response's token losses, from the dense logits and ids put together here."""
    tokenizer = model.tokenizer
    start, end = tokenizer.start_of_turn_id, tokenizer.end_of_turn_id
    prompt = [
        2,
        start,
        *tokenizer.encode(f"user\n{row['prompt']}"),
        end,
        *tokenizer.encode("\n"),
        start,
        *tokenizer.encode("model\n"),
    ]
    response = [*tokenizer.encode(row["completion"]), end]
    ids = np.zeros((1, 48), np.int32)
    ids[0, : len(prompt) + len(response)] = prompt + response
    is_token = np.arange(48)[None] < len(prompt) + len(response)
    logits = ops.convert_to_numpy(model({"token_ids": ids, "padding_mask": is_token})).astype(np.float64)[0]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -sum(log_probs[len(prompt) - 1 + i, token] for i, token in enumerate(response)), len(response)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tuned):
    rows = [*pairs(64), {"prompt": "cat " * 60, "completion": "dog"}]
    rows[3]["completion"] = "red green blue one two three"
    return run(
        tmp_path_factory.mktemp("sft"), tuned, rows, micro_batch_size=3, eval_every=8, epochs=3, heldout_fraction=0.1
    ), rows


def test_held_out_loss_is_the_mean_over_response_tokens(finished, tuned):
    (figures, context), rows = finished
    heldout = heldout_rows([Prompt(row["prompt"], None, "") for row in rows[:64]], 0.1)
    for folder, (_, reported) in (
        (tuned, figures["eval_loss_curve"][0]),
        (context.output, figures["eval_loss_curve"][-1]),
    ):
        model = GemmaCausalLM.from_preset(folder / "model")
        sums = [response_loss(model, rows[i]) for i in heldout]
        assert reported == pytest.approx(sum(total for total, _ in sums) / sum(count for _, count in sums), abs=1e-4)


def test_learns_and_reports(finished):
    (figures, context), _ = finished
    assert figures["eval_loss"] < 0.6 * figures["eval_loss_curve"][0][1]
    assert figures["eval_loss_flatness"] >= 0
    # Six prompts are held out, one of which stands twice.
    assert figures["examples"] == 57 and figures["heldout_examples"] == 7 and figures["dropped_rows"] == 1
    assert figures["tokens"] > 57 * 3 * 10 and figures["tokens_per_second"] > 0
    assert figures["steps"] == math.ceil(57 * 3 / 4)
    rows = read_jsonl(context.output / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, figures["steps"] + 1))
    assert sorted(path.name for path in context.output.iterdir()) == ["metrics.jsonl", "model"]


def test_a_row_over_max_length_is_named_where_that_is_asked_for(tmp_path, tuned):
    rows = [*pairs(6), {"prompt": "cat " * 60, "completion": "dog"}]
    with pytest.raises(DataError, match=r"pairs.jsonl:7: .* more than max_length 48"):
        run(tmp_path, tuned, rows, overlong="error")


def test_a_model_from_scratch_has_nothing_to_tune(tmp_path, tuned):
    with pytest.raises(ConfigError, match="needs weights to start from"):
        run(tmp_path, tuned, pairs(4), model=None)


def test_a_mixture_of_sources(tuned, tmp_path):
    """What was seen adds up to what the loop counted, and the held-out loss of each source is that of its own rows."""
    texts = {"plain": pairs(24), "shouted": [{"prompt": row["prompt"].upper(), **row} for row in pairs(60)[24:40]]}
    for row in texts["shouted"]:
        row["completion"] = "three two one"
    data = [{"name": name, "path": write_jsonl(tmp_path / f"{name}.jsonl", rows)} for name, rows in texts.items()]
    data[0]["weight"] = 2
    phases = [{"from": 0.5, "weights": {"plain": 1, "shouted": 3}}]
    figures, context = run(
        tmp_path, tuned, None, data=data, mixture=phases, epochs=2, max_steps=14, heldout_fraction=0.2
    )
    seen = [{one["name"]: one["rows"] for one in phase["sources"]} for phase in figures["mixture"]]
    halves = [phase["updates"] * 4 for phase in figures["mixture"]]
    assert halves == [28, 28] == [sum(phase.values()) for phase in seen]
    assert abs(seen[0]["shouted"] - halves[0] / 3) <= 1 and abs(seen[1]["plain"] - halves[1] / 4) <= 1
    sources = [one for phase in figures["mixture"] for one in phase["sources"]]
    assert sum(one["tokens"] for one in sources) == figures["tokens"]
    model = GemmaCausalLM.from_preset(context.output / "model")
    rows = [*texts["plain"], *texts["shouted"]]
    heldout = heldout_rows([Prompt(row["prompt"], None, "") for row in rows], 0.2)
    for name, chosen in (("plain", [i for i in heldout if i < 24]), ("shouted", [i for i in heldout if i >= 24])):
        total, count = np.sum([response_loss(model, rows[i]) for i in chosen], axis=0)
        assert figures["eval_loss_by_source"][name] == pytest.approx(total / count, abs=1e-4)


def test_bad_rows_of_every_source_are_kept(tuned, tmp_path):
    data = []
    for name in ("first", "second"):
        path = write_jsonl(tmp_path / f"{name}.jsonl", [*pairs(6), {"prompt": name}])
        data.append({"name": name, "path": path, "on_bad_row": "lenient"})
    _, context = run(tmp_path, tuned, None, data=data)
    rejected = read_jsonl(context.output / "rejected.jsonl")
    assert [row["origin"].rpartition("/")[2] for row in rejected] == ["first.jsonl:7", "second.jsonl:7"]
