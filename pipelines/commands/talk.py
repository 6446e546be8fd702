"""The commands that talk with a model, `chat` and `generate`, from where it is loaded. This file loads Keras: `models`
imports it when a backend has been chosen."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gemma_keras import GemmaCausalLM, Sampler, text_generation
from gemma_keras.errors import InputError
from gemma_keras.generation import generate_tokens
from gemma_keras.inputs import prompt_data
from gemma_keras.inputs.padding import padded, round_up
from gemma_keras.random import generator, uniforms
from gemma_keras.text import chat as turns
from gemma_keras.text.infilling import infilling_stop_token_ids
from pipelines.commands.conversation import Answer, Conversation, Message, converse
from pipelines.commands.line_editing import lines
from pipelines.commands.prompts import Asked, Prompts
from pipelines.host.activity import Activity
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.progress import Progress
from pipelines.host.visible_text import visible

WIDTH_MULTIPLE = 32  # few prompt widths, so that few loops are compiled
CHAT_WIDTH_MULTIPLE = 64  # a conversation grows with every turn, and should not compile anew at each


def chat(options: argparse.Namespace, source: str, activity: Activity) -> int:
    """Talk with a model, turn by turn; see `conversation` for what ends it and for its commands."""
    sampler = _sampler(options)
    model = _load(options, source, activity)
    if options.system is not None:
        _check_system(options.system, model.tokenizer)
    activity.pause()
    if sys.stdin.isatty():
        _notice("An empty line ends the conversation, /help lists what else can be typed.")
    with lines() as read:
        converse(Conversation(_answer(model, sampler, options), options.system, _write, _notice), read)
    return 0


def generate(options: argparse.Namespace, source: str, prompts: Prompts, activity: Activity) -> int:
    """Answer prompts in batches, in their order; as JSON lines where they came as such."""
    sampler = _sampler(options)
    model = _load(options, source, activity)
    encoded = [_encode(asked, model) for asked in prompts.asked]
    as_json = options.json or prompts.are_rows
    activity.pause()
    quiet = options.quiet or len(encoded) == 1
    with Progress(len(encoded), "generating", unit="prompts", quiet=quiet) as progress:
        for start in range(0, len(encoded), options.batch_size):
            batch = range(start, min(start + options.batch_size, len(encoded)))
            rows = min(options.batch_size, len(encoded))
            answers, tokens = _complete(model, encoded, batch, rows, sampler, options)
            for row, answer in zip(batch, answers, strict=True):
                shown = {"prompt": prompts.asked[row].shown, "response": answer}
                _write((json.dumps(shown, ensure_ascii=False) if as_json else answer) + "\n")
            progress.advance(len(batch), work=tokens)
    return 0


Encoded = tuple[list[int], tuple[int, ...], bool]
"""Ids of a prompt, the ids that end its answer, and whether blanks around the answer are a part of it."""


def _encode(asked: Asked, model: Any) -> Encoded:
    tokenizer = model.tokenizer
    try:
        (ids,), kind = prompt_data.encode(asked.inputs, tokenizer, model.config.vocabulary_size)
    except (InputError, ValueError) as error:
        raise DataError(f"{asked.origin}: {error}" if asked.origin else str(error)) from error
    is_infilling = kind == "infilling"
    stops = infilling_stop_token_ids(tokenizer) if is_infilling else tokenizer.stop_token_ids
    return ids, tuple(stops), is_infilling


def _complete(
    model: Any, encoded: Sequence[Encoded], batch: range, rows: int, sampler: Sampler, options: argparse.Namespace
) -> tuple[list[str], int]:
    """Answers to the prompts of a batch, and how many tokens they have together.

    The draws are those of a prompt's place among all, whatever the batch. A last batch is filled up to `rows` with its
    last prompt, which ends when that one does, so that no second loop is compiled.
    """
    filled = [*batch, *[batch[-1]] * (rows - len(batch))]
    ids = [encoded[row][0] for row in filled]
    _, stops, is_infilling = encoded[batch[0]]
    pad = model.tokenizer.pad_token_id
    prompt_ids, is_token = padded(ids, pad, round_up(max(map(len, ids)), WIDTH_MULTIPLE), side="left")
    draws = np.stack([uniforms(options.seed, "generate", row, shape=options.max_new_tokens) for row in filled])
    generated = generate_tokens(model, prompt_ids, is_token, options.max_new_tokens, draws, sampler, stops)
    responses = generated.responses()[: len(batch)]
    texts = [model.tokenizer.decode(response) for response in responses]
    return [text if is_infilling else text.strip() for text in texts], sum(map(len, responses))


def _answer(model: Any, sampler: Sampler, options: argparse.Namespace) -> Answer:
    """The function that a conversation asks."""

    def answer(messages: list[Message], draw: int) -> Iterator[str]:
        (ids,), _ = prompt_data.encode(messages, model.tokenizer, model.config.vocabulary_size)
        # Each answer has draws of its own, also where one turn is answered twice.
        seed = int(generator(options.seed, "chat", draw).integers(2**31))
        asked = text_generation.request(model, messages, len(ids) + options.max_new_tokens, "auto", seed, sampler)
        prompt = padded([ids], model.tokenizer.pad_token_id, round_up(len(ids), CHAT_WIDTH_MULTIPLE), side="left")
        return text_generation.pieces(model, dataclasses.replace(asked, arrays=(*prompt, *asked.arrays[2:])))

    return answer


def _sampler(options: argparse.Namespace) -> Sampler:
    try:
        return Sampler(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _load(options: argparse.Namespace, source: str, activity: Activity) -> Any:
    activity.say("loading weights")
    model: Any = GemmaCausalLM.from_preset(source, dtype=options.dtype)
    if model.tokenizer is None:
        raise ConfigError(f"{options.model}: has no tokenizer; put its tokenizer.model into the folder")
    return model


def _check_system(system: str, tokenizer: Any) -> None:
    try:
        turns.encode_prompt(tokenizer, [{"role": "system", "content": system}, {"role": "user", "content": "x"}])
    except InputError:
        raise ConfigError(
            f"--system: {tokenizer.family} has no turn for instructions; Gemma 3 has one. Put the text into your first "
            "turn"
        ) from None


def _write(text: str) -> None:
    # A file gets what the model said; a terminal would obey some of it.
    print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


def _notice(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
