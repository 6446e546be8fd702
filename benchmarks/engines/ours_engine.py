"""gemma_keras through its public names."""

import keras
import numpy as np

import gemma_keras
from benchmarks.engines import ours_reinforce
from benchmarks.engines.inputs import expect_shape, token_ids, training_rows
from benchmarks.worker import serve_function


def serve(case, stopwatch) -> None:
    """Build the model and serve samples."""
    model = build(case)
    sample = {"train": training, "generate": generation, "reinforce": ours_reinforce.step}[case.kind](case, model)
    serve_function(sample, stopwatch, parameters=model.count_params())


def build(case) -> gemma_keras.GemmaCausalLM:
    """The model of the case with random weights and default settings, AdamW apart."""
    size = case.size
    config = gemma_keras.GemmaConfig(
        vocabulary_size=size.vocabulary_size,
        num_layers=size.num_layers,
        num_query_heads=size.num_query_heads,
        num_key_value_heads=size.num_key_value_heads,
        hidden_dim=size.hidden_dim,
        intermediate_dim=size.intermediate_dim,
        head_dim=size.head_dim,
    )
    model = gemma_keras.GemmaCausalLM(gemma_keras.GemmaBackbone(config, dtype="float32"))
    if case.lora_rank:
        model.enable_lora(case.lora_rank, ["q_proj", "v_proj"])
    model.compile(optimizer=keras.optimizers.AdamW(1e-4), sampler="random")
    return model


def training(case, model):
    """A function that runs `case.steps` steps of `fit`."""
    ids = training_rows(case)
    features = {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}

    def sample():
        model.fit(features, batch_size=case.batch_size, epochs=1, shuffle=False, verbose=0)

    return sample


def generation(case, model):
    """A function that samples `case.new_tokens` a prompt."""
    prompts = token_ids(case, case.batch_size, case.prompt_length)
    mask = np.ones(prompts.shape, bool)
    length = case.prompt_length + case.new_tokens
    seeds = iter(range(1_000_000))

    def sample():
        output = model.generate(
            {"token_ids": prompts, "padding_mask": mask},
            max_length=length,
            stop_token_ids=None,
            seed=next(seeds),
            strip_prompt=True,
        )
        expect_shape(output["token_ids"].shape, (case.batch_size, case.new_tokens))

    return sample
