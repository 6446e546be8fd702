"""The commands that open a model: `chat`, `generate`, `convert`. Keras is imported when a model is really built."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras import backend_choice
from gemma_keras.checkpoints import gguf, hugging_face, resolve
from gemma_keras.checkpoints.tokenizers import read_tokenizer
from pipelines import stage_process
from pipelines.checkpoint import write_folder
from pipelines.errors import ConfigError
from pipelines.paths import find_model


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
    """Answer each prompt; with `--raw` continue it as plain text."""
    complete = _completer(options)
    for index, prompt in enumerate(options.prompt):
        print(complete(prompt if options.raw else [{"role": "user", "content": prompt}], index), flush=True)
    return 0


def convert(options: argparse.Namespace) -> int:
    """Write a model as a Hugging Face folder, tensor by tensor: no backend, and never the whole model in memory."""
    source, target = _source(options.model), options.destination
    if target.exists():
        raise ConfigError(f"{target}: exists already; name a folder that does not")
    dtypes = ("float32", "bfloat16", "float16")
    if options.dtype is not None and options.dtype not in dtypes:
        raise ConfigError(f"--dtype {options.dtype}: expected one of {', '.join(dtypes)}")
    path = resolve.resolve(source)
    if path.is_file():
        config, weights, dtype, reward = gguf.read_config(path), gguf.read_weights(path), "float32", None
    else:
        config, weights = hugging_face.read_config(path), hugging_face.read_weights(path)
        dtype, reward = hugging_face.read_dtype(path) or "float32", hugging_face.read_reward(path)
    tokenizer = read_tokenizer(path, config.family)

    def write(folder: Path) -> None:
        stops = None if tokenizer is None else tokenizer.stop_token_ids
        hugging_face.write_config(folder, config, options.dtype or dtype, reward, stops)
        hugging_face.write_weights(folder, weights)
        if tokenizer is not None:
            tokenizer.save(folder)

    write_folder(target, write)
    print(f"{target}: {config.family}, {config.parameter_count:,} parameters, {options.dtype or dtype}")
    return 0


def _completer(options: argparse.Namespace) -> Callable[[str | Sequence[dict[str, str]], int], str]:
    """A function from a text or a conversation, and the number of the draw, to the model's answer."""
    source = _source(options.model)
    backend = backend_choice.choose_backend(options.backend)
    stage_process.set_environment(backend)
    backend_choice.set_backend(backend)
    from gemma_keras import GemmaCausalLM, Sampler
    from gemma_keras.chat import encode_prompt
    from gemma_keras.generation import generate_tokens
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

    def complete(prompt: str | Sequence[dict[str, str]], draw: int) -> str:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(prompt)] if isinstance(prompt, str) else encode_prompt(tokenizer, prompt)
        width = -(-len(ids) // 32) * 32  # few lengths, so that a conversation does not compile anew at each turn
        prompt_ids = np.full((1, width), tokenizer.pad_token_id, np.int32)
        prompt_ids[0, width - len(ids) :] = ids
        is_token = np.arange(width)[None] >= width - len(ids)
        draws = uniforms(options.seed, "generate", draw, shape=(1, options.max_new_tokens))
        generated = generate_tokens(model, prompt_ids, is_token, options.max_new_tokens, draws, sampler, tokenizer.stop_token_ids)
        return tokenizer.decode(generated.responses()[0]).strip()

    return complete


def _source(name: str) -> str:
    """A model folder, a stage's folder, a .gguf file; else the name as it is, for the hub."""
    path = Path(name).expanduser()
    if not path.exists():
        return name
    found = find_model(path)
    if found is None:
        raise ConfigError(f"{name}: no model there; expected a folder with config.json, a stage's folder, or a .gguf file")
    return str(found)


COMMANDS = {"chat": chat, "generate": generate, "convert": convert}
