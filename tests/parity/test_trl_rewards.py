"""One reward function through TRL's own code and through ours: it is handed the same, and gives the same sum."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from policy_fixture import rollout_of

from pipelines.data.columns import Prompt
from pipelines.plugins.sources import functions_in
from pipelines.scoring.raters import UserRater, WeightedRater

pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="TRL runs on PyTorch")

SOURCE = """\
seen = []

def level(prompts, completions, completion_ids, level, **kwargs):
    seen.append((prompts, completions, completion_ids, level, kwargs["answer"]))
    return [None if one is None else one + 0.25 * len(ids) for one, ids in zip(level, completion_ids)]

def says(completions, answer, log_extra=None, trainer_state=None, **kwargs):
    texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
    return [float(text == wanted) for text, wanted in zip(texts, answer)]

async def brief(completions, **kwargs):
    return [-0.5 * len(one) for one in completions]
"""
WEIGHTS = [2.0, -1.0, 0.5]
TURNS = [[{"role": "user", "content": text}] for text in ("p", "q")]


@pytest.mark.parametrize("prompts", [["p", "q"], TURNS], ids=["texts", "turns"])
@pytest.mark.parametrize("trainer", ["RLOOTrainer", "GRPOTrainer"])
def test_a_reward_gives_what_it_gives_in_trl(trainer, prompts, tmp_path):
    import torch
    import trl
    from trl.trainer.utils import shutdown_event_loop_in_daemon, start_event_loop_in_daemon

    (tmp_path / "mine.py").write_text(SOURCE)
    found = functions_in([tmp_path / "mine.py"], ())
    raters = [UserRater(found[name]) for name in ("level", "says", "brief")]
    functions = [rater._reward._function for rater in raters]
    seen = functions[0].__globals__["seen"]
    rows = [{"prompt": prompts[i // 2], "level": [1, None][i // 2], "answer": "yes"} for i in range(4)]
    texts, ids = ["yes", "no!", "yes", ""], [[5, 6, 1], [7], [5, 6, 1], [1]]

    thread, loop, ready = start_event_loop_in_daemon(name="test")
    ready.wait()
    stand_in = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", is_main_process=True), args=SimpleNamespace(report_to=[]),
        state=SimpleNamespace(global_step=0), reward_funcs=functions, reward_processing_classes=[None] * 3,
        reward_func_names=["level", "says", "brief"], environments=None, async_loop=loop,
        _log_completion_extra=None, _log_metric=None,
    )  # fmt: skip
    completions = texts if isinstance(prompts[0], str) else [[{"role": "assistant", "content": one}] for one in texts]
    try:
        theirs = getattr(trl, trainer)._calculate_rewards(
            stand_in, rows, [row["prompt"] for row in rows], completions, ids
        )
    finally:
        shutdown_event_loop_in_daemon(thread, loop)

    examples = [Prompt(row["prompt"], row["answer"], f"rows.jsonl:{i}", columns=row) for i, row in enumerate(rows)]
    rollout = rollout_of([[2]] * 4, ids, [True] * 4, texts)
    ours = WeightedRater(raters, WEIGHTS).score(examples, rollout)
    assert seen[0] == seen[1] and len(seen) == 2
    np.testing.assert_allclose(np.stack(list(ours.parts.values()), axis=1), theirs.numpy(), rtol=1e-6)
    assert np.isnan(ours.parts["level"]).tolist() == [False, False, True, True]
    total = (theirs * torch.tensor(WEIGHTS)).nansum(dim=1)  # as both trainers add them up
    np.testing.assert_allclose(ours.total, total.numpy(), rtol=1e-6)


def test_trl_s_own_rewards_run_as_they_are(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from trl.rewards import think_format_reward\n\ndef think(completions, **kwargs):\n"
        "    return think_format_reward(completions, **kwargs)\n"
    )
    rater = UserRater(functions_in([tmp_path / "mine.py"], ())["think"])
    texts = ["<think>\nyes\n</think>\n4", "4"]
    rollout = rollout_of([[2]] * 2, [[5, 1], [6, 1]], [True] * 2, texts)
    assert rater.score([Prompt(TURNS[0], None, "rows.jsonl:1")] * 2, rollout).total.tolist() == [1.0, 0.0]
