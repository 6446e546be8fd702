"""The training loop against sums by hand, and against faults."""

import math
import types

import keras
import numpy as np
import pytest
from keras import ops
from line_model import Line

from pipelines.data.shapes import length_rungs, rung_for
from pipelines.host.errors import DataError
from pipelines.schema.base import TrainingOptions
from pipelines.training.batch_order import batch_rows, count_updates, epoch_order
from pipelines.training.dropout_keys import dropout_keys
from pipelines.training.language_model import next_token_loss_sum
from pipelines.training.loop import NonFiniteTrainingError, Trainer
from pipelines.training.optimizers import OptimizerSettings, learning_rate_schedule
from pipelines.training.state_files import Snapshot


def settings(**options):
    return OptimizerSettings(
        **{"learning_rate": 0.01, "schedule": "constant", "warmup_fraction": 0.0, "clip_norm": 1e9, **options}
    )


def passes(**options):
    return TrainingOptions(kind="any", **{"batch_size": 8, **options})


class Recorder:
    """A stage context that keeps what is logged."""

    seed, name, state = 5, "sft", None

    def __init__(self):
        self.rows = []

    def log(self, step, **metrics):
        self.rows.append({"step": step, **metrics})


def squared_error(model, batch):
    is_target = ops.cast(batch["target_mask"], "float32")
    errors = ops.square(model(batch["x"]) - batch["y"]) * is_target
    return ops.sum(errors), {"targets_seen": ops.sum(is_target), "row_errors": ops.sum(errors, axis=1)}


def line_batch(x, mask):
    x, mask = np.float32(x), np.array(mask, bool)
    return {"x": x, "y": np.zeros_like(x), "target_mask": mask, "padding_mask": np.ones_like(mask)}


def weights_of(trainer):
    return [ops.convert_to_numpy(v).copy() for v in [*trainer.model.variables, *trainer.optimizer.variables]]


def ragged_batches(rows_a_batch):
    """Eight ragged rows of a language model, cut into micro-batches of equal shapes."""
    random = np.random.default_rng(3)
    token_ids = random.integers(3, 97, (8, 12)).astype("int32")
    lengths = np.array([12, 3, 7, 2, 9, 12, 4, 5])
    columns = np.arange(12)[None]
    batch = {
        "token_ids": token_ids,
        "padding_mask": columns < lengths[:, None],
        "target_ids": np.roll(token_ids, -1, axis=1),
        "target_mask": (columns < lengths[:, None] - 1) & (columns >= lengths[:, None] // 3),
    }
    return [{name: value[i : i + rows_a_batch] for name, value in batch.items()} for i in range(0, 8, rows_a_batch)]


def tiny_model(tiny_configs):
    from gemma_keras import GemmaBackbone, GemmaCausalLM

    return GemmaCausalLM(GemmaBackbone(tiny_configs["gemma3"], seed=5))


def mean_token_loss(model):
    """Sum of the token losses over all eight rows divided by their number, from the dense logits in float64."""
    (batch,) = ragged_batches(8)
    logits = ops.convert_to_numpy(
        model({"token_ids": batch["token_ids"], "padding_mask": batch["padding_mask"]})
    ).astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, batch["target_ids"][..., None], axis=-1)[..., 0]
    return -chosen[batch["target_mask"]].mean()


def test_eight_micro_batches_of_one_equal_one_of_eight(tiny_configs):
    results = []
    for rows in (8, 1):
        # After one step Adam's moments are the gradient and its square, scaled: they are compared, as weights only show
        # its sign.
        trainer = Trainer(tiny_model(tiny_configs), next_token_loss_sum, settings(), total_steps=1)
        start = weights_of(trainer)[: len(trainer.model.variables)]
        metrics = trainer.update(ragged_batches(rows))
        moments = {v.path: ops.convert_to_numpy(v) for v in trainer.optimizer.variables}
        results.append((metrics, moments, start))
    (whole, whole_moments, start), (parts, part_moments, other_start) = results
    assert all(np.array_equal(a, b) for a, b in zip(start, other_start, strict=True))
    assert parts["loss"] == pytest.approx(whole["loss"], abs=1e-6)
    assert whole["loss"] == pytest.approx(mean_token_loss(tiny_model(tiny_configs)), abs=1e-5)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-6)
    assert whole["grad_norm"] > 0.1
    for a, b in zip(whole_moments.values(), part_moments.values(), strict=True):
        assert np.max(np.abs(a - b), initial=0) <= 1e-6


