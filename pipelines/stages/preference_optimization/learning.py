"""Training a policy on pairs of answers."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from gemma_keras import backends
from pipelines.algorithms.preference_losses import prospect_reference
from pipelines.data.shapes import alike_lengths, length_rungs
from pipelines.stages.preference_optimization.answer_batches import answer_batches
from pipelines.stages.preference_optimization.config import PreferenceOptimization
from pipelines.stages.preference_optimization.losses.base import Answers, PairLoss
from pipelines.stages.preference_optimization.references import Referenced
from pipelines.stages.preference_optimization.scoring import AnswerScorer, answer_log_probs
from pipelines.training.batch_order import Updates, batch_rows, count_updates, micro_batch_size
from pipelines.training.flops import training_flops
from pipelines.training.loop import ROW_INDEX, Batch, LossFunction, Save, Surroundings, Trainer
from pipelines.training.optimizers import OptimizerSettings


def train_policy(
    model: Any, training: Referenced, heldout: Referenced | None, config: PreferenceOptimization, context: Surroundings,
    save: Save | None = None,
) -> dict:  # fmt: skip
    """Minimize the loss of the training pairs and follow that of the held-out ones.

    Args:
        model: GemmaCausalLM; its weights change.
        training, heldout: pairs; `config.batch_size` and `micro_batch_size` count pairs.
        config: options of preference optimization. context: StageContext.
        save: writes the model into a folder, for `save_every`.

    Returns:
        Figures as of `Trainer.fit`.
    """
    loss, size = config.loss, micro_batch_size(config)
    longest = max(int(part.lengths.max()) for part in (training, heldout) if part is not None)
    rungs = length_rungs(longest, config.max_length)
    # An adapter's dropout has one key a row.
    options = size, rungs, model.config, config.lora is None or config.lora.dropout == 0
    scorer = AnswerScorer(model, config.temperature) if loss.has_kl else None
    training_batches = _update_batches(
        training, list(batch_rows(context.seed, context.name, training.lengths.tolist(), config)), options, scorer
    )
    heldout_batches = None
    if heldout is not None:
        alike = alike_lengths(np.arange(len(heldout.items)), heldout.lengths, size)
        heldout_batches = _update_batches(heldout, [alike], options, scorer)
    trainer = Trainer(
        model, pair_loss(loss, config.temperature), OptimizerSettings.of(config),
        count_updates(len(training.items), config), context, count_pairs, throughput=context.throughput,
        count_flops=training_flops(model),
    )  # fmt: skip
    return trainer.fit(
        training_batches,
        None if heldout_batches is None else lambda: itertools.chain.from_iterable(heldout_batches()),
        config.eval_every,
        config.keep_best is not None,
        config.patience,
        config.save_every,
        save,
    )


def _update_batches(
    data: Referenced, updates: Updates, options: tuple, scorer: AnswerScorer | None
) -> Callable[..., Iterator[list[Batch]]]:
    """The micro-batches of each update from one on, each made when the policy is as the update will find it.

    Args:
        options: of `answer_batches`. scorer: of the policy, where the loss needs its KL.
    """
    own = answer_batches(data.items, updates, *options)
    if scorer is None or data.mismatched is None:
        return lambda start=0: (with_constants(list(batches), data.log_probs, 0.0) for batches in own(start))
    others = data.mismatched
    foreign = answer_batches(others.items, updates, *options)
    return lambda start=0: (
        with_constants(list(batches), data.log_probs, prospect_kl(scorer, unmatched, others.log_probs))
        for batches, unmatched in zip(own(start), foreign(start), strict=True)
    )


def prospect_kl(scorer: AnswerScorer, batches: Iterable[Batch], reference: np.ndarray) -> float:
    """`prospect_reference` of the answers to other prompts that go with an update.

    Args:
        scorer: of the policy. batches: of `answer_batches`, of items of one answer. reference: float32 (n, 1), of all.
    """
    found = [log_probs - reference[rows] for rows, log_probs in scorer.of_batches(batches)]
    return float(backends.to_host(prospect_reference(ops.convert_to_tensor(np.concatenate(found)[:, 0]))))


def pair_loss(loss: PairLoss, temperature: float) -> LossFunction:
    """The loss function for `Trainer`: summed over the pairs, as are all of its metrics.

    Args:
        loss: with its options. temperature: of the log-probabilities.

    Returns:
        (model, batch) -> (loss (), aux), of a batch of `with_constants`. aux: `rewards/chosen`, `rewards/rejected`,
        `rewards/margins`, `rewards/accuracies` (a tie is wrong), `logps/chosen`, `logps/rejected` (of whole answers),
        `nll_loss` (of the chosen answers, a token), and where the loss has one `kl`.
    """

    def loss_function(model: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        is_pair, pairs = batch["is_item"], batch["is_item"].shape[0]
        parts = answer_log_probs(model, batch, temperature), batch["reference_log_probs"], batch["answer_lengths"]
        chosen, rejected = (Answers(*(part[side] for part in parts)) for side in (slice(pairs), slice(pairs, None)))
        nll = -chosen.log_probs * batch["pairs_per_token"]
        losses = loss.of_pairs(chosen, rejected, batch["kl"])
        if loss.nll_weight:
            losses = losses + loss.nll_weight * nll
        rewards = loss.rewards(chosen), loss.rewards(rejected)
        measured = {
            "rewards/chosen": rewards[0],
            "rewards/rejected": rewards[1],
            "rewards/margins": rewards[0] - rewards[1],
            "rewards/accuracies": ops.cast(rewards[0] > rewards[1], "float32"),
            "logps/chosen": chosen.log_probs,
            "logps/rejected": rejected.log_probs,
            "nll_loss": nll,
            **({"kl": ops.ones_like(nll) * batch["kl"]} if loss.has_kl else {}),
        }
        return _total(losses, is_pair), {name: _total(values, is_pair) for name, values in measured.items()}

    return loss_function


def _total(values: Any, is_pair: Any) -> Any:
    return ops.sum(ops.where(is_pair, values, 0.0))


def count_pairs(batch: Batch) -> int:
    """Real pairs in a batch."""
    return int(np.sum(batch["is_item"]))


def with_constants(batches: Sequence[Batch], reference: np.ndarray, kl: float) -> list[Batch]:
    """The micro-batches of one update with what their losses need besides the policy.

    Args:
        reference: float32 (n, 2), log-probabilities of all pairs. kl: of the policy before the update.

    Returns:
        Each with `reference_log_probs` float32 (2 k,), `kl` float32 (), and `pairs_per_token` float32 (): pairs of
        the update over tokens of their chosen answers, which makes a mean over pairs one over tokens.
    """
    chosen = sum(float(batch["answer_lengths"][: len(batch["is_item"])][batch["is_item"]].sum()) for batch in batches)
    constants = {
        "kl": np.array(kl, np.float32),
        "pairs_per_token": np.array(sum(map(count_pairs, batches)) / chosen, np.float32),
    }
    completed: list[Batch] = []
    for batch in batches:
        of_batch = np.where(batch["is_item"][:, None], reference[batch[ROW_INDEX]], np.float32(0))
        completed.append({**batch, **constants, "reference_log_probs": of_batch.T.ravel()})
    return completed
