"""Programs that rollouts of any number and length go through see four shapes at most."""

from types import SimpleNamespace

import numpy as np
import pytest
from policy_fixture import prompts_of

from gemma_keras.config import GemmaConfig
from pipelines.data.layout import MOST_SHAPES
from pipelines.sampling import rollout as rollouts
from pipelines.sampling.rollout import Sampling
from pipelines.scoring.reward_models import SequenceScorer


class Model(SimpleNamespace):
    """Holds what is asked of a model."""


def sequences(count, longest, seed):
    lengths = np.random.default_rng(seed).integers(2, longest + 1, count)
    return [list(range(3, 3 + length)) for length in lengths]


@pytest.mark.parametrize("batch_size", [4, 16, 64])
def test_a_reward_model_sees_four_shapes_whatever_it_scores(batch_size):
    """Rollouts of 64 and evaluations of 25 and 7, packed and not, short steps and long ones; every score is right."""
    scorer, shapes = SequenceScorer(Model(config=GemmaConfig()), batch_size), set()

    def last_ids(batch):
        shapes.add(tuple(value.shape for value in batch.values()))
        rows = batch.get("reward_rows", np.arange(len(batch["token_ids"])))
        return batch["token_ids"][rows, batch["reward_positions"]]

    scorer._forward = last_ids
    for seed in range(12):
        for count in (64, 25, 7):
            given = sequences(count, (20, 60, 200)[seed % 3], seed)
            assert scorer.raw_scores(given, 200).tolist() == [ids[-1] for ids in given]
    assert 2 <= len(shapes) <= MOST_SHAPES


def test_training_and_evaluation_of_a_policy_sample_in_four_shapes(monkeypatch):
    """Prompts of up to 300 tokens, four samples of a prompt and one."""
    tokenizer = SimpleNamespace(stop_token_ids=(1,), decode=lambda ids: "")
    model = Model(config=GemmaConfig(), tokenizer=tokenizer, compute_dtype="float32")
    shapes = set()

    def generate(model, ids, is_token, length, draws, *others, **options):
        shapes.add((ids.shape, draws.shape))
        one, real = np.ones(draws.shape, np.int32), np.ones(draws.shape, bool)
        return SimpleNamespace(
            token_ids=one, response_mask=real, finished=real[:, 0], log_probs=np.float32(one), entropy=None
        )

    monkeypatch.setattr(rollouts, "generate_tokens", generate)
    prompts = prompts_of(sequences(40, 300, 5))
    sampling = Sampling(model, 3, 1.0, 8, 0, "policy", most_widths=2)
    for samples in (4, 1):
        sampling.sample(prompts, range(40), samples)
    assert 3 <= len(shapes) <= MOST_SHAPES
    assert {ids[0] for ids, _ in shapes} == {2, 8}
