"""What pretraining and instruction tuning share: encoded examples in, a trained model and its figures out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gemma_keras.losses import mean_loss
from pipelines.data.batches import bucket, make_batch
from pipelines.data.packing import Encoded
from pipelines.data.shapes import alike_lengths, length_rungs, rung_for
from pipelines.schema.base import TrainingOptions
from pipelines.training.batch_order import batch_rows, count_updates, micro_batch_size
from pipelines.training.loop import ROW_INDEX, Batch, Surroundings, Trainer
from pipelines.training.optimizers import OptimizerSettings


def next_token_loss_sum(model: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Loss of a language model as `Trainer` wants it: the sum over loss-bearing tokens, in nats.

    Args:
        model: GemmaCausalLM.
        batch: `token_ids`, `padding_mask`, `target_ids`, `target_mask`, and what else `model` takes as input.

    Returns:
        loss: float (). aux: {} as nothing else is measured.
    """
    total, _ = model.weighted_score(batch, batch["target_mask"])
    return mean_loss(total, count=1), {}


def train_language_model(
    model: Any, training: Sequence[Encoded], heldout: Sequence[Encoded], config: TrainingOptions, context: Surroundings
) -> dict:
    """Train on every loss-bearing token of `training` and follow the loss on `heldout`.

    Batches have few shapes (see `data/shapes.py`), as each is compiled once.

    Args:
        model: GemmaCausalLM; its weights change.
        training, heldout: encoded or packed examples; `heldout` may be empty.
        config: options of a training stage.
        context: StageContext.

    Returns:
        Figures as of `Trainer.fit`.
    """
    everything = [*training, *heldout]
    size = micro_batch_size(config)
    rungs = length_rungs(max(len(example.token_ids) for example in everything), config.max_length)
    # One number of targets for each padded length, so that a length is one shape.
    target_lengths = {
        rung: bucket(max((sum(e.is_target[1:]) for e in everything if len(e.token_ids) <= rung), default=1) or 1, rung)
        for rung in rungs
    }

    def batch_of(examples: Sequence[Encoded], rows: np.ndarray) -> Batch:
        chosen = [examples[i] for i in rows]
        length = rung_for(max(len(example.token_ids) for example in chosen), rungs)
        row_index = np.full(size, -1)
        row_index[: len(rows)] = rows
        return {
            **make_batch(chosen, model.config.pad_token_id, length, target_lengths[length], size),
            ROW_INDEX: row_index,
        }

    def training_batches() -> Iterator[list[Batch]]:
        for micro_batches in batch_rows(
            context.seed, context.name, [len(example.token_ids) for example in training], config
        ):
            yield [batch_of(training, rows) for rows in micro_batches]

    def heldout_batches() -> Iterator[Batch]:
        lengths = np.array([len(example.token_ids) for example in heldout])
        for rows in alike_lengths(np.arange(len(heldout)), lengths, size):
            yield batch_of(heldout, rows)

    trainer = Trainer(
        model, next_token_loss_sum, OptimizerSettings.of(config), count_updates(len(training), config), context
    )
    return trainer.fit(training_batches(), heldout_batches if heldout else None, config.eval_every)