def test_gradient_and_metrics_by_hand():
    trainer = Trainer(
        Line(), squared_error, settings(), total_steps=1, summarize=lambda rows: {"rows": len(rows["row_errors"])}
    )
    batches = [
        line_batch([[1, 2], [9, 9]], [[True, True], [False, False]]),
        line_batch([[3, 9], [9, 9]], [[True, False], [False, False]]),
    ]
    metrics = trainer.update(batches)
    # errors (2x)^2 = 4, 16, 36 over three tokens; the slope is 2 * 2 * (1 + 4 + 9) / 3.
    assert metrics["loss"] == pytest.approx(56 / 3)
    assert metrics["grad_norm"] == pytest.approx(4 * 14 / 3, rel=1e-6)
    assert metrics["targets_seen"] == pytest.approx(1.0) and metrics["rows"] == 4
    assert metrics["num_tokens"] == 8
    # Adam's first step is the learning rate, whatever the gradient.
    assert float(trainer.model.w) == pytest.approx(2 - 0.01, abs=1e-6)


def test_clipping_bounds_what_reaches_the_optimizer():
    trainer = Trainer(Line(), squared_error, settings(clip_norm=0.5), total_steps=1)
    metrics = trainer.update([line_batch([[1.0]], [[True]])])
    assert metrics["grad_norm"] == pytest.approx(4.0)
    (moment,) = [v for v in trainer.optimizer.variables if "momentum" in v.path]
    assert float(moment) == pytest.approx(0.1 * 0.5, rel=1e-5)


def test_weight_decay_shrinks_matrices_and_leaves_vectors():
    class Both(keras.Model):
        def __init__(self):
            super().__init__()
            self.matrix = self.add_weight(shape=(1, 1), initializer="ones", name="matrix")
            self.vector = self.add_weight(shape=(1,), initializer="ones", name="vector")
            self.built = True

        def call(self, x):
            return 0.0 * (ops.sum(self.matrix) + ops.sum(self.vector)) * x

    trainer = Trainer(Both(), squared_error, settings(learning_rate=0.1, weight_decay=0.5), total_steps=1)
    trainer.update([line_batch([[1.0]], [[True]])])
    assert ops.convert_to_numpy(trainer.model.matrix).item() == pytest.approx(1 - 0.1 * 0.5)
    assert ops.convert_to_numpy(trainer.model.vector).item() == 1.0


def test_schedule_advances_once_an_update_whatever_the_micro_batches():
    options = settings(schedule="linear", learning_rate=1.0, warmup_fraction=0.5)
    trainer = Trainer(Line(), squared_error, options, total_steps=4)
    micro = line_batch([[1.0]], [[True]])
    rates = [trainer.update([micro] * count)["learning_rate"] for count in (1, 3, 2, 5)]
    assert rates == [0.5, 1.0, 1.0, 0.5]
    assert int(trainer.optimizer.iterations) == 4


@pytest.mark.parametrize("total", [4, 40])
def test_a_warm_up_of_so_many_updates_does_not_depend_on_how_many_there_are(total):
    rate = learning_rate_schedule("constant", 1.0, total, warmup_fraction=0.5, warmup_steps=2)
    assert [rate(update) for update in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert learning_rate_schedule("constant", 1.0, total, 0.5, warmup_steps=0)(0) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_gradient_changes_no_bit_and_the_third_in_a_row_stops(bad):
    recorder = Recorder()
    trainer = Trainer(Line(), squared_error, settings(), total_steps=9, context=recorder)
    good, broken = line_batch([[1.0]], [[True]]), line_batch([[bad]], [[True]])
    trainer.update([good])
    before = weights_of(trainer)
    for _ in range(2):
        metrics = trainer.update([good, broken])
        assert not math.isfinite(metrics["loss"]) and math.isnan(metrics["grad_norm"])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, weights_of(trainer), strict=True))
    assert trainer.update([good])["skipped_updates"] == 2
    before = weights_of(trainer)
    trainer.update([broken])
    trainer.update([broken])
    with pytest.raises(NonFiniteTrainingError, match="3 updates in a row, the last one update 6.*Lower learning_rate"):
        trainer.update([{**broken, "row_index": np.array([4711])}])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, weights_of(trainer), strict=True))
    assert not math.isfinite(recorder.rows[-1]["loss"])


