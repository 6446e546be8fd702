"""The rating step as a stage: sampled ids in the file, labels of the named rater, pairs to people and back."""

import json
import re

import numpy as np
import pytest
from openai_stub import endpoint, with_labels
from policy_fixture import world_model, world_reward_model
from stage_fixture import make_context, read_jsonl, stage_config, write_jsonl

from gemma_keras import GemmaCausalLM, GemmaRewardModel
from gemma_keras.text.chat import encode_prompt
from pipelines.data.examples import load_examples
from pipelines.host.errors import ConfigError, DataError
from pipelines.sampling.collected import read_responses
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.preference_collection import run as preference_collection
from pipelines.stages.preference_collection.pairs import Verdict
from pipelines.tasks import task

pytestmark = pytest.mark.once

SIZE = 12


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "sft": world_model(folder / "sft", scale=4.0),
        "reward": world_reward_model(folder / "reward", mean=0.2, std=0.5),
    }


def collect(folder, inputs, **options):
    data = {"task": "small_world", "split": "preferences", "size": SIZE}
    context = make_context(folder, "preferences", inputs=inputs)
    settings = {"from": "sft", "data": data, "max_new_tokens": 6, "max_length": 96, "batch_size": 8, **options}
    return preference_collection.run(stage_config("preference_collection", **settings), context), context.output


@pytest.fixture(scope="module")
def rated(tmp_path_factory, inputs):
    final, output = collect(tmp_path_factory.mktemp("rated"), inputs, rater="reward_model:reward", noise="none")
    return final, output, read_jsonl(output / "preferences.jsonl")


def test_labels_follow_the_reward_model_on_the_sampled_ids(rated, inputs):
    final, _, rows = rated
    assert final["pairs"] == len(rows) == SIZE - final["identical_pairs"] - final["ties"]
    assert (final["agreement"], final["ceiling"], final["rater"]) == (1.0, 1.0, "reward_model:reward")
    model = GemmaRewardModel.from_preset(inputs["reward"] / "model")
    scorer = SequenceScorer(model, 8)
    for side in ("chosen", "rejected"):
        scores = scorer.raw_scores([row["prompt_ids"] + row[f"{side}_ids"] for row in rows])
        assert np.abs((scores - 0.2) / 0.5 - [row[f"score_{side}"] for row in rows]).max() < 1e-4
    assert scorer.raw_scores([]).shape == (0,)
    assert all(row["score_chosen"] > row["score_rejected"] and row["probability"] == 1.0 for row in rows)


def test_the_ids_are_those_of_prompt_and_text(rated, inputs):
    tokenizer = GemmaCausalLM.from_preset(inputs["sft"] / "model").tokenizer
    for row in rated[2]:
        assert row["prompt_ids"] == encode_prompt(tokenizer, row["prompt"])
        assert row["chosen"] == tokenizer.decode(row["chosen_ids"]) and row["rejected"] == tokenizer.decode(
            row["rejected_ids"]
        )


def test_what_is_written_reads_back_as_preferences(rated):
    _, output, rows = rated
    read = load_examples("preferences", "preference", output, {"preferences": output})
    assert [example.chosen_ids for example in read] == [row["chosen_ids"] for row in rows]


def test_people_rate_the_pairs_that_were_exported(inputs, tmp_path, rated):
    final, output = collect(tmp_path / "export", inputs, export=True)
    assert final["exported_pairs"] == SIZE - final["identical_pairs"] and not (output / "preferences.jsonl").exists()
    shown = read_jsonl(output / "pairs_to_rate.jsonl")
    ratings = tmp_path / "ratings.jsonl"
    ratings.write_text("".join(json.dumps({"id": row["id"], "choice": "second"}) + "\n" for row in shown))
    final, output = collect(tmp_path / "rated", inputs, ratings=str(ratings))
    rows = read_jsonl(output / "preferences.jsonl")
    assert [(row["chosen"], row["rejected"]) for row in rows] == [(row["second"], row["first"]) for row in shown]
    assert (final["pairs"], final["ties"], final["unrated_pairs"], final["rater"]) == (len(shown), 0, 0, "people")
    with pytest.raises(ConfigError, match="no file 'nowhere.jsonl' with ratings"):
        collect(tmp_path / "missing", inputs, ratings="nowhere.jsonl")


def test_all_responses_are_kept_as_sampled(rated, inputs):
    final, output, rows = rated
    found = read_responses(output)
    tokenizer = GemmaCausalLM.from_preset(inputs["sft"] / "model").tokenizer
    items = task("small_world").prompts("preferences", SIZE, 11)
    assert [one.prompt_ids for one in found] == [encode_prompt(tokenizer, item.prompt) for item in items]
    assert all(len(one.response_ids) == 2 for one in found)
    sampled = {tuple(one.prompt_ids): one.response_ids for one in found}
    for row in rows:
        assert sorted(sampled[tuple(row["prompt_ids"])]) == sorted([row["chosen_ids"], row["rejected_ids"]])
    is_cut = [ids[-1] not in tokenizer.stop_token_ids for one in found for ids in one.response_ids]
    assert final["truncated_responses"] == pytest.approx(np.mean(is_cut)) and 0 < np.mean(is_cut)
    assert final["mean_length"] == pytest.approx(np.mean([len(ids) for one in found for ids in one.response_ids]))


