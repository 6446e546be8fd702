"""Preference optimization: the exact ids, the reference, the sums over answers, each loss as a stage."""

import functools
import math
import os

import numpy as np
import pytest
from keras import ops
from stage_fixture import collected_preferences, make_context, read_jsonl, stage_config, tiny_tuned_model, write_jsonl

from gemma_keras import GemmaCausalLM
from gemma_keras.backends import IS_EAGER, to_host
from gemma_keras.limits import BRANCHES
from pipelines.data.columns import Preference
from pipelines.data.encoding import encode_preferences
from pipelines.measures.throughput import TRAINING, Throughput
from pipelines.stages.preference_optimization import learning
from pipelines.stages.preference_optimization import run as preference_optimization
from pipelines.stages.preference_optimization.answer_batches import Answer, answer_batches, sides
from pipelines.stages.preference_optimization.learning import pair_loss, train_policy, with_constants
from pipelines.stages.preference_optimization.losses.registry import LOSSES
from pipelines.stages.preference_optimization.references import Referenced, mismatched, referenced
from pipelines.stages.preference_optimization.scoring import AnswerScorer
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

SEED, TEMPERATURE = 11, 0.7
# Where each loss is a program to compile, some of them speak for all in the quick tests.
QUICK = tuple(LOSSES) if IS_EAGER else ("dpo", "kto")
EACH_LOSS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LOSSES]
OPTIONS = {
    "from": "tuned",
    "data": "collected",
    "max_length": 16,
    "batch_size": 8,
    "micro_batch_size": 5,
    "heldout_fraction": 0.3,
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tiny_tuned_model(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def policy(tuned):
    return GemmaCausalLM.from_preset(tuned / "model")


@pytest.fixture(scope="module")
def pairs(policy, tmp_path_factory):
    rows = read_jsonl(collected_preferences(tmp_path_factory.mktemp("data") / "rows") / "preferences.jsonl")
    fields = ("prompt", "chosen", "rejected", "prompt_ids", "chosen_ids", "rejected_ids", "margin", "probability")
    found = [Preference(origin=f"rows:{i}", **{name: row[name] for name in fields}) for i, row in enumerate(rows)]
    return encode_preferences(policy.tokenizer, found, 16, "drop").examples


@pytest.fixture(scope="module")
def inputs(tuned, tmp_path_factory):
    return {"tuned": tuned, "collected": collected_preferences(tmp_path_factory.mktemp("inputs") / "collected")}


def log_prob(model, ids, length, temperature=TEMPERATURE):
    """Of the last `length` ids given those before them: one row, from the model's logits, in float64."""
    logits = to_host(model({"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), bool)}))[0]
    logits = logits.astype(np.float64) / temperature
    log_softmax = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    return sum(log_softmax[place - 1, ids[place]] for place in range(len(ids) - length, len(ids)))


@pytest.mark.once
def test_answers_have_the_log_probabilities_of_their_rows_alone(policy, pairs):
    """A row an answer in micro-batches of 3, the last of them smaller; and several a row."""
    items, scorer = list(map(sides, pairs)), AnswerScorer(policy, TEMPERATURE)
    plain = scorer.of_items(items[:7], 3, 16)
    packed = next(next(answer_batches(items, [[np.arange(40)]], 40, [64], policy.config)()))
    assert "segment_ids" in packed and packed["target_mask"].sum() == sum(
        pair.chosen_length + pair.rejected_length for pair in pairs[:40]
    )
    rows, of_packed = next(iter(scorer.of_batches([packed])))
    assert sorted(rows.tolist()) == list(range(40))
    of_packed = of_packed[np.argsort(rows)]
    for found in (plain, of_packed[:7]):
        for pair, (chosen, rejected) in zip(pairs[:7], found, strict=True):
            assert chosen == pytest.approx(log_prob(policy, pair.chosen_ids, pair.chosen_length), abs=1e-4)
            assert rejected == pytest.approx(log_prob(policy, pair.rejected_ids, pair.rejected_length), abs=1e-4)


def batch_of_one(policy, item, size, may_pack):
    return next(next(answer_batches([item], [[np.array([0])]], size, [128], policy.config, may_pack)()))


def test_arrays_by_hand(policy):
    """A pair in rows of its own, beside a place that is filled up; and in one row, its beginning once, of which each
    answer keeps a token. Nothing is asked after an answer's last token, so it is only a target."""
    prompt, end = [2, *range(50, 149)], slice(98, 104)
    item = Answer([*prompt, 5, 6], 2), Answer([*prompt, 8], 1)
    plain, joined = batch_of_one(policy, item, 2, False), batch_of_one(policy, item, 1, True)
    assert plain["token_ids"].shape == (4, 128) and joined["token_ids"].shape == (1, 128)
    assert plain["token_ids"][::2, end].tolist() == [[147, 148, 5, 0, 0, 0], [147, 148, 0, 0, 0, 0]]
    assert joined["token_ids"][0, end].tolist() == [147, 148, 5, 148, 0, 0]
    assert plain["padding_mask"].sum(axis=1).tolist() == [101, 1, 100, 1] and joined["padding_mask"].sum() == 102
    for batch, rows, last, answers, lengths in (
        (plain, [0, 0, 2], 99, [0, 0, 2], [2, 1, 1, 1]),
        (joined, [0, 0, 0], 101, [0, 0, 1], [2, 1]),
    ):
        assert batch["target_ids"].tolist() == [[5, 6, 8]] and batch["target_positions"].tolist() == [[99, 100, last]]
        assert batch["target_rows"].tolist() == [rows] and batch["target_answer"].tolist() == [answers]
        assert batch["target_mask"].all() and batch["answer_lengths"].tolist() == lengths
        assert batch["is_item"].tolist() == [True, False][: len(lengths) // 2]
        assert batch["row_index"].tolist() == [0, -1][: len(lengths) // 2]


@pytest.mark.parametrize("may_pack", [False, True])
def test_one_answer_of_one_token_is_one_target(policy, may_pack):
    batch = batch_of_one(policy, (Answer([2, 5], 1),), 40, may_pack)
    assert batch["target_ids"].tolist() == [[5]] and ("segment_ids" in batch) == may_pack


def gradient_of(policy, micro_batches, loss):
    """What the optimizer is handed for one update."""
    trainer = Trainer(
        policy, pair_loss(loss, TEMPERATURE), OptimizerSettings(1e-3), 1, count_units=learning.count_pairs
    )
    gradients = []

    def spy(found, scale, clip_norm):
        gradients.extend(np.asarray(ops.convert_to_numpy(each)) * scale for each in found)
        return 0.0

    trainer._apply = spy
    metrics = trainer.update(micro_batches)
    return metrics, gradients


def batches_of(policy, data, rows, size, kl=0.2, may_pack=False, width=16):
    updates = [[np.array(rows[i : i + size]) for i in range(0, len(rows), size)]]
    batches = next(answer_batches(data.items, updates, size, [width], policy.config, may_pack)())
    return with_constants(list(batches), data.log_probs, kl)


@pytest.mark.parametrize("name", ["dpo", "orpo", "kto"] if IS_EAGER else ["kto"])
def test_micro_batches_add_up_to_the_whole(policy, pairs, name):
    data = Referenced(list(map(sides, pairs)), np.random.default_rng(3).normal(-20, 2, (len(pairs), 2)).astype("f4"))
    loss, rows = LOSSES[name](name=name, nll_weight=0.3), [0, 9, 3, 12, 7, 20, 5]
    whole, gradients = gradient_of(policy, batches_of(policy, data, rows, 7), loss)
    parts, of_parts = gradient_of(policy, batches_of(policy, data, rows, 3), loss)
    for key in ("loss", "rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/rejected", "nll_loss"):
        assert parts[key] == pytest.approx(whole[key], rel=1e-5, abs=1e-6), key
    for one, other in zip(gradients, of_parts, strict=True):
        assert np.abs(one - other).max() < 1e-5 * max(1, np.abs(one).max())
    assert 0 < max(np.abs(one).max() for one in gradients)


def test_the_two_of_a_pair_read_their_prompt_once_and_give_the_gradient_of_rows_alone(policy, pairs):
    data = Referenced(list(map(sides, pairs)), np.random.default_rng(3).normal(-20, 2, (len(pairs), 2)).astype("f4"))
    loss, rows = LOSSES["dpo"](name="dpo", nll_weight=0.3), list(range(60))
    joined = batches_of(policy, data, rows, 60, may_pack=True, width=64)
    assert max(batch["segment_ids"].max() for batch in joined) > BRANCHES
    (metrics, gradients), (found, of_joined) = (
        gradient_of(policy, batches, loss) for batches in (batches_of(policy, data, rows, 60), joined)
    )
    assert found["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
    # Nothing is asked after an answer's last token, so that no row holds it.
    read = [(pair.chosen_ids[:-1], pair.rejected_ids[:-1]) for pair in pairs[:60]]
    shared = [min(len(os.path.commonprefix(sides)), min(map(len, sides)) - 1) for sides in read]
    assert metrics["num_tokens"] == sum(len(ids) for sides in read for ids in sides)
    assert found["num_tokens"] == metrics["num_tokens"] - sum(shared) < metrics["num_tokens"]
    for one, other in zip(gradients, of_joined, strict=True):
        assert np.abs(one - other).max() < 1e-5 * max(1, np.abs(one).max())


def test_a_batch_by_hand(policy, pairs):
    """DPO with smoothing and a tuning term over two ragged pairs, from the model's logits."""
    reference = np.float32([[-30.0, -31.0], [-45.0, -40.0]])
    data, two = Referenced(list(map(sides, pairs[:2])), reference), pairs[:2]
    loss = LOSSES["dpo"](name="dpo", beta=0.2, label_smoothing=0.1, nll_weight=0.5)
    metrics, _ = gradient_of(policy, batches_of(policy, data, [0, 1], 3), loss)
    chosen, rejected = (
        np.array([log_prob(policy, getattr(p, f"{side}_ids"), getattr(p, f"{side}_length")) for p in two])
        for side in ("chosen", "rejected")
    )
    rewards = 0.2 * (chosen - reference[:, 0]), 0.2 * (rejected - reference[:, 1])
    x = rewards[0] - rewards[1]
    nll = -chosen.sum() / sum(pair.chosen_length for pair in two)
    expected = np.mean(0.9 * np.log1p(np.exp(-x)) + 0.1 * np.log1p(np.exp(x))) + 0.5 * nll
    assert metrics["loss"] == pytest.approx(expected, rel=1e-4)
    assert metrics["nll_loss"] == pytest.approx(nll, rel=1e-4)
    assert metrics["rewards/chosen"] == pytest.approx(rewards[0].mean(), rel=1e-4)
    assert metrics["rewards/margins"] == pytest.approx(x.mean(), rel=1e-3)
    assert metrics["rewards/accuracies"] == np.mean(x > 0)
    assert metrics["logps/chosen"] == pytest.approx(chosen.mean(), rel=1e-4)


def test_mismatched_answers_belong_to_other_prompts(pairs):
    items = list(map(sides, pairs))
    found = mismatched(items, 8, (SEED, "dpo", "training"))
    own = {tuple(pair.prompt_ids): (pair.chosen_ids, pair.rejected_ids) for pair in pairs}
    taken = {"chosen": 0, "rejected": 0}
    for pair, (answer,) in zip(pairs, found, strict=True):
        prompt = len(pair.prompt_ids)
        assert list(answer.token_ids[:prompt]) == pair.prompt_ids and 1 <= answer.length <= 8 - prompt
        assert len(answer.token_ids) == prompt + answer.length
        rest = list(answer.token_ids[prompt:])
        givers = [other for other in pairs if other is not pair]
        for side in taken:
            taken[side] += any(
                getattr(other, f"{side}_ids")[len(other.prompt_ids) :][:3] == rest[:3] for other in givers
            )
        assert tuple(pair.prompt_ids) in own
    assert min(taken.values()) > 10
    assert mismatched(items, 8, (SEED, "dpo", "training")) == found
    assert mismatched(items, 8, (SEED, "dpo", "heldout")) != found


def test_another_prompt_is_looked_for_in_64_pairs():
    """Of 200 pairs the 64 before the only one with another prompt, in the order of the draw, get one of its answers."""
    common, other = ((Answer([2, p, a], 1), Answer([2, p, a + 1], 1)) for p, a in ((50, 60), (51, 70)))
    items = [common] * 199 + [other]
    found = mismatched(items, 8, (SEED, "kto", "training"))
    assert sum(answer.token_ids[-1] in (70, 71) for (answer,) in found) == 64
    assert found[-1][0].token_ids in ([2, 51, 60], [2, 51, 61])


@pytest.mark.once
def test_held_out_answers_may_be_longer_than_those_to_learn_from(tmp_path, tuned, pairs):
    learned, long = list(map(sides, pairs[:8])), [2, *range(50, 90)]
    heldout = Referenced([(Answer(long, 3), Answer([*long, 40], 4))], np.float32([[-20, -30]]))
    options = {**OPTIONS, "max_length": 64, "max_steps": 1, "loss": {"name": "dpo", "beta": 0.2}}
    config = stage_config("preference_optimization", temperature=TEMPERATURE, **options)
    model = GemmaCausalLM.from_preset(tuned / "model")
    training = Referenced(learned, np.zeros((8, 2), np.float32))
    figures = train_policy(model, training, heldout, config, make_context(tmp_path, "dpo"))
    x = 0.2 * (log_prob(model, long, 3) + 20 - log_prob(model, [*long, 40], 4) - 30)
    assert figures["eval_loss"] == pytest.approx(math.log1p(math.exp(-x)), rel=1e-4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, inputs):
    """`finished(name)`: a whole run of a loss, made once; final figures, context."""

    @functools.cache
    def run(name):
        context = make_context(tmp_path_factory.mktemp(name), name, inputs=inputs, seed=SEED)
        context.throughput = Throughput(lambda dtype: 1e12)
        rate = 0.02 if name == "orpo" else 0.01
        options = {**OPTIONS, "learning_rate": rate, "temperature": TEMPERATURE, "loss": name}
        config = stage_config("preference_optimization", epochs=3, eval_every=8, **options)
        return preference_optimization.run(config, context), context

    return run


@pytest.mark.parametrize("name", EACH_LOSS)
@pytest.mark.once
def test_each_loss_learns_what_is_preferred(finished, name):
    figures, context = finished(name)
    rows = read_jsonl(context.output / "metrics.jsonl")
    before, after = (next(row for row in order if "eval_loss" in row) for order in (rows, rows[::-1]))
    assert after["eval_rewards/accuracies"] > max(0.75, before["eval_rewards/accuracies"])
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_rewards/margins"] > before["eval_rewards/margins"]
    assert figures["accuracy"] == pytest.approx(after["eval_rewards/accuracies"], abs=1e-6)
    assert figures["margin"] == pytest.approx(after["eval_rewards/margins"], abs=1e-4)
    assert figures["loss"] == name and figures["pairs"] + figures["training_pairs"] == 60
    assert figures["ceiling"] == pytest.approx(0.9) and 0 <= figures["regret"] < 0.15
    speed = context.throughput.figures()[TRAINING]
    assert speed["tokens_per_second"] == figures["tokens_per_second"] > 0 and speed["model_flops_utilization"] > 0
    assert ("kl" in rows[-1] or any("kl" in row for row in rows)) == (name == "kto")
    assert GemmaCausalLM.from_preset(context.output / "model").tokenizer is not None


@pytest.mark.parametrize("name", [one for one in QUICK if LOSSES[one].has_reference])
def test_a_policy_that_has_not_moved_has_log_ratios_of_zero(finished, name):
    """The reference is the policy at its start, by another program: what is not rounding is a fault."""
    rows = read_jsonl(finished(name)[1].output / "metrics.jsonl")
    first = next(row for row in rows if "rewards/chosen" in row)
    expected = {"dpo": math.log(2), "ipo": 25.0, "robust": math.log(2), "kto": 0.5}[name]
    assert first["loss"] == pytest.approx(expected, abs=2e-4 if name == "ipo" else 1e-5)
    for key in ("rewards/chosen", "rewards/rejected", "rewards/margins", *(["kl"] if name == "kto" else [])):
        assert abs(first[key]) < 1e-5, key


@pytest.mark.once
def test_an_adapter_learns_against_its_own_base(tmp_path, inputs):
    """The reference is the policy without its adapter, whose kernels are rounded to 8 bits here."""
    lora = {"rank": 4, "dropout": 0.1, "quantize": "int8"}
    config = stage_config(
        "preference_optimization", lora=lora, learning_rate=0.02, epochs=2, loss={"name": "dpo", "beta": 0.3}, **OPTIONS
    )
    context = make_context(tmp_path, "dpo", inputs=inputs, seed=SEED)
    figures = preference_optimization.run(config, context)
    rows = read_jsonl(context.output / "metrics.jsonl")
    first, last = ([row["loss"] for row in rows if "rewards/chosen" in row][i] for i in (0, -1))
    assert first == pytest.approx(math.log(2), abs=1e-4) and last < first - 0.02
    assert figures["trainable_parameters"] > 0 and (context.output / "adapter").exists()


@pytest.mark.once
def test_another_reference(tmp_path, inputs, tmp_path_factory, monkeypatch):
    """It is held in half the memory of the policy, and what takes its time is said."""
    loaded, said, original = [], [], GemmaCausalLM.from_preset
    monkeypatch.setattr(
        GemmaCausalLM, "from_preset", lambda *place, **dtype: loaded.append(original(*place, **dtype)) or loaded[-1]
    )
    other = tiny_tuned_model(tmp_path_factory.mktemp("other"), seed=4)
    options = {**OPTIONS, "reference": "other", "max_steps": 1, "epochs": 1, "loss": {"name": "dpo", "beta": 0.05}}
    context = make_context(tmp_path, "dpo", inputs={**inputs, "other": other}, seed=SEED)
    monkeypatch.setattr(context, "doing", said.append)
    preference_optimization.run(stage_config("preference_optimization", dtype="mixed_bfloat16", **options), context)
    first = next(row for row in read_jsonl(context.output / "metrics.jsonl") if "rewards/chosen" in row)
    assert abs(first["rewards/chosen"]) > 1e-3 and abs(first["loss"] - math.log(2)) > 1e-4
    embeddings = [model.backbone.named_variables()["embedding"] for model in loaded]
    assert [str(one.dtype) for one in embeddings] == ["float32", "bfloat16"]
    assert [model.compute_dtype for model in loaded] == ["bfloat16", "bfloat16"]
    log_probs = "computing the log-probabilities of the reference"
    assert said == ["reading data", "loading weights", "tokenizing", log_probs, "compiling", "saving the model"]


@pytest.mark.once
def test_the_kl_is_that_of_the_answers_to_other_prompts(tmp_path, inputs, pairs, tmp_path_factory):
    """Of all 60 pairs in one update, under both models."""
    models = {**inputs, "other": tiny_tuned_model(tmp_path_factory.mktemp("other"), seed=4)}
    options = {**OPTIONS, "reference": "other", "heldout_fraction": 0.0, "batch_size": 60, "max_steps": 1}
    config = stage_config("preference_optimization", loss="kto", temperature=TEMPERATURE, **options)
    context = make_context(tmp_path, "kto", inputs=models, seed=SEED)
    preference_optimization.run(config, context)
    first = next(row for row in read_jsonl(context.output / "metrics.jsonl") if "kl" in row)
    policy, reference = (GemmaCausalLM.from_preset(models[name] / "model") for name in ("tuned", "other"))
    items = mismatched(list(map(sides, pairs)), 16, (SEED, "kto", "training"))
    sums = [AnswerScorer(model, TEMPERATURE).of_items(items, 60, 16).mean() for model in (policy, reference)]
    assert first["kl"] == pytest.approx(sums[0] - sums[1], abs=1e-3) and first["kl"] > 0.1


@pytest.mark.once
def test_without_held_out_pairs_nothing_is_measured(tmp_path, inputs):
    options = {**OPTIONS, "heldout_fraction": 0.0, "max_steps": 1}
    figures = preference_optimization.run(
        stage_config("preference_optimization", **options), make_context(tmp_path, "dpo", inputs=inputs)
    )
    assert figures["eval_loss"] is None and "accuracy" not in figures and figures["training_pairs"] == 60


@pytest.mark.once
def test_text_pairs_from_a_file(tmp_path, tuned):
    rows = [{"prompt": f"red {i}", "chosen": "blue cat", "rejected": "dog" * (1 + i % 3)} for i in range(10)]
    data = {"path": write_jsonl(tmp_path / "pairs.jsonl", rows)}
    config = stage_config("preference_optimization", data=data, max_steps=1, batch_size=4, **{"from": "tuned"})
    figures = preference_optimization.run(config, make_context(tmp_path, "dpo", inputs={"tuned": tuned}))
    assert figures["training_pairs"] + figures["pairs"] == 10 and figures["ceiling"] is None


def test_the_reference_is_not_asked_for_where_there_is_none(policy, pairs):
    data = referenced(pairs[:4], None, 4, 16)
    assert not data.log_probs.any() and data.mismatched is None
    assert data.lengths.tolist() == [max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs[:4]]


def test_problems():
    config = stage_config("preference_optimization", data="collected", loss="orpo", reference="tuned")
    message = "orpo has no reference; expected none, or one of the losses dpo, ipo, robust, kto"
    assert list(config.problems()) == [(("reference",), message)]
