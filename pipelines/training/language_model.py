"""What pretraining and instruction tuning share: encoded examples in, a trained model and its figures out."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemma_keras.losses import mean_loss
from pipelines.data.packing import Encoded
from pipelines.data.shapes import alike_lengths, length_rungs
from pipelines.schema.mixture import MixedOptions
from pipelines.training.batch_order import batch_rows, count_updates, micro_batch_size
from pipelines.training.flops import training_flops
from pipelines.training.language_batches import language_batches
from pipelines.training.loop import Save, Surroundings, Trainer
from pipelines.training.mixture import Mixture
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
    model: Any, training: Sequence[Encoded], heldout: Sequence[Encoded], config: MixedOptions, context: Surroundings,
    save: Save | None = None, mixture: Mixture | None = None,
) -> dict:  # fmt: skip
    """Train on every loss-bearing token of `training` and follow the loss on `heldout`.

    Batches have few shapes (see `data/shapes.py` and `data/layout.py`), as each is compiled once.

    Args:
        model: GemmaCausalLM; its weights change.
        training, heldout: encoded or packed examples; `heldout` may be empty.
        config: options of a training stage.
        context: StageContext. save: writes the model into a folder, for `save_every`.
        mixture: of several sources; None of one data set.

    Returns:
        Figures as of `Trainer.fit`, and of a mixture `mixture`, see `Mixture.seen`, and `eval_loss_by_source`.
    """
    size = micro_batch_size(config)
    lengths, heldout_lengths = ([len(example.token_ids) for example in part] for part in (training, heldout))
    rungs = length_rungs(max(lengths + heldout_lengths), config.max_length)
    # An adapter's dropout has one key a row.
    options = size, rungs, model.config, config.lora is None or config.lora.dropout == 0
    order = None if mixture is None else mixture.order(context.seed, context.name, config)
    updates = list(batch_rows(context.seed, context.name, lengths, config, order))
    training_batches = language_batches(training, updates, *options)
    heldout_batches = None
    if heldout:
        # Those of each source together, so that its loss can be told.
        source_of = np.zeros(len(heldout)) if mixture is None else mixture.heldout_of
        parts = [np.flatnonzero(source_of == source) for source in np.unique(source_of)]
        alike = [alike_lengths(part, np.array(heldout_lengths), size) for part in parts]
        heldout_batches = language_batches(heldout, alike, *options)
    trainer = Trainer(
        model, next_token_loss_sum, OptimizerSettings.of(config), count_updates(len(training), config), context,
        throughput=context.throughput, count_flops=training_flops(model),
    )  # fmt: skip
    figures = trainer.fit(
        lambda start: map(list, training_batches(start)),
        None if heldout_batches is None else lambda: itertools.chain.from_iterable(heldout_batches()),
        config.eval_every,
        config.keep_best is not None,
        config.patience,
        config.save_every,
        save,
    )
    if mixture is None or order is None:
        return figures
    losses = map(trainer.evaluate, () if heldout_batches is None else heldout_batches())
    names = [mixture.names[source] for source in np.unique(mixture.heldout_of)]
    figures["eval_loss_by_source"] = {name: one["eval_loss"] for name, one in zip(names, losses, strict=True)}
    return {**figures, "mixture": mixture.seen(order, lengths, config, trainer.step)}
