"""Training and measuring a reward model on pairs of token ids."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from gemma_keras.losses import bradley_terry_loss
from gemma_keras.random import generator
from pipelines.data.batches import bucket
from pipelines.data.encoding import EncodedPair
from pipelines.data.shapes import alike_lengths, length_rungs
from pipelines.sampling.collected import Collected
from pipelines.sampling.prompts import Prompts
from pipelines.sampling.rollout import Sampling
from pipelines.scoring.pair_figures import figures_of_pairs
from pipelines.scoring.reward_models import PACKED_INPUTS, SequenceScorer
from pipelines.stages.reward_modeling.config import LONGEST_SAMPLE, SAMPLING_BATCH, RewardModeling
from pipelines.stages.reward_modeling.pair_batches import longest_side, pair_batches
from pipelines.training.batch_order import batch_rows, count_updates, micro_batch_size
from pipelines.training.dropout_keys import DROPOUT_KEYS
from pipelines.training.flops import training_flops
from pipelines.training.loop import Batch, LossFunction, Save, Surroundings, Trainer
from pipelines.training.optimizers import OptimizerSettings


def train_on_pairs(
    model: Any,
    training: Sequence[EncodedPair],
    heldout: Sequence[EncodedPair],
    config: RewardModeling,
    context: Surroundings,
    save: Save | None = None,
) -> dict:
    """Bradley-Terry training; chosen and rejected run through the model as one batch, chosen scores first.

    Args:
        model: GemmaRewardModel; its weights change.
        training, heldout: pairs; `config.batch_size` and `micro_batch_size` count pairs.
        config: options of reward modelling. context: StageContext.
        save: writes the model into a folder, for `save_every`.

    Returns:
        Figures as of `Trainer.fit`.
    """
    size = micro_batch_size(config)
    rungs = length_rungs(longest_side([*training, *heldout]), config.max_length)
    # An adapter's dropout has one key a row.
    options = size, rungs, model.config, config.lora is None or config.lora.dropout == 0
    longer = [longest_side([pair]) for pair in training]
    updates = list(batch_rows(context.seed, context.name, longer, config))
    training_batches = pair_batches(training, updates, *options)
    heldout_batches = None
    if heldout:
        alike = alike_lengths(np.arange(len(heldout)), np.array([longest_side([pair]) for pair in heldout]), size)
        heldout_batches = pair_batches(heldout, [alike], *options)
    trainer = Trainer(
        model,
        pair_loss(config.center_coefficient, config.label_smoothing),
        OptimizerSettings.of(config),
        count_updates(len(training), config),
        context,
        count_pairs,
        _reward_range,
        context.throughput,
        training_flops(model),
    )
    return trainer.fit(
        lambda start: map(list, training_batches(start)),
        None if heldout_batches is None else lambda: itertools.chain.from_iterable(heldout_batches()),
        config.eval_every,
        config.keep_best is not None,
        config.patience,
        config.save_every,
        save,
    )


def pair_loss(center_coefficient: float, label_smoothing: float = 0.0) -> LossFunction:
    """The loss function for `Trainer`: summed Bradley-Terry loss, and sums of accuracy (a tie is wrong) and margin over
    the pairs."""

    def loss_function(model: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        inputs = (*PACKED_INPUTS, DROPOUT_KEYS)
        scores = model({name: batch[name] for name in inputs if name in batch})
        pairs = batch["is_pair"].shape[0]
        chosen, rejected = scores[:pairs], scores[pairs:]
        loss = bradley_terry_loss(
            chosen, rejected, batch["margin"], center_coefficient, 1, batch["is_pair"], label_smoothing
        )
        is_right = ops.logical_and(chosen > rejected, batch["is_pair"])
        margins = ops.where(batch["is_pair"], chosen - rejected, 0.0)
        rewards = ops.stack([chosen, rejected], axis=1)
        sums = {"accuracy": ops.sum(ops.cast(is_right, "float32")), "margin": ops.sum(margins)}
        return loss, {**sums, "rewards": rewards, "is_pair": batch["is_pair"]}

    return loss_function


def count_pairs(batch: Batch) -> int:
    """Real pairs in a batch."""
    return int(np.sum(batch["is_pair"]))


def measure_on_pairs(
    scorer: SequenceScorer, pairs: Sequence[EncodedPair], prompts: Sequence[str], rng: np.random.Generator
) -> dict:
    """`figures_of_pairs` of a reward model."""
    length = bucket(longest_side(pairs))
    sides = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    chosen, rejected = np.split(scorer.raw_scores(sides, length), 2)
    return figures_of_pairs(chosen, rejected, pairs, prompts, rng)


def collected_samples(
    collected: Sequence[Collected],
    training: Sequence[EncodedPair],
    heldout: Sequence[EncodedPair],
    prompts: int,
    seed: int,
    stage: str,
) -> list[list[int]]:
    """All responses to at most `prompts` prompts: held-out ones first, as training did nothing to their scores.

    Prompts whose responses were equal have no pair. They are held out in the same share as those that have some: what
    the model says is to be normalised, not what was worth a preference.

    Args:
        collected: the responses that the pairs were made from. training, heldout: the pairs; they share no prompt.

    Returns:
        Ids of prompt and response together.
    """
    trained, unseen = ({tuple(pair.prompt_ids) for pair in pairs} for pairs in (training, heldout))
    pairless = sorted({tuple(one.prompt_ids) for one in collected} - trained - unseen)
    share = round(len(pairless) * len(unseen) / len(trained | unseen))
    unseen |= {pairless[i] for i in generator(seed, stage, "normalize", "pairless").permutation(len(pairless))[:share]}
    order = [collected[i] for i in generator(seed, stage, "normalize", "collected").permutation(len(collected))]
    order.sort(key=lambda one: tuple(one.prompt_ids) not in unseen)
    return [sequence for one in order[:prompts] for sequence in one.sequences()]


def fresh_samples(
    model: Any, pairs: Sequence[EncodedPair], prompts: int, max_length: int, seed: int, stage: str
) -> list[Collected]:
    """Samples of the tuned model on at most `prompts` prompts of the data, for pairs whose responses someone else
    wrote.

    Args:
        model: GemmaCausalLM with a tokenizer.
        max_length: tokens of prompt and response; longer prompts are left out.

    Returns:
        A response to each prompt, temperature 1, as long as the longest response of the data, at most 256 tokens.
    """
    new_tokens = min(LONGEST_SAMPLE, max(max(pair.chosen_length, pair.rejected_length) for pair in pairs))
    unique = [
        list(ids)
        for ids in dict.fromkeys(tuple(pair.prompt_ids) for pair in pairs)
        if len(ids) + new_tokens <= max_length
    ]
    if not unique or not prompts:
        return []
    rows = generator(seed, stage, "normalize").permutation(len(unique))[:prompts]
    rollout_prompts = Prompts([], unique, bucket(max(map(len, unique))), 0)
    rollout = Sampling(model, new_tokens, 1.0, SAMPLING_BATCH, seed, stage).sample(
        rollout_prompts, rows.tolist(), step="normalize"
    )
    return [Collected(rollout.prompt_list(row), [rollout.response_list(row)]) for row in range(len(rollout))]


def set_normalization(model: Any, scorer: SequenceScorer, samples: Sequence[Sequence[int]]) -> None:
    """Set `reward_mean` and `reward_std` so that normalised rewards of `samples` have mean 0 and standard deviation
    1."""
    if not samples:
        return
    scores = scorer.raw_scores(samples).astype(np.float64)
    model.reward_mean = float(scores.mean())
    model.reward_std = float(scores.std()) or 1.0


def _reward_range(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    rewards = arrays["rewards"][arrays["is_pair"]]
    return {"reward": float(rewards.mean()), "reward_min": float(rewards.min()), "reward_max": float(rewards.max())}
