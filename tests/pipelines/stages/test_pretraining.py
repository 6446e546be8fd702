"""Pretraining from scratch: the tokenizer, packing and the seed."""

import math

import numpy as np
import pytest
from keras import ops
from stage_fixture import heldout_rows, make_context, read_jsonl, sentences, stage_config, write_jsonl

from gemma_keras import GemmaCausalLM
from pipelines.data.columns import Text
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.stages.pretraining import run as pretraining


def run(folder):
    data = {"path": write_jsonl(folder / "texts.jsonl", [{"text": text} for text in sentences(60)])}
    settings = {
        "max_length": 32,
        "batch_size": 4,
        "learning_rate": 0.02,
        "heldout_fraction": 0.1,
        "epochs": 2,
        "eval_every": 5,
    }
    context = make_context(folder, "pretraining")
    return pretraining.run(stage_config("pretraining", data=data, **settings), context), context


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("pretraining"))


def test_learns_and_reports(finished):
    figures, context = finished
    curve = figures["eval_loss_curve"]
    assert curve[0][0] == 0 and curve[0][1] == pytest.approx(math.log(figures["vocabulary_size"]), abs=1.0)
    assert figures["eval_loss"] < 0.7 * curve[0][1]
    assert figures["eval_loss"] == curve[-1][1]
    rows = read_jsonl(context.output / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, figures["steps"] + 1))
    assert {"loss", "learning_rate", "grad_norm", "num_tokens", "tokens_per_second"} <= set(rows[1])
    assert figures["documents"] == 60 and figures["dropped_rows"] == 0
    assert 0.5 < figures["packing_efficiency"] <= 1
    assert rows[-2]["num_tokens"] == figures["tokens"]


def test_the_record_of_seen_prompts_is_of_the_training_texts(finished):
    texts = sentences(60)
    heldout = set(heldout_rows([Text(text, "") for text in texts], 0.1))
    training = [prompt_hashes(Text(text, "")) for row, text in enumerate(texts) if row not in heldout]
    assert SeenPrompts.read(finished[1].output / "model") == SeenPrompts.of(training) and heldout


def test_an_adapter_is_trained_where_it_is_asked_for(finished, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(pretraining, "train_language_model", lambda model, *rest: trained.append(model) or {})
    data = {"path": write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in sentences(9)])}
    config = stage_config("pretraining", **{"from": "base", "data": data, "lora": {"rank": 2}})
    context = make_context(tmp_path, "more", inputs={"base": finished[1].output})
    assert pretraining.run(config, context)["trainable_parameters"] < finished[0]["parameters"] / 2
    assert trained[0].active_adapter == "default" and (context.output / "adapter").is_dir()


def test_saves_a_model_that_gives_the_reported_loss(finished):
    figures, context = finished
    model = GemmaCausalLM.from_preset(context.output / "model")
    assert model.config.parameter_count == figures["parameters"]
    assert model.tokenizer.decode(model.tokenizer.encode("red cat: cat red")) == "red cat: cat red"
    # The same held-out texts one by one, unpacked, through the dense logits.
    texts = sentences(60)
    heldout = heldout_rows([Text(text, "") for text in texts], 0.1)
    total, count = 0.0, 0
    for row in heldout:
        ids = [model.config.bos_token_id, *model.tokenizer.encode(texts[row]), model.config.eos_token_id]
        padded = np.zeros((1, 24), np.int32)
        padded[0, : len(ids)] = ids
        logits = ops.convert_to_numpy(
            model({"token_ids": padded, "padding_mask": np.arange(24)[None] < len(ids)})
        ).astype(np.float64)[0]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= sum(log_probs[i, ids[i + 1]] for i in range(len(ids) - 1))
        count += len(ids) - 1
    assert figures["eval_loss"] == pytest.approx(total / count, abs=1e-4)


def without_times(figures):
    return {name: value for name, value in figures.items() if name not in ("step_time", "tokens_per_second")}


def test_a_second_run_gives_the_same_bytes_and_metrics(finished, tmp_path):
    figures, context = finished
    again, other = run(tmp_path)
    for file in ("model.safetensors", "tokenizer.model", "config.json"):
        assert (context.output / "model" / file).read_bytes() == (other.output / "model" / file).read_bytes()
    first, second = ([without_times(row) for row in read_jsonl(c.output / "metrics.jsonl")] for c in (context, other))
    assert first == second
    assert without_times(figures) == without_times(again)


def test_the_seed_decides_the_weights(tmp_path):
    weights = []
    for seed in (11, 11, 12):
        context = make_context(tmp_path, "pretraining", seed=seed)
        config = stage_config("pretraining", data={"path": "unused.jsonl"})
        model, source = pretraining.starting_model(config, context, sentences(60))
        assert source is None
        weights.append(ops.convert_to_numpy(model.backbone.named_variables()["layers.1.q_proj"]))
    assert np.array_equal(weights[0], weights[1])
    assert abs(np.corrcoef(weights[0].ravel(), weights[2].ravel())[0, 1]) < 0.3


def test_goes_on_from_a_model_in_the_dtype_that_is_asked_for(finished, tmp_path):
    context = make_context(tmp_path, "more", inputs={"base": finished[1].output})
    for dtype in ("float32", "mixed_bfloat16"):
        config = stage_config("pretraining", **{"from": "base", "data": {"path": "texts.jsonl"}, "dtype": dtype})
        model, source = pretraining.starting_model(config, context, [])
        assert model.backbone.dtype_policy.name == dtype and source == finished[1].output / "model"


def test_a_mixture_packs_each_source_by_itself_and_counts_what_was_seen(tmp_path):
    texts = {"web": sentences(40), "code": [f"{one} {one}" for one in sentences(70)[40:]]}
    data = [
        {
            "name": name,
            "weight": weight,
            "path": write_jsonl(tmp_path / f"{name}.jsonl", [{"text": one} for one in rows]),
        }
        for (name, rows), weight in zip(texts.items(), (3, 1), strict=True)
    ]
    settings = {"max_length": 32, "batch_size": 4, "heldout_fraction": 0.2, "epochs": 2}
    config = stage_config(
        "pretraining", data=data, mixture=[{"from": 0.5, "weights": {"web": 0, "code": 1}}], **settings
    )
    figures = pretraining.run(config, make_context(tmp_path, "pretraining"))
    first, last = figures["mixture"]
    assert sum(one["tokens"] for phase in (first, last) for one in phase["sources"]) == figures["tokens"]
    assert [one["rows"] for one in last["sources"]][0] == 0 and last["sources"][1]["epochs"] > 1
    assert first["sources"][0]["rows"] == pytest.approx(3 * first["sources"][1]["rows"], abs=2)
    assert set(figures["eval_loss_by_source"]) == {"web", "code"}
    assert (
        min(figures["eval_loss_by_source"].values())
        < figures["eval_loss"]
        < max(figures["eval_loss_by_source"].values())
    )
