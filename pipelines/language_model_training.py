"""What pretraining and instruction tuning share: encoded examples in, a trained model and its figures out."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.data.batches import bucket_sizes, make_batch
from pipelines.data.packing import Encoded
from pipelines.training_loop import ROW_INDEX, Batch, Trainer, batch_rows, count_updates, next_token_loss_sum


def train_language_model(model, training: Sequence[Encoded], heldout: Sequence[Encoded], config, context) -> dict:
    """Train on every loss-bearing token of `training` and follow the loss on `heldout`.

    All batches have one shape, that of the longest example, so that one program is compiled.

    Args:
        model: GemmaCausalLM; its weights change.
        training, heldout: encoded or packed examples; `heldout` may be empty.
        config: options of a training stage.
        context: StageContext.

    Returns:
        Figures as of `Trainer.fit`.
    """
    pad_token_id = model.config.pad_token_id
    micro_batch_size = min(config.micro_batch_size or config.batch_size, config.batch_size)
    length, target_length = bucket_sizes([*training, *heldout], config.max_length)

    def batch_of(examples: Sequence[Encoded], rows: np.ndarray) -> Batch:
        batch = make_batch([examples[i] for i in rows], pad_token_id, length, target_length, micro_batch_size)
        filled = np.full(micro_batch_size, -1)
        filled[: len(rows)] = rows
        return {**batch, ROW_INDEX: filled}

    def training_batches() -> Iterator[list[Batch]]:
        for micro_batches in batch_rows(context.seed, context.name, len(training), config):
            yield [batch_of(training, rows) for rows in micro_batches]

    def heldout_batches() -> Iterator[Batch]:
        for start in range(0, len(heldout), micro_batch_size):
            yield batch_of(heldout, np.arange(start, min(start + micro_batch_size, len(heldout))))

    trainer = Trainer(model, next_token_loss_sum, config, count_updates(len(training), config), context)
    return trainer.fit(training_batches(), heldout_batches if len(heldout) else None, config.eval_every)
