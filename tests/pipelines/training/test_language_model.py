"""The batches that a language model trains on: every row once an epoch, in few shapes, with the numbers of its rows."""

import types

import pytest

from pipelines.schema.base import TrainingOptions
from pipelines.training import language_model


class Keeper:
    """A trainer that keeps its batches."""

    def __init__(self, model, loss, settings, total_steps, context):
        self.total_steps = total_steps

    def fit(self, batches, heldout_batches, eval_every):
        return {"training": list(batches), "heldout": list(heldout_batches()), "steps": self.total_steps}


def encoded(length, targets, first):
    """Tokens counted up from `first`; the last few are targets."""
    return types.SimpleNamespace(
        token_ids=list(range(first, first + length)), is_target=[i >= length - targets for i in range(length)]
    )


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(language_model, "Trainer", Keeper)
    # One of 160 tokens, which are padded to 160; up to 96 to 96, up to 64 to 64. The longest have the most targets.
    training = [encoded(160, 150, 1000), encoded(80, 70, 2000), *(encoded(9, 3, 100 * n) for n in range(3, 8))]
    heldout = [encoded(20, 2, 50), encoded(40, 36, 60), encoded(5, 4, 70)]
    model = types.SimpleNamespace(config=types.SimpleNamespace(pad_token_id=0))
    options = TrainingOptions(kind="any", batch_size=4, micro_batch_size=2, epochs=2.0, max_length=160)
    context = types.SimpleNamespace(seed=3, name="sft")
    return training, heldout, language_model.train_language_model(model, training, heldout, options, context)


def rows_of(batches, examples):
    """The numbers of the rows, each of which holds its example and nothing else."""
    found = []
    for batch in batches:
        for row, tokens, is_real, targets, is_target in zip(
            batch["row_index"], batch["token_ids"], batch["padding_mask"], batch["target_ids"], batch["target_mask"],
            strict=True,
        ):  # fmt: skip
            if row < 0:
                assert is_real.tolist() == [True] + [False] * (len(is_real) - 1) and not is_target.any()
                continue
            ids = examples[row].token_ids
            assert tokens[is_real].tolist() == ids
            assert targets[is_target].tolist() == [i for i, t in zip(ids, examples[row].is_target, strict=True) if t]
            found.append(int(row))
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
    batches = [*(batch for update in found["training"] for batch in update), *found["heldout"]]
    shapes = {(batch["token_ids"].shape, batch["target_ids"].shape) for batch in batches}
    assert shapes == {((2, 160), (2, 160)), ((2, 96), (2, 96)), ((2, 64), (2, 64))}
