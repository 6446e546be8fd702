"""gemma_keras through its public names."""

import keras
import numpy as np

import gemma_keras
from benchmarks import real_model
from benchmarks.engines import ours_parts, ours_reinforce
from benchmarks.engines.inputs import expect_shape, token_ids, training_rows
from benchmarks.engines.keras_steps import Steps
from benchmarks.worker import serve_function


def serve(case, stopwatch) -> None:
    """Build the model and serve samples."""
    kinds = {
        "train": training,
        "first_call": training,
        "generate": generation,
        "reinforce": ours_reinforce.step,
        "reward": ours_parts.reward_training,
        "update": ours_parts.update,
    }
    model = build(case)
    serve_function(kinds[case.kind](case, model, stopwatch), stopwatch, parameters=model.count_params())


def build(case) -> gemma_keras.GemmaCausalLM | gemma_keras.GemmaRewardModel:
    """The model of the case with random weights, or the published ones, and default settings, AdamW apart."""
    if case.real_model:
        model = gemma_keras.GemmaCausalLM.from_preset(real_model.folder(), dtype=case.dtype)
    else:
        backbone = gemma_keras.GemmaBackbone(config_of(case.size), dtype=case.dtype)
        reward = case.kind == "reward"
        model = (gemma_keras.GemmaRewardModel if reward else gemma_keras.GemmaCausalLM)(backbone)
        if reward:
            model.compile(optimizer=keras.optimizers.AdamW(1e-4))
            return model
    if case.lora_rank:
        model.enable_lora(case.lora_rank, ["q_proj", "v_proj"])
    sampler = gemma_keras.Sampler(temperature=case.temperature, top_k=case.top_k, top_p=case.top_p)
    jit = {} if case.xla is None else {"jit_compile": case.xla}
    model.compile(optimizer=keras.optimizers.AdamW(1e-4), sampler=sampler, **jit)
    return model


def config_of(size) -> gemma_keras.GemmaConfig:
    """Our configuration of a `ModelSize`."""
    return gemma_keras.GemmaConfig(
        vocabulary_size=size.vocabulary_size,
        num_layers=size.num_layers,
        num_query_heads=size.num_query_heads,
        num_key_value_heads=size.num_key_value_heads,
        hidden_dim=size.hidden_dim,
        intermediate_dim=size.intermediate_dim,
        head_dim=size.head_dim,
    )


def training(case, model, stopwatch):
    """A function that runs `case.steps` steps of `fit`."""
    ids, steps = training_rows(case), Steps(stopwatch)
    features = {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}
    options = {"batch_size": case.batch_size, "epochs": 1, "shuffle": False, "verbose": 0, "callbacks": [steps]}
    # The longest case is longer than a preprocessor's default.
    return lambda: model.fit(features, max_length=case.prompt_length, **options)


def generation(case, model, stopwatch):
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
