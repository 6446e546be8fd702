"""KerasHub's Gemma, through `fit` and `generate`, at the settings that are fastest on each backend."""

import keras
import keras_hub
import numpy as np

from benchmarks.engines.inputs import expect_shape, token_ids, training_rows
from benchmarks.worker import serve_function


def serve(case, stopwatch) -> None:
    """Build the model and serve samples."""
    model = build(case)
    sample = {"train": training, "generate": generation}[case.kind](case, model)
    serve_function(sample, stopwatch, parameters=model.count_params())


def build(case):
    """The model of the case, compiled with AdamW, sampling from the whole distribution."""
    size = case.size
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=size.vocabulary_size,
        num_layers=size.num_layers,
        num_query_heads=size.num_query_heads,
        num_key_value_heads=size.num_key_value_heads,
        hidden_dim=size.hidden_dim,
        intermediate_dim=2 * size.intermediate_dim,  # KerasHub counts both branches
        head_dim=size.head_dim,
        dtype="float32",
    )
    if case.lora_rank:
        backbone.enable_lora(case.lora_rank)
    model = keras_hub.models.GemmaCausalLM(backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=None,
        sampler=keras_hub.samplers.RandomSampler(),
        # On torch Keras' jit is slower and breaks on some versions; elsewhere XLA is the fastest setting.
        jit_compile=keras.backend.backend() != "torch",
    )
    return model


def training(case, model):
    """A function that runs `case.steps` steps of `fit`."""
    ids = training_rows(case)
    targets = np.roll(ids, -1, axis=1)
    weights = np.ones(ids.shape, np.float32)
    weights[:, -1] = 0
    features = {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}

    def sample():
        model.fit(
            features, targets, sample_weight=weights, batch_size=case.batch_size, epochs=1, shuffle=False, verbose=0
        )

    return sample


def generation(case, model):
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
