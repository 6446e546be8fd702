"""Reward modelling: the exact ids, the ceiling, the normalisation."""

import numpy as np
import pytest
from keras import ops
from policy_fixture import rollout_of
from stage_fixture import (
    collected_preferences,
    heldout_rows,
    make_context,
    preferences,
    read_jsonl,
    stage_config,
    tiny_tuned_model,
    write_jsonl,
)

from gemma_keras import GemmaRewardModel, GemmaTokenizer
from gemma_keras.random import generator
from pipelines.data.columns import Preference, Prompt
from pipelines.data.encoding import EncodedPair, encode_preferences
from pipelines.host.errors import DataError
from pipelines.measures.intervals import score_interval
from pipelines.sampling.collected import Collected
from pipelines.stages.reward_modeling import pair_training
from pipelines.stages.reward_modeling import run as reward_modeling
from pipelines.stages.reward_modeling.pair_training import collected_samples, measure_on_pairs, pair_loss

SEED = 11


def padded(ids):
    """One row of ids, padded on the left to 16, and where it is real."""
    token_ids = np.zeros((1, 16), np.int32)
    token_ids[0, 16 - len(ids) :] = ids
    return {"token_ids": token_ids, "padding_mask": np.arange(16)[None] >= 16 - len(ids)}


def raw(model, ids):
    return float(ops.convert_to_numpy(model(padded(ids)))[0])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tiny_tuned_model(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tuned):
    folder = tmp_path_factory.mktemp("reward")
    inputs = {"tuned": tuned, "collected": collected_preferences(folder / "collected")}
    context = make_context(folder, "reward", inputs=inputs, seed=SEED)
    options = {
        "from": "tuned",
        "data": "collected",
        "max_length": 16,
        "batch_size": 8,
        "micro_batch_size": 5,
        "learning_rate": 0.02,
    }
    config = stage_config(
        "reward_modeling", epochs=5, heldout_fraction=0.3, eval_every=10, normalize_prompts=18, **options
    )
    return reward_modeling.run(config, context), context


def test_computes_in_the_dtype_that_is_asked_for(tmp_path, tuned, monkeypatch):
    class Enough(Exception):
        pass

    def trained(model, *arguments):
        assert model.backbone.dtype_policy.name == "mixed_bfloat16"
        raise Enough

    monkeypatch.setattr(reward_modeling, "train_on_pairs", trained)
    inputs = {"tuned": tuned, "collected": collected_preferences(tmp_path / "collected")}
    config = stage_config("reward_modeling", **{"from": "tuned", "data": "collected", "dtype": "mixed_bfloat16"})
    with pytest.raises(Enough):
        reward_modeling.run(config, make_context(tmp_path, "reward", inputs=inputs))


def test_members_of_an_ensemble_start_from_heads_of_their_own(tmp_path, tuned, monkeypatch):
    """And from adapters; member 1 of a seed is not member 0 of the next."""

    class Enough(Exception):
        pass

    kernels, adapters = [], []

    def trained(model, *arguments):
        kernels.append(np.array(ops.convert_to_numpy(model.score.kernel.value)))
        adapter = [one for one in model.trainable_variables if one is not model.score.kernel]
        adapters.append(np.concatenate([np.ravel(ops.convert_to_numpy(one.value)) for one in adapter]))
        raise Enough

    monkeypatch.setattr(reward_modeling, "train_on_pairs", trained)
    inputs = {"tuned": tuned, "collected": collected_preferences(tmp_path / "collected")}
    lora = {"rank": 2}
    for member, seed in ((0, SEED), (1, SEED), (1, SEED), (2, SEED), (0, SEED + 1)):
        config = stage_config(
            "reward_modeling", **{"from": "tuned", "data": "collected", "max_length": 16, "lora": lora}, member=member
        )
        with pytest.raises(Enough):
            reward_modeling.run(config, make_context(tmp_path, "reward", inputs=inputs, seed=seed))
    plain = GemmaRewardModel.from_preset(tuned / "model", seed=SEED)
    np.testing.assert_array_equal(kernels[0], ops.convert_to_numpy(plain.score.kernel.value))
    np.testing.assert_array_equal(kernels[1], kernels[2])
    for different in ((0, 1), (1, 3), (0, 3), (1, 4)):
        assert np.abs(np.subtract(*(kernels[i] for i in different))).max() > 0.1
        assert np.abs(np.subtract(*(adapters[i] for i in different))).max() > 1e-3


