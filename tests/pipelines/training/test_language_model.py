"""The batches that a language model trains on: every row once an epoch, in few shapes, with the numbers of its rows."""

import types

import numpy as np
import pytest

from gemma_keras.config import GemmaConfig
from pipelines.schema.base import Lora, TrainingOptions
from pipelines.training import language_model
from pipelines.training.language_batches import language_batches


class Keeper:
    """A trainer that keeps its batches."""

    def __init__(self, model, loss, settings, total_steps, context, **measured):
        self.total_steps = total_steps

    def fit(self, batches, heldout_batches, eval_every, keep_best, patience, save_every, save):
        return {"training": list(batches(0)), "heldout": list(heldout_batches()), "steps": self.total_steps}


def encoded(length, targets, first):
    """Tokens counted up from `first`; the last few are targets."""
    return types.SimpleNamespace(
        token_ids=list(range(first, first + length)), is_target=[i >= length - targets for i in range(length)]
    )


@pytest.fixture(params=["packed", "one a row"])
def kept(monkeypatch, request):
    """An adapter's dropout keeps one example a row."""
    monkeypatch.setattr(language_model, "Trainer", Keeper)
    # One of 160 tokens, which are padded to 160; up to 96 to 96, up to 64 to 64. The longest have the most targets.
    training = [encoded(160, 150, 1000), encoded(80, 70, 2000), *(encoded(9, 3, 100 * n) for n in range(3, 8))]
    heldout = [encoded(20, 2, 50), encoded(40, 36, 60), encoded(5, 4, 70)]
    model = types.SimpleNamespace(config=GemmaConfig(), active_adapter=None)
    lora = Lora(dropout=0.0 if request.param == "packed" else 0.1)
    options = TrainingOptions(kind="any", batch_size=4, micro_batch_size=2, epochs=2.0, max_length=160, lora=lora)
    context = types.SimpleNamespace(seed=3, name="sft", throughput=None)
    found = language_model.train_language_model(model, training, heldout, options, context)
    every = [*(batch for update in found["training"] for batch in update), *found["heldout"]]
    assert any("segment_ids" in batch for batch in every) == (request.param == "packed")
    return training, heldout, found


def rows_of(batches, examples):
    """The numbers of the examples in these batches, each whole and with its targets and nothing else."""
    found = []
    starts = [example.token_ids[0] for example in examples]
    for batch in batches:
        ids, mask, positions = batch["token_ids"], batch["target_mask"], batch["target_positions"]
        segments = batch.get("segment_ids", batch["padding_mask"].astype(int))
        rows = batch.get("target_rows", np.arange(len(ids))[:, None] + np.zeros_like(positions))
        assert (ids[rows, positions + mask][mask] == batch["target_ids"][mask]).all()
        numbers = []
        for row, segment in np.argwhere(np.arange(1, segments.max() + 1) <= segments.max(axis=1)[:, None]).tolist():
            here = np.flatnonzero(segments[row] == segment + 1)
            targets = batch["target_ids"][mask & (rows == row) & np.isin(positions, here)].tolist()
            if ids[row, here].tolist() == [0] and not targets:
                continue  # a row of padding
            number = starts.index(ids[row, here[0]])
            example = examples[number]
            assert ids[row, here].tolist() == example.token_ids
            assert targets == [i for i, t in zip(example.token_ids, example.is_target, strict=True) if t]
            numbers.append(number)
        assert sorted(numbers) == sorted(batch["row_index"][batch["row_index"] >= 0])
        found += numbers
    return found


def test_every_epoch_sees_each_row_once_and_an_update_as_many_as_asked_for(kept):
    training, _, found = kept
    updates = [rows_of(update, training) for update in found["training"]]
    assert [len(rows) for rows in updates] == [4, 4, 4, 2] and found["steps"] == 4
    assert sorted(sum(updates, [])) == sorted([*range(7)] * 2)
    assert len(set(updates[0])) == 4 and len({*updates[2], *updates[3]}) == 6  # the last two are of one epoch


def test_what_is_held_out_is_looked_at_once_whole(kept):
    _, heldout, found = kept
    assert sorted(rows_of(found["heldout"], heldout)) == [0, 1, 2]


def test_lengths_are_few_and_each_has_one_shape(kept):
    _, _, found = kept
    for batches in ([batch for update in found["training"] for batch in update], found["heldout"]):
        shapes = {(batch["token_ids"].shape, batch["target_ids"].shape) for batch in batches}
        if "segment_ids" in batches[0]:
            assert all(rows * width <= 2 * 160 for (rows, width), _ in shapes) and len(shapes) <= 4
        else:
            expected = {((2, 160), (2, 160)), ((2, 96), (2, 96)), ((2, 64), (2, 4))}
            assert shapes == (expected if batches is not found["heldout"] else {((2, 64), (2, 64))})


def test_a_length_that_no_example_has():
    examples = [encoded(160, 30, 1000)]
    (batches,) = language_batches(examples, [[np.array([0])]], 1, [64, 160], GemmaConfig())()
    (batch,) = batches
    assert batch["token_ids"].shape == (1, 160) and batch["target_ids"].shape == (1, 32)
