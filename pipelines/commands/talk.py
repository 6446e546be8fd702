"""The commands that talk with a model: `chat` and `generate`. They load Keras: `cli` imports this file when a backend
has been chosen."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gemma_keras import GemmaCausalLM, Sampler
from gemma_keras.generation import generate_tokens
from gemma_keras.inputs import prompt_data
from gemma_keras.inputs.padding import padded, round_up
from gemma_keras.random import uniforms
from gemma_keras.text.infilling import infilling_stop_token_ids
from pipelines.host.errors import ConfigError
from pipelines.host.paths import model_source

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
        # Few lengths, so that a conversation does not compile anew at each turn.
        prompt_ids, is_token = padded([ids], tokenizer.pad_token_id, round_up(len(ids), 32), side="left")
        draws = uniforms(options.seed, "generate", draw, shape=(1, options.max_new_tokens))
        generated = generate_tokens(model, prompt_ids, is_token, options.max_new_tokens, draws, sampler, stops)
        text = tokenizer.decode(generated.responses()[0])
        return text if kind == "infilling" else text.strip()

    return complete