def test_pairs_of_one_prompt_cannot_be_held_out(tmp_path, tuned):
    rows = [{"prompt": prompt, "chosen": "yes", "rejected": "no"} for prompt in ("cat", "Cat!")]
    data = {"path": write_jsonl(tmp_path / "pairs.jsonl", rows)}
    with pytest.raises(DataError, match=r"pairs.jsonl:1: all pairs have one prompt, so none can be held out. Expected"):
        reward_modeling.run(
            stage_config("reward_modeling", **{"from": "tuned", "data": data}),
            make_context(tmp_path, "reward", inputs={"tuned": tuned}),
        )


def held_out(rows):
    """The rows that the stage holds out."""
    return [rows[i] for i in heldout_rows([Prompt(row["prompt"], None, "") for row in rows], 0.3, SEED)]


def test_learns_from_the_ids(finished):
    figures, context = finished
    assert figures["accuracy"] >= 0.75
    assert figures["pairs"] == 18 and figures["training_pairs"] == 42
    low, high = figures["accuracy_ci95"]
    assert 0 <= low < figures["accuracy"] < high <= 1
    assert figures["ceiling"] == pytest.approx(0.9) and figures["pair_prompts"] == 18
    # p is 0.9 or 0.1 for every pair: where the model takes the other side it gives away 0.8.
    rows = held_out(preferences())
    model = GemmaRewardModel.from_preset(context.output / "model")
    given_away = [
        0.8
        * (
            (raw(model, row["prompt_ids"] + row["chosen_ids"]) > raw(model, row["prompt_ids"] + row["rejected_ids"]))
            != (row["probability"] > 0.5)
        )
        for row in rows
    ]
    assert figures["regret"] == pytest.approx(np.mean(given_away), abs=1e-9)
    assert figures["regret_ci95"] == pytest.approx(list(score_interval(given_away)))
    assert 0 <= figures["calibration_error_ci95"][0] <= figures["calibration_error"] <= 1
    assert 0 < figures["calibration_error_if_perfect"] < 0.5
    assert sum(bucket["pairs"] for bucket in figures["accuracy_by_margin"]) == 18
    assert sorted(path.name for path in context.output.iterdir()) == ["metrics.jsonl", "model"]


def test_losses_and_accuracy_are_those_of_the_models_scored_one_by_one(finished, tuned):
    figures, context = finished
    rows = held_out(preferences())
    wanted = np.array([row["margin"] for row in rows])
    assert 0 < wanted.sum() < 0.5 * len(rows)
    for model, step in (
        (GemmaRewardModel.from_preset(tuned / "model", seed=SEED), 0),
        (GemmaRewardModel.from_preset(context.output / "model"), figures["steps"]),
    ):
        margins = np.array(
            [
                raw(model, r["prompt_ids"] + r["chosen_ids"]) - raw(model, r["prompt_ids"] + r["rejected_ids"])
                for r in rows
            ]
        )
        assert dict(map(tuple, figures["eval_loss_curve"]))[step] == pytest.approx(
            np.log1p(np.exp(wanted - margins)).mean(), abs=1e-4
        )
        (logged,) = [
            m for m in read_jsonl(context.output / "metrics.jsonl") if m["step"] == step and "eval_accuracy" in m
        ]
        assert logged["eval_accuracy"] == pytest.approx((margins > 0).mean())
        assert logged["eval_margin"] == pytest.approx(margins.mean(), abs=1e-4)
    assert figures["accuracy"] == pytest.approx((margins > 0).mean())
    assert figures["margin"] == pytest.approx(margins.mean(), abs=1e-4)


def test_normalised_rewards_of_held_out_samples_have_mean_0_and_std_1(finished):
    """As many prompts as are held out normalise: training did nothing to their scores."""
    figures, context = finished
    model = GemmaRewardModel.from_preset(context.output / "model")
    assert (model.reward_mean, model.reward_std) == (figures["reward_mean"], figures["reward_std"])
    assert figures["normalized_on"] == "collected_samples" and figures["normalization_samples"] == 36
    assert "token_agreement" not in figures
    scores = [
        raw(model, row["prompt_ids"] + row[side])
        for row in held_out(preferences())
        for side in ("chosen_ids", "rejected_ids")
    ]
    normalized = model.normalized(np.array(scores))
    assert normalized.mean() == pytest.approx(0, abs=1e-3) and normalized.std() == pytest.approx(1, abs=1e-3)


