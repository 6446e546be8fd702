"""The ids that a reward model is asked about are those that it learned from."""

import pytest
from policy_fixture import world_model, world_reward_model, world_tokenizer
from stage_fixture import make_context, read_jsonl, stage_config

from gemma_keras.text.chat import encode_response
from pipelines.sampling.collected import Collected
from pipelines.scoring.reward_models import SequenceScorer
from pipelines.stages.preference_collection import run as preference_collection
from pipelines.stages.reward_modeling import run as reward_modeling
from pipelines.stages.reward_modeling.token_agreement import token_agreement


class Enough(Exception):
    """What was looked for is known."""


@pytest.mark.once
def test_collected_responses_are_trained_on_as_a_rater_scores_them(tmp_path, monkeypatch):
    """Token for token, some cut and some with their stop token, prompts of several lengths."""
    scored, trained, normalized = [], [], []
    raw_scores = SequenceScorer.raw_scores

    def watched(self, sequences, length=None):
        scored.extend(map(list, sequences))
        return raw_scores(self, sequences, length)

    def train(model, training, heldout, *rest):
        for pair in [*training, *heldout]:
            trained.append((pair.prompt_ids, pair.chosen_ids, pair.rejected_ids))
        raise Enough

    def collected_samples(*arguments):
        normalized.extend(samples(*arguments))
        return list(normalized)

    samples = reward_modeling.collected_samples
    monkeypatch.setattr(SequenceScorer, "raw_scores", watched)
    monkeypatch.setattr(reward_modeling, "train_on_pairs", train)
    monkeypatch.setattr(reward_modeling, "collected_samples", collected_samples)
    inputs = {
        "sft": world_model(tmp_path / "sft", seed=9, scale=4.0, stop_scale=5.0),
        "rater": world_reward_model(tmp_path / "rater"),
    }
    data = {"task": "small_world", "split": "preferences", "size": 24}
    context = make_context(tmp_path, "collected", inputs=inputs)
    options = {"from": "sft", "data": data, "max_new_tokens": 6, "max_length": 96, "rater": "reward_model:rater"}
    preference_collection.run(stage_config("preference_collection", **options), context)
    with pytest.raises(Enough):
        reward_modeling.run(
            stage_config("reward_modeling", **{"from": "sft", "data": "collected", "max_length": 96}),
            make_context(tmp_path, "reward", inputs={**inputs, "collected": context.output}),
        )
    stops = world_tokenizer().stop_token_ids
    ends = [ids[-1] in stops for ids in scored]
    assert len(scored) == 48 and 0 < sum(ends) < 48 and len({len(prompt) for prompt, _, _ in trained}) > 1
    rows = read_jsonl(context.output / "preferences.jsonl")
    assert len(trained) == len(rows) > 8
    for prompt, *sides in trained:
        assert all(ids in scored and ids[: len(prompt)] == prompt and len(ids) > len(prompt) for ids in sides)
    # What set the mean and the deviation was all of it, no more and no less.
    assert sorted(normalized) == sorted(scored)


def test_the_share_of_sampled_responses_that_are_cut_into_the_pieces_of_their_text():
    tokenizer = world_tokenizer()
    canonical = encode_response(tokenizer, "red and blue")
    *pieces, end = canonical
    letters = [i for letter in "red and blue" for i in tokenizer.encode(letter)]
    assert tokenizer.decode(letters) == tokenizer.decode(pieces) and letters != pieces
    eos = next(i for i in tokenizer.stop_token_ids if i != end)
    samples = [
        Collected([2, 5], [canonical, [*letters, end]]),  # as in training, and of other pieces
        Collected([2, 6], [[*pieces, eos]]),  # another stop token
        Collected([2, 7], [pieces, [end], canonical]),  # one that was cut, which says nothing, and two as in training
    ]
    assert token_agreement(tokenizer, samples) == 3 / 5
    assert token_agreement(tokenizer, [Collected([2], [pieces])]) is None