def test_a_finite_loss_with_a_gradient_that_is_not_changes_no_bit():
    def square_root(model, batch):
        return ops.sum(ops.sqrt(model(batch["x"]))), {}  # at 0: value 0, slope infinite

    trainer = Trainer(Line(), square_root, settings(), total_steps=9)
    before = weights_of(trainer)
    metrics = trainer.update([line_batch([[0.0]], [[True]])])
    assert metrics["loss"] == 0 and not math.isfinite(metrics["grad_norm"]) and metrics["skipped_updates"] == 1
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, weights_of(trainer), strict=True))


def test_a_batch_without_loss_names_its_rows():
    trainer = Trainer(Line(), squared_error, settings(), total_steps=1)
    empty = {**line_batch([[1.0], [1.0], [1.0]], [[False]] * 3), "row_index": np.array([17, 4, -1])}
    with pytest.raises(DataError, match=r"rows 17, 4\)"):
        trainer.update([empty])
    assert trainer.step == 0


def test_fit_logs_each_update_and_returns_the_held_out_curve():
    recorder = Recorder()
    trainer = Trainer(Line(), squared_error, settings(learning_rate=0.1), total_steps=5)
    trainer.context = recorder
    trainer.with_progress = lambda batches: batches
    batch = line_batch([[1.0]], [[True]])
    figures = trainer.fit(lambda start: [[batch]] * (5 - start), heldout=lambda: [batch], eval_every=2)
    assert [step for step, _ in figures["eval_loss_curve"]] == [0, 2, 4, 5]
    assert figures["eval_loss_curve"][0][1] == 4.0
    assert figures["eval_loss"] == figures["eval_loss_curve"][-1][1] < 4.0
    assert [row["step"] for row in recorder.rows if "loss" in row] == [1, 2, 3, 4, 5]
    assert figures["steps"] == 5 and figures["tokens"] == 5 and figures["skipped_updates"] == 0


def test_models_are_saved_on_the_way(tmp_path):
    """After each update whose number says so, as it was then."""
    context = Recorder()
    context.output = tmp_path
    trainer = Trainer(Line(), squared_error, settings(), total_steps=5, context=context)
    trainer.with_progress, saved = lambda batches: batches, []
    batch = line_batch([[1.0]], [[True]])
    trainer.fit(lambda start: [[batch]] * 5, save_every=2, save=lambda folder: saved.append((folder, trainer.step)))
    assert saved == [(tmp_path / "snapshots/2", 2), (tmp_path / "snapshots/4", 4)]


@pytest.mark.parametrize(("updates", "last"), [(5, 1), (20, 2), (29, 2)])
def test_the_training_loss_is_the_mean_of_the_last_tenth_of_the_updates(updates, last):
    trainer = Trainer(Line(), squared_error, settings(), total_steps=updates, context=Recorder())
    trainer.with_progress = lambda batches: batches
    figures = trainer.fit(lambda start: [[line_batch([[1.0]], [[True]])]] * (updates - start))
    losses = [row["loss"] for row in trainer.context.rows if "loss" in row]
    assert figures["train_loss"] == pytest.approx(np.mean(losses[-last:])) and len(set(losses)) == updates
    assert figures["eval_loss"] is None


def test_each_epoch_sees_each_row_once_in_its_own_order():
    options = passes(epochs=2.0, batch_size=4, micro_batch_size=3)
    updates = list(batch_rows(7, "sft", [5] * 10, options))
    assert [[len(part) for part in parts] for parts in updates] == [[3, 1]] * 5
    rows = np.concatenate([part for parts in updates for part in parts])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert rows[:10].tolist() == epoch_order(7, "sft", 0, 10).tolist() != epoch_order(7, "other", 0, 10).tolist()