def test_prompts_without_a_pair_normalise_in_the_share_of_those_with_one():
    def pair(prompt):
        return EncodedPair([prompt], [prompt, 1], [prompt, 2], 1, 1)

    training, heldout = [pair(prompt) for prompt in range(10, 22)], [pair(prompt) for prompt in range(30, 34)]
    pairless = range(50, 58)
    collected = [Collected([p], [[1], [2]]) for p in [*range(10, 22), *range(30, 34)]]
    collected += [Collected([p], [[1], [1]]) for p in pairless]

    def prompts(count, seed=1):
        samples = collected_samples(collected, training, heldout, count, seed, "reward")
        assert all(len(ids) == 2 for ids in samples) and len(samples) == 2 * min(count, len(collected))
        return {ids[0] for ids in samples}

    # A quarter of the prompts with pairs is held out, so a quarter of the others goes with them.
    first = prompts(6)
    assert first >= set(range(30, 34)) and len(first & set(pairless)) == 2
    assert first < prompts(7) and prompts(99) == {one.prompt_ids[0] for one in collected}
    assert prompts(3) != prompts(3, seed=2) and prompts(3) == prompts(3)


def test_a_tie_is_not_right_and_a_row_of_padding_is_no_pair():
    scores = np.float32([1, 2, 3, 9, 1, 1, 4, 0])  # a tie, a right one, a wrong one, and a row that is no pair
    batch = {name: np.zeros(8) for name in ("token_ids", "padding_mask", "reward_positions")}
    batch |= {"margin": np.float32([0, 0.5, 0, 0]), "is_pair": np.array([True, True, True, False])}
    batch = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
    loss, sums = pair_loss(0.0)(lambda inputs: ops.convert_to_tensor(scores), batch)
    assert float(sums["accuracy"]) == 1 and float(sums["margin"]) == 0
    assert float(loss) == pytest.approx(np.log1p(np.exp([0, 0.5 - 1, 1])).sum(), rel=1e-6)
    smoothed, _ = pair_loss(0.0, 0.1)(lambda inputs: ops.convert_to_tensor(scores), batch)
    assert float(smoothed) == pytest.approx(
        (0.9 * np.log1p(np.exp([0, -0.5, 1])) + 0.1 * np.log1p(np.exp([0, 0.5, -1]))).sum(), rel=1e-6
    )


@pytest.mark.parametrize("name", ["label_smoothing", "center_coefficient"])
def test_the_stage_hands_its_loss_options_on(tmp_path, tuned, monkeypatch, name):
    class Enough(Exception):
        pass

    def asked(center_coefficient, label_smoothing):
        assert {"label_smoothing": label_smoothing, "center_coefficient": center_coefficient} == {
            "label_smoothing": 0.0, "center_coefficient": 0.0, name: 0.25,
        }  # fmt: skip
        raise Enough

    monkeypatch.setattr(pair_training, "pair_loss", asked)
    inputs = {"tuned": tuned, "collected": collected_preferences(tmp_path / "collected")}
    options = {"from": "tuned", "data": "collected", "max_length": 16, name: 0.25}
    with pytest.raises(Enough):
        reward_modeling.run(stage_config("reward_modeling", **options), make_context(tmp_path, "r", inputs=inputs))


@pytest.mark.once
@pytest.mark.parametrize("is_filtered", [False, True])
def test_external_pairs_are_encoded_and_normalised_on_samples_of_the_tuned_model(
    tmp_path, tuned, monkeypatch, is_filtered
):
    """Pairs of a file, and those that a filtering stage has left."""
    monkeypatch.setattr(reward_modeling, "token_agreement", lambda tokenizer, samples: len(samples) / 4)
    rows = [{"prompt": f"red {i}", "chosen": "cat dog", "rejected": "sun"} for i in range(8)]
    data = {"path": write_jsonl(tmp_path / "rows.jsonl", rows)}
    context = make_context(tmp_path, "reward", inputs={"tuned": tuned, "clean": tmp_path})
    data = "clean" if is_filtered else data
    options = {"from": "tuned", "data": data, "max_length": 48, "batch_size": 4, "max_steps": 1, "normalize_prompts": 3}
    figures = reward_modeling.run(stage_config("reward_modeling", **options), context)
    assert figures["normalized_on"] == "fresh_samples" and figures["normalization_samples"] == 3
    assert figures["ceiling"] is None and figures["regret"] is None and figures["reward_std"] > 0
    assert figures["token_agreement"] == 3 / 4


