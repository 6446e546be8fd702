"""The commands that talk with a model: `chat` and `generate`. Keras is imported when a model is really built."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gemma_keras import backend_choice
from pipelines import stage_process
from pipelines.errors import ConfigError
from pipelines.paths import model_source

Prompt = str | Sequence[dict[str, str]] | dict[str, str]  # a text, a conversation, or what stands around a gap


def chat(options: argparse.Namespace) -> int:
    """Talk with a model, turn by turn; an empty line or end of file ends it, `/new` starts over."""
    complete = _completer(options)
    interactive = sys.stdin.isatty()
    if interactive:
        print("An empty line ends the conversation, /new starts another.")
    messages: list[dict[str, str]] = []
    turn = 0
    while True:
        try:
            text = input("> " if interactive else "").strip()
        except EOFError:
            return 0
        if not text:
            return 0
        if text == "/new":
            messages = []
            continue
        messages.append({"role": "user", "content": text})
        answer = complete(messages, turn)
        messages.append({"role": "model", "content": answer})
        print(answer, flush=True)
        turn += 1


def generate(options: argparse.Namespace) -> int:
    """Answer each prompt; with `--raw` continue it as plain text, with `--suffix` fill in what stands between."""
    complete = _completer(options)
    if options.suffix is not None:
        for index, prefix in enumerate(options.prompt):
            print(complete({"prefix": prefix, "suffix": options.suffix}, index), flush=True)
        return 0
    for index, prompt in enumerate(options.prompt):
        print(complete(prompt if options.raw else [{"role": "user", "content": prompt}], index), flush=True)
    return 0


def _completer(options: argparse.Namespace) -> Callable[[Prompt, int], str]:
    """A function from a prompt and the number of the draw to the model's answer."""
    source = model_source(options.model)
    backend = backend_choice.choose_backend(options.backend)
    stage_process.set_environment(backend)
    backend_choice.set_backend(backend)
    from gemma_keras import GemmaCausalLM, Sampler, prompt_data
    from gemma_keras.generation import generate_tokens
    from gemma_keras.infilling import infilling_stop_token_ids
    from gemma_keras.random import uniforms

    if options.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens {options.max_new_tokens}: expected 1 or more")
    try:
        sampler = Sampler(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    model: Any = GemmaCausalLM.from_preset(source)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ConfigError(f"{options.model}: has no tokenizer; put its tokenizer.model into the folder")

    def complete(prompt: Prompt, draw: int) -> str:
        (ids,), kind = prompt_data.encode(prompt, tokenizer, model.config.vocabulary_size)
        stops = infilling_stop_token_ids(tokenizer) if kind == "infilling" else tokenizer.stop_token_ids
        width = -(-len(ids) // 32) * 32  # few lengths, so that a conversation does not compile anew at each turn
        prompt_ids = np.full((1, width), tokenizer.pad_token_id, np.int32)
        prompt_ids[0, width - len(ids) :] = ids
        is_token = np.arange(width)[None] >= width - len(ids)
        draws = uniforms(options.seed, "generate", draw, shape=(1, options.max_new_tokens))
        generated = generate_tokens(model, prompt_ids, is_token, options.max_new_tokens, draws, sampler, stops)
        text = tokenizer.decode(generated.responses()[0])
        return text if kind == "infilling" else text.strip()

    return complete
