"""A stage that ends before its last step: when, what is still measured, and what is said of it."""

from types import SimpleNamespace

import numpy as np
import pytest
from policy_fixture import OPTIONS, rollout_of
from stage_fixture import make_context, stage_config

from pipelines.stages.policy_optimization import run as policy_optimization
from pipelines.stages.policy_optimization.methods.registry import METHODS


def trained(monkeypatch, folder, distances, **options):
    """Steps whose rollouts lie so far from the starting model: the steps evaluated, final figures, warnings."""
    config = stage_config("policy_optimization", **{"from": "sft", "reward": "exact_answer", **OPTIONS, **options})
    measured, found = [], iter(distances)
    evaluation = SimpleNamespace(measure=lambda step: measured.append(step) or {"eval_reward": 0.0})
    rollout = rollout_of([[2]], [[5]], [True], [""])
    players = SimpleNamespace(
        method=METHODS["rloo"](),
        rollout_copy=None,
        drawing=SimpleNamespace(draw=lambda *arguments: SimpleNamespace(rollout=rollout, figures={"redraws": 0.0})),
    )
    monkeypatch.setattr(
        policy_optimization,
        "_update",
        lambda *arguments: {"ratio_deviation_token": 0.0, "kl_sequence": next(found)},
    )
    context = make_context(folder, "policy", inputs={})
    _, final = policy_optimization._train(players, evaluation, np.arange(4), config, context, None)
    return measured, final, context.warnings


def test_it_ends_after_the_first_rollout_that_is_too_far(monkeypatch, tmp_path):
    measured, final, warnings = trained(
        monkeypatch, tmp_path, [0, 9.5, 10, 10.25, 3, 3], stop_when={"kl_sequence": 10}, steps=6, eval_every=0
    )
    reason = "kl_sequence of the rollout is 10.25, over stop_when's 10"
    assert measured == [0, 4] and warnings == [f"stopped after step 4 of 6: {reason}"]
    assert final == {"steps": 4, "stopped": reason, "ratio_deviation_token": 0.0}


@pytest.mark.parametrize("options", [{}, {"stop_when": {"kl_sequence": 20}}])
def test_without_a_reason_it_makes_all_steps(monkeypatch, tmp_path, options):
    """One that is too far in the last step ends nothing early."""
    measured, final, warnings = trained(monkeypatch, tmp_path, [0, 5, 20, 50], steps=4, eval_every=2, **options)
    assert measured == [0, 2, 4] and not warnings
    assert final == {"steps": 4, "ratio_deviation_token": 0.0}