def test_the_model_computes_in_the_dtype_that_is_asked_for(inputs, tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    def sampled(model, *arguments):
        assert model.backbone.dtype_policy.name == "map_bfloat16"
        raise Enough

    monkeypatch.setattr(preference_collection, "_sample", sampled)
    with pytest.raises(Enough):
        collect(tmp_path, inputs, rater="gold", dtype="mixed_bfloat16")


def test_a_rater_that_prefers_nothing_is_an_error(inputs, tmp_path):
    rows = [{"question": f"count: fig {word}", "solution": "7"} for word in ("owl", "cap")]
    data = {"path": write_jsonl(tmp_path / "rows.jsonl", rows), "prompt": "question", "answer": "solution"}
    expected = r"'preferences': no preference is left: [01] pairs were identical, [12] ties. Raise samples_per_prompt"
    with pytest.raises(DataError, match=expected):
        collect(tmp_path, inputs, rater="function:exact_answer", data=data, noise="none")


def test_the_gold_rater_writes_its_scores_and_a_ceiling_below_one(inputs, tmp_path):
    final, output = collect(tmp_path, inputs, rater="gold", noise_scale=0.2, samples_per_prompt=3)
    rows = read_jsonl(output / "preferences.jsonl")
    assert len(rows) == 3 * SIZE - final["identical_pairs"]
    assert 0.5 <= final["ceiling"] < 1
    for row in rows:
        difference = row["score_chosen"] - row["score_rejected"]
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-difference / 0.2)), abs=1e-12)
    differences = [row["score_chosen"] - row["score_rejected"] for row in rows]
    took_the_better = [0.5 if difference == 0 else float(difference > 0) for difference in differences]
    assert final["agreement"] == pytest.approx(np.mean(took_the_better))


def test_agreement_and_ceiling_are_over_the_same_pairs():
    """A pair of equal scores has no better answer: half of the time the rater would take either."""
    scores = np.array([0.9, 0.1, 0.5, 0.5])
    verdicts = [Verdict(0, 1, 0.8), Verdict(1, 0, 0.2), Verdict(0, 1, 0.8), Verdict(2, 3, 0.5)]
    found = preference_collection._quality(verdicts, scores)
    assert found == {"agreement": (1 + 0 + 1 + 0.5) / 4, "ceiling": pytest.approx((3 * 0.8 + 0.5) / 4)}


def test_a_judge_of_pairs_rates(inputs, tmp_path):
    """The longer answer, by an endpoint that reads both: in both orders, or in one; ties are dropped."""

    def longer(body):
        text = body["messages"][0]["content"]
        first, second = re.search(r"\[Answer A\]\n?(.*)\n\n\[Answer B\]\n?(.*)\n\n\[End\]", text, re.DOTALL).groups()
        return with_labels(A=-1.0, B=-1.0 - 0.5 * (len(first) - len(second)))

    with endpoint(default=longer) as (url, requests):
        rater = {"judge": {"base_url": url, "model": "m", "retries": 0}}
        final, output = collect(tmp_path / "both", inputs, rater=rater)
        asked = len(requests)
        once, _ = collect(tmp_path / "once", inputs, rater={**rater, "order": "shuffled"})
    rows = read_jsonl(output / "preferences.jsonl")
    pairs = SIZE - final["identical_pairs"]
    assert asked == 2 * pairs and len(requests) == 3 * pairs and final["pairs"] == once["pairs"] == len(rows) > 0
    assert final["pairs"] + final["ties"] == pairs and final["rater"] == f"judge:m at {url}"
    assert (final["position_bias"], final["contradictions"], final["unread"]) == (0, 0, 0)
    for row in rows:
        longer_by = len(row["chosen"].strip()) - len(row["rejected"].strip())
        assert longer_by > 0 and row["score_chosen"] is None
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-0.5 * longer_by)), abs=1e-6)


def test_a_model_of_pairs_rates(inputs, tmp_path):
    """Of a random one that takes the same place in both orders no preference is left."""
    rater = {"judge": {"model": "sft", "max_length": 512, "chat_template": True}, "order": "shuffled"}
    final, output = collect(tmp_path, inputs, rater=rater)
    assert final["rater"] == "judge:sft" and final["pairs"] == len(read_jsonl(output / "preferences.jsonl"))
    assert final["contradictions"] is None and abs(final["position_bias"]) <= 1
    chances = [row["probability"] for row in read_jsonl(output / "preferences.jsonl")]
    assert all(0.5 < one <= 1 for one in chances)