def test_fresh_samples_answer_each_prompt_that_leaves_room_once(monkeypatch):
    class Echo:
        def __init__(self, model, new_tokens, temperature, *rest):
            assert (new_tokens, temperature) == (3, 1.0)

        def sample(self, prompts, rows, step):
            ids = [prompts.token_ids[row] for row in rows]
            return rollout_of(ids, [[7]] * len(ids), [True] * len(ids), [""] * len(ids))

    monkeypatch.setattr(pair_training, "Sampling", Echo)
    prompts = [[2, 40], [2, 41, 42, 43, 44], [2, 40], [2, 41, 42, 43, 44, 45]]
    pairs = [EncodedPair(ids, [*ids, 50], [*ids, 50, 51, 52], 1, 3, 0.0, None) for ids in prompts]
    found = pair_training.fresh_samples(None, pairs, 9, 8, 0, "reward")
    ids = [sequence for one in found for sequence in one.sequences()]
    assert sorted(ids) == [[2, 40, 7], [2, 41, 42, 43, 44, 7]] and all(one.response_ids == [[7]] for one in found)
    assert len(pair_training.fresh_samples(None, pairs, 1, 8, 0, "reward")) == 1
    assert pair_training.fresh_samples(None, pairs, 0, 8, 0, "reward") == []


def test_pairs_hold_the_ids_as_sampled_or_else_the_encoded_text(tuned):
    tokenizer = GemmaTokenizer.from_folder(tuned / "model", family="gemma3")
    sampled = Preference("p", "a", "b", "f:1", prompt_ids=[2, 60], chosen_ids=[40, 107], rejected_ids=[41])
    written = Preference("red", " cat ", "dog sun", "f:2", margin=0.5, probability=0.7)
    first, second = encode_preferences(tokenizer, [sampled, written], 48, "error").examples
    assert (first.prompt_ids, first.chosen_ids, first.rejected_ids) == ([2, 60], [2, 60, 40, 107], [2, 60, 41])
    assert (first.chosen_length, first.rejected_length) == (2, 1)
    newline, start, end = tokenizer.encode("\n"), tokenizer.start_of_turn_id, tokenizer.end_of_turn_id
    prompt = [2, start, *tokenizer.encode("user\nred"), end, *newline, start, *tokenizer.encode("model\n")]
    assert second.prompt_ids == prompt
    assert second.chosen_ids == [*prompt, *tokenizer.encode("cat"), end]
    assert second.rejected_ids == [*prompt, *tokenizer.encode("dog sun"), end]
    assert (second.margin, second.probability) == (0.5, 0.7)


def test_ids_of_another_tokenizer_are_refused(tuned):
    tokenizer = GemmaTokenizer.from_folder(tuned / "model", family="gemma3")
    foreign = Preference("p", "a", "b", "f:7", prompt_ids=[2, 60], chosen_ids=[4711], rejected_ids=[41])
    with pytest.raises(DataError, match="f:7: token id 4711 is outside the model's vocabulary of 300"):
        encode_preferences(tokenizer, [foreign], 48, "error")


def test_overlong_pairs():
    long = Preference("p", "a", "b", "f:1", prompt_ids=[2, 60], chosen_ids=[40, 41, 42, 107], rejected_ids=[41])
    short = Preference("p", "a", "b", "f:2", prompt_ids=[2], chosen_ids=[40], rejected_ids=[41])
    no_room = Preference("p", "a", "b", "f:3", prompt_ids=[2] * 5, chosen_ids=[40], rejected_ids=[41])
    with pytest.raises(DataError, match="f:1: 6 tokens, more than max_length 5"):
        encode_preferences(None, [short, long], 5, "error")
    dropped = encode_preferences(None, [long, short], 5, "drop")
    assert dropped.rows == [1] and dropped.dropped == 1
    cut = encode_preferences(None, [long, short, no_room], 5, "truncate")
    assert cut.rows == [0, 1] and (cut.dropped, cut.truncated) == (1, 1)
    assert cut.examples[0].chosen_ids == [2, 60, 40, 41, 42] and cut.examples[0].chosen_length == 3


class Lengths:
    """Scores by the number of ids."""

    def raw_scores(self, sequences, length):
        return np.array([float(len(ids)) for ids in sequences])


def test_intervals_are_over_prompts():
    """Ten pairs of each of three prompts, ranked alike within a prompt: three values."""
    pairs, prompts = [], []
    for prompt, is_right in (("a", True), ("b", True), ("c", False)):
        long, short = [2, 60, 40, 41], [2, 60, 40]
        sides = (long, short) if is_right else (short, long)
        pairs += [EncodedPair([2, 60], *sides, 2, 1, probability=0.8)] * 10
        prompts += [prompt] * 10
    found = measure_on_pairs(Lengths(), pairs, prompts, generator(0))
    assert (found["pairs"], found["pair_prompts"], found["accuracy"]) == (30, 3, pytest.approx(2 / 3))
    assert found["accuracy_ci95"] == pytest.approx(list(score_interval([1, 1, 0])))
    assert found["regret"] == pytest.approx(0.2) and found["ceiling"] == pytest.approx(0.8)
    assert found["regret_ci95"] == pytest.approx(list(score_interval([0, 0, 0.6])))