def test_micro_batches_of_an_update_hold_alike_lengths():
    lengths = np.arange(100, 0, -1)
    plain = list(batch_rows(7, "sft", [1] * 100, passes(batch_size=8, micro_batch_size=4)))
    for update, parts in zip(
        plain, batch_rows(7, "sft", lengths, passes(batch_size=8, micro_batch_size=4)), strict=True
    ):
        assert sorted(np.concatenate(update)) == sorted(np.concatenate(parts))
        assert lengths[np.concatenate(parts)].tolist() == sorted(lengths[np.concatenate(parts)])


def test_padded_lengths_are_few():
    assert length_rungs(100) == [128]
    assert length_rungs(1000) == [256, 512, 1024]
    assert length_rungs(1000, max_length=1000) == [256, 512, 1000]
    assert [rung_for(n, [256, 512, 1000]) for n in (1, 256, 257, 1000)] == [256, 256, 512, 1000]


def test_number_of_updates():
    assert count_updates(10, passes(batch_size=4)) == 3
    assert count_updates(10, passes(batch_size=4, epochs=0.5)) == 2
    assert count_updates(10, passes(batch_size=4, epochs=3.0, max_steps=5)) == 5
    assert len(list(batch_rows(0, "x", [1] * 10, passes(batch_size=4, epochs=0.5)))) == 2
    (parts,) = batch_rows(0, "x", [1] * 10, passes(batch_size=4, epochs=0.05))
    assert [len(part) for part in parts] == [1]


def test_dropout_is_keyed_by_the_stage_and_its_seed():
    model, batch = Line(), {"token_ids": np.zeros((3, 4)), "row_index": np.array([7, 2, -1])}
    model.adapters = {"default": types.SimpleNamespace(dropout=0.1), "other": types.SimpleNamespace(dropout=0.0)}
    for context, (seed, stage) in ((Recorder(), (5, "sft")), (None, (0, ""))):
        trainer = Trainer(model, squared_error, settings(), total_steps=4, context=context)
        trainer.step = 3
        inputs = trainer._training_inputs(batch)
        assert inputs["dropout_keys"].tolist() == dropout_keys(seed, stage, 3, batch["row_index"], 3).tolist()
        assert set(inputs) == {"token_ids", "dropout_keys"}


def test_a_snapshot_taken_back_goes_on_with_equal_bits():
    """Weights, moments and counters; the updates after it are those of the trainer that was never interrupted."""

    def make():
        return Trainer(Line(), squared_error, settings(learning_rate=0.1), total_steps=4)

    batches = [line_batch([[1.0 + i], [0.5]], [[True], [i != 2]]) for i in range(4)]
    whole, first, second = make(), make(), make()
    for batch in batches:
        whole.update([batch])
    for batch in batches[:2]:
        first.update([batch])
    saved = first.snapshot()
    arrays = {name: source.read() for name, source in saved.arrays.items()}
    first.update([batches[3]])  # what is read is a copy
    second.restore(Snapshot(arrays, saved.record))
    assert (second.step, second.tokens, second.skipped, second.skipped_in_a_row, second.sums_up) == (2, 4, 0, 0, False)
    for batch in batches[2:]:
        second.update([batch])
    ours, theirs = whole.snapshot(), second.snapshot()
    assert ours.record == theirs.record and len(ours.arrays) == len(theirs.arrays) == 5
    for name, source in ours.arrays.items():
        assert source.read().tobytes() == theirs.arrays[name].read().tobytes(), name


def test_a_state_of_another_model_changes_nothing():
    trainer = Trainer(Line(), squared_error, settings(), total_steps=4)
    saved = trainer.snapshot()
    arrays = {name: np.full(source.shape, 9, source.dtype) for name, source in saved.arrays.items()}
    arrays.pop(next(name for name in arrays if name.endswith("velocity")))
    with pytest.raises(ValueError, match=r"optimizer/.*velocity: expected shape \(\), got None"):
        trainer.restore(Snapshot(arrays, saved.record))
    assert float(trainer.model.w) == 2.0
