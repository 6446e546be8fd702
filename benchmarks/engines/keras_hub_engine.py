"""KerasHub's Gemma, through `fit` and `generate`."""

import keras
import keras_hub
import numpy as np

from benchmarks.engines.inputs import expect_shape, token_ids, training_rows
from benchmarks.engines.keras_steps import Steps
from benchmarks.worker import serve_function


def serve(case, stopwatch) -> None:
    """Build the model and serve samples."""
    model = build(case)
    kinds = {"train": training, "first_call": training, "generate": generation}
    serve_function(kinds[case.kind](case, model, stopwatch), stopwatch, parameters=model.count_params())


def build(case):
    """The model of the case, compiled with AdamW."""
    size = case.size
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=size.vocabulary_size,
        num_layers=size.num_layers,
        num_query_heads=size.num_query_heads,
        num_key_value_heads=size.num_key_value_heads,
        hidden_dim=size.hidden_dim,
        intermediate_dim=2 * size.intermediate_dim,  # KerasHub counts both branches
        head_dim=size.head_dim,
        dtype=case.dtype,
    )
    if case.lora_rank:
        backbone.enable_lora(case.lora_rank)
    model = keras_hub.models.GemmaCausalLM(backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=None,
        sampler=sampler(case),
        # On torch Keras' jit is slower and breaks on some versions; elsewhere XLA is the fastest setting, or is tried.
        jit_compile=keras.backend.backend() != "torch" if case.xla is None else case.xla,
    )
    return model


def sampler(case):
    """The case's way of drawing a token."""
    if case.top_k:
        return keras_hub.samplers.TopKSampler(k=case.top_k, temperature=case.temperature)
    if case.top_p:
        return keras_hub.samplers.TopPSampler(p=case.top_p, temperature=case.temperature)
    return keras_hub.samplers.RandomSampler(temperature=case.temperature)


def training(case, model, stopwatch):
    """A function that runs `case.steps` steps of `fit`."""
    ids = training_rows(case)
    targets = np.roll(ids, -1, axis=1)
    weights = np.ones(ids.shape, np.float32)
    weights[:, -1] = 0
    features, steps = {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}, Steps(stopwatch)
    options = {"batch_size": case.batch_size, "epochs": 1, "shuffle": False, "verbose": 0, "callbacks": [steps]}
    return lambda: model.fit(features, targets, sample_weight=weights, **options)


def generation(case, model, stopwatch):
    """A function that samples `case.new_tokens` a prompt."""
    length = case.prompt_length + case.new_tokens
    prompts = np.zeros((case.batch_size, length), np.int32)
    prompts[:, : case.prompt_length] = token_ids(case, case.batch_size, case.prompt_length)
    mask = np.zeros(prompts.shape, bool)
    mask[:, : case.prompt_length] = True

    def sample():
        output = model.generate({"token_ids": prompts, "padding_mask": mask}, stop_token_ids=None)
        expect_shape(np.asarray(output["token_ids"]).shape, prompts.shape)

    return sample
