"""The same weights and the same ragged pairs through TRL's reward trainer: loss, accuracy, margin and gradients agree,
with margins and with rewards held near 0, and so do the weights after twenty steps."""

import dataclasses
import os

import numpy as np
import pytest
from policy_fixture import world_reward_model
from trl_comparison import NAMES, SETTINGS, compare_gradients, gradients_of, kept_gradients, twenty_steps

from gemma_keras import GemmaRewardModel
from pipelines.data.encoding import EncodedPair
from pipelines.stages.reward_modeling.pair_batches import pair_batches
from pipelines.stages.reward_modeling.pair_training import count_pairs, pair_loss
from pipelines.training.loop import Trainer
from pipelines.training.optimizers import OptimizerSettings

pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="TRL runs on PyTorch")
RANDOM = np.random.default_rng(8)
LENGTHS = ((5, 3, 6), (4, 7, 1), (2, 4, 4))  # of a prompt, its chosen and its rejected answer
CASES = {
    "plain": (None, {}),
    "margin": ([0.0, 1.5, 0.5], {}),
    "centered": (None, {"center_rewards_coefficient": 0.05}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world_reward_model(tmp_path_factory.mktemp("reward")) / "model"


@pytest.fixture(scope="module")
def pairs():
    found = []
    for lengths in LENGTHS:
        prompt, chosen, rejected = (RANDOM.integers(6, 290, length).tolist() for length in lengths)
        found.append(EncodedPair(prompt, prompt + chosen, prompt + rejected, len(chosen), len(rejected)))
    return found


def with_margins(pairs, margins):
    values = [0.0] * len(pairs) if margins is None else margins
    return [dataclasses.replace(pair, margin=value) for pair, value in zip(pairs, values, strict=True)]


def ours(folder, pairs, margins=None, center=0.0, steps=1):
    """Our own updates: metrics of the first, its gradients, the weights at the end."""
    model = GemmaRewardModel.from_preset(folder)
    settings = OptimizerSettings(learning_rate=1e-4, clip_norm=1e9, **SETTINGS)
    trainer = Trainer(model, pair_loss(center), settings, steps, count_units=count_pairs)
    gradients = kept_gradients(trainer)
    # Micro-batches of two pairs and one: what TRL is given at once.
    updates = [[np.array([0, 1]), np.array([2])]] * steps
    batches = pair_batches(with_margins(pairs, margins), updates, 2, [16], model.config, False)()
    metrics = [trainer.update(list(batch)) for batch in batches]
    named = {**model.backbone.named_variables(), "score": model.score.kernel}
    return metrics[0], gradients(named), named


def theirs(folder, pairs, margins, output, **options):
    """TRL's trainer on the same model, and a function of it: its loss of the pairs as they are now."""
    import torch
    import transformers
    import trl
    from datasets import Dataset

    arguments = trl.RewardConfig(
        output_dir=str(output), use_cpu=True, bf16=False, fp16=False, report_to=[], gradient_checkpointing=False,
        disable_dropout=True, **options,
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    columns = {"chosen_ids": [pair.chosen_ids for pair in pairs], "rejected_ids": [pair.rejected_ids for pair in pairs]}
    trainer = trl.RewardTrainer(
        model=transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32
        ),
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )
    assert trl.__version__.startswith("1.16")
    trainer.model.train()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if margins is not None:
        rows = [{**row, "margin": margin} for row, margin in zip(rows, margins, strict=True)]
    batch = trainer.data_collator(rows)
    return trainer, lambda: trainer.compute_loss(trainer.model, dict(batch))


@pytest.mark.parametrize("case", CASES)
def test_loss_figures_and_gradients_are_those_of_trl(folder, pairs, tmp_path, case):
    margins, options = CASES[case]
    center = options.get("center_rewards_coefficient", 0.0)
    metrics, gradients, _ = ours(folder, pairs, margins, center)
    trainer, loss_now = theirs(folder, pairs, margins, tmp_path, **options)
    loss = loss_now()
    loss.backward()
    logged = trainer._metrics["train"]
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert metrics["accuracy"] == pytest.approx(logged["accuracy"][0]) and 0 < metrics["accuracy"] < 1
    assert metrics["margin"] == pytest.approx(logged["margin"][0], abs=1e-5)
    expected = gradients_of(trainer.model)
    assert np.abs(expected["model.embed_tokens.weight"]).max() > 1e-3
    compare_gradients(gradients, expected, {**NAMES, "score": "score.weight"})


def test_twenty_steps_end_where_those_of_trl_end(folder, pairs, tmp_path):
    *_, weights = ours(folder, pairs, steps=20)
    trainer, loss = theirs(folder, pairs, None, tmp_path)
    start, end = twenty_steps(trainer.model, loss)
    assert (end - start).abs().max() > 1e-3
    assert np.abs(np.asarray(weights["embedding"].value.detach()) - end.numpy()).max() < 1e-4
    assert (
        np.abs(np.asarray(weights["score"].value.detach()).T - trainer.model.score.weight.detach().numpy()).max() < 1e-4
    )
