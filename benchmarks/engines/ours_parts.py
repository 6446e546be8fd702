"""Steps of ours that are not a language model's: the reward model, and the optimizer alone."""

import keras
import numpy as np

from benchmarks.engines.inputs import gradient_like, token_ids
from benchmarks.engines.keras_steps import Steps
from gemma_keras import backends


def reward_training(case, model, stopwatch):
    """A function that runs `case.steps` steps of the reward model's `fit`."""
    pairs = case.batch_size * case.steps
    ids = token_ids(case, 2 * pairs, case.prompt_length).reshape(pairs, 2, case.prompt_length)
    features, margins = {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}, np.zeros(pairs, np.float32)
    options = {"batch_size": case.batch_size, "epochs": 1, "shuffle": False, "verbose": 0}
    return lambda: model.fit(features, margins, callbacks=[Steps(stopwatch)], **options)


def update(case, model, stopwatch):
    """A function that runs `case.steps` optimizer steps of a `Trainer`; each with gradients that nobody else holds."""
    run = backends.compile_update(keras.optimizers.AdamW(1e-4), model)
    values = [gradient_like(variable.shape) for variable in model.trainable_variables]

    def sample():
        for _ in range(case.steps):
            gradients = [keras.ops.convert_to_tensor(value.copy()) for value in values]
            stopwatch.begin()
            float(run(gradients, 1.0, 1.0))
            stopwatch.lap()

    return sample
