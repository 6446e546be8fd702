"""Ending with the weights of the lowest held-out loss, and ending early: with made-up losses."""

import math

import numpy as np
import pytest
from keras import ops
from line_model import Line

from pipelines.schema.base import TrainingOptions
from pipelines.training import state as state_module
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings
from pipelines.training.state import StageState


class Context:
    seed, name, state = 5, "sft", None

    def __init__(self):
        self.rows, self.warnings = [], []

    def log(self, step, **metrics):
        self.rows.append({"step": step, **metrics})


BATCH = {
    "x": np.ones((1, 1), np.float32),
    "target_mask": np.ones((1, 1), bool),
    "padding_mask": np.ones((1, 1), bool),
}


def trained(losses, state=None, **options):
    """Updates of 0.1 down from 2, and these held-out losses before the first and after every second one."""
    context = Context()
    context.state = state
    settings = OptimizerSettings(0.1, schedule="constant", warmup_fraction=0, clip_norm=0)
    trainer = Trainer(Line(), lambda model, batch: (ops.sum(model(batch["x"])), {}), settings, 8, context)
    trainer.with_progress = lambda batches: batches
    found = iter(losses)
    trainer.evaluate = lambda batches: {"eval_loss": next(found)}
    figures = trainer.fit(lambda start: [[BATCH]] * (8 - start), list, 2, **options)
    return trainer, figures


@pytest.mark.parametrize(
    ("losses", "options", "step", "weight", "loss"),
    [
        ([5, 3, 4, 4, 4], {}, 8, 1.2, 4),
        ([5, 3, 4, 4, 4], {"keep_best": True}, 2, 1.8, 3),
        ([5, 3, 4, 2, 4], {"keep_best": True}, 6, 1.4, 2),
        ([5, 4, 3, 2, 1], {"keep_best": True}, 8, 1.2, 1),
        ([1, 2, 3, 4, 5], {"keep_best": True}, 0, 2.0, 1),
        ([5, math.nan, math.inf, 3, 4], {"keep_best": True}, 6, 1.4, 3),
    ],
)
def test_the_model_ends_with_the_weights_of_the_lowest_loss(losses, options, step, weight, loss):
    trainer, figures = trained(losses, **options)
    assert float(trainer.model.w) == pytest.approx(weight, abs=1e-5)
    assert figures["eval_loss"] == loss and figures["steps"] == 8
    assert figures.get("best_step") == (step if options else None) and "stopped_early" not in figures
    assert [point[0] for point in figures["eval_loss_curve"]] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("losses", "patience", "steps"), [([5, 4, 4.5, 4.2, 1], 2, 6), ([5, 6, 1, 1, 1], 1, 2), ([5, 6, 4, 5, 3], 2, 8)]
)
def test_training_ends_after_so_many_losses_that_are_not_lower(losses, patience, steps):
    """An equal one is not lower; one that is starts the count anew."""
    trainer, figures = trained(losses, patience=patience)
    assert figures["steps"] == trainer.step == steps
    assert figures.get("stopped_early") == (True if steps < 8 else None)


@pytest.mark.parametrize(("killed_after", "losses_left"), [(2, [4, 4.5]), (3, [4, 4.5]), (6, [])])
def test_the_best_weights_and_the_count_are_part_of_a_state(tmp_path, monkeypatch, killed_after, losses_left):
    """Killed after the best ones, between two looks, and when it was over already."""
    monkeypatch.setattr(state_module, "COST_SHARE", 0.0)

    class Killed(Exception):
        pass

    def state():
        return StageState(tmp_path, "key", {}, every_seconds=1e-9)

    first, calls = state(), [0]
    checkpoint = first.checkpoint

    def counted(*arguments):
        checkpoint(*arguments)
        calls[0] += 1
        if calls[0] == killed_after:
            first._wait()
            raise Killed

    first.checkpoint = counted
    options = {"keep_best": True, "patience": 2}
    with pytest.raises(Killed):
        trained([5, 3, 4, 4.5, 4], first, **options)
    saved = int(max((path.name for path in (tmp_path / "state").iterdir()), key=int))
    assert saved == killed_after
    trainer, figures = trained(losses_left, state(), **options)
    assert float(trainer.model.w) == pytest.approx(1.8, abs=1e-5)
    assert (figures["best_step"], figures["steps"], figures["stopped_early"], figures["eval_loss"]) == (2, 6, True, 3)


def test_without_a_held_out_loss_on_the_way_both_are_refused():
    options = {"kind": "any", "keep_best": "eval_loss", "patience": 2}
    assert [path for path, _ in TrainingOptions(**options, eval_every=5).problems()] == []
    for missing in ({"eval_every": 0}, {"eval_every": 5, "heldout_fraction": 0}):
        found = list(TrainingOptions(**options, **missing).problems())
        assert [path for path, _ in found] == [("keep_best",), ("patience",)]
        assert "expected eval_every and heldout_fraction over 0" in found[0][1]
