"""From what a user asks to what the model answers: prompts encoded, continued, and decoded again."""

import dataclasses
import random
from collections.abc import Iterator

import numpy as np

from gemma_keras.errors import InputError
from gemma_keras.generation import Decoding, Generated, generate_tokens
from gemma_keras.inputs import prompt_data
from gemma_keras.inputs.padding import padded, round_up
from gemma_keras.random import uniforms
from gemma_keras.sampling import Sampler
from gemma_keras.text.infilling import infilling_stop_token_ids
from gemma_keras.text.stop_strings import StopStrings

STEP_MULTIPLE = 8  # of decoding steps, so that few loops are compiled


@dataclasses.dataclass(frozen=True)
class Request:
    """One call of `generate` or `stream`, encoded and checked.

    Args:
        prompts: ids of each row. kind: what they were made from, see `prompt_data.encode`.
        max_length: tokens of prompt and answer together.
        arrays: what `generate_tokens` takes after the model.
        answers: a prompt.
    """

    prompts: list[list[int]]
    kind: str
    max_length: int
    arrays: tuple
    answers: int

    def limited(self, generated: Generated, pad_token_id: int) -> Generated:
        """Without what a row has sampled beyond `max_length`, as its prompt is longer than others or the steps were
        rounded up."""
        return generated.limited([self.max_length - len(prompt) for prompt in self.prompts], pad_token_id)


def request(
    model, inputs, max_length, stop_token_ids, seed: int | None, sampler, num_return_sequences: int = 1
) -> Request:
    """Encode the inputs of `GemmaCausalLM.generate`; arguments and errors as there."""
    prompts, kind = prompt_data.encode(
        inputs, model.tokenizer, model.config.vocabulary_size, model.preprocessor.add_start_token
    )
    if not isinstance(num_return_sequences, int) or num_return_sequences < 1:
        raise ValueError(f"`num_return_sequences` must be an integer >= 1. Received: {num_return_sequences!r}")
    longest, shortest = max(map(len, prompts)), min(map(len, prompts))
    if max_length is None:
        room = prompt_data.width_of_arrays(inputs)
        # Padded arrays bring their room along, as KerasHub's do.
        max_length = room if room is not None and room > longest else model.preprocessor.sequence_length
    if longest >= max_length:
        raise ValueError(
            f"The longest prompt has {longest} tokens and leaves no room. Received: max_length={max_length}"
        )
    prompts = [prompt for prompt in prompts for _ in range(num_return_sequences)]
    token_ids, is_token = prompt_data.left_padded(prompts, model.config.pad_token_id)
    # A few steps too many cost less than compiling a loop for every length.
    steps = round_up(max_length - shortest, STEP_MULTIPLE)
    sampler = model.sampler if sampler is None else Sampler.from_name(sampler)
    keys = _seed_and_keys(model, sampler, seed)
    draws = np.stack([uniforms(*keys, row, shape=steps) for row in range(len(prompts))])
    stops = _stop_token_ids(model, stop_token_ids, kind)
    return Request(prompts, kind, max_length, (token_ids, is_token, steps, draws, sampler, stops), num_return_sequences)


def _seed_and_keys(model, sampler: Sampler, seed: int | None) -> tuple:
    """What the draws of a call are keyed by, the row left out."""
    if seed is not None:
        return seed, "generate"
    if sampler.seed is not None:
        return sampler.seed, "generate", "call", model.count_call()
    # Python's generator is among those that `keras.utils.set_random_seed` sets.
    return random.getrandbits(63), "generate"


def answer(model, asked: Request, strip_prompt: bool = False, stop=None):
    """What `GemmaCausalLM.generate` returns.

    Raises:
        ValueError: `stop` where ids were given, which have no text.
    """
    stops = StopStrings(stop)
    if stops and asked.kind == "ids":
        raise ValueError(f"`stop` ends text, and the prompts are ids: pass stop_token_ids. Received: stop={stop!r}")
    if not stops:
        generated = generate_tokens(model, *asked.arrays)
    else:
        generated = _until_strings(model, asked, stops)
    generated = asked.limited(generated, model.config.pad_token_id)
    if asked.kind == "ids":
        return _id_arrays(asked, generated, strip_prompt, model.config.pad_token_id)
    with_prompt = asked.kind in ("text", "texts") and not strip_prompt
    texts = []
    for prompt, response in zip(asked.prompts, generated.responses(), strict=True):
        if stops:
            text = stops.cut(model.tokenizer.decode(response))[0]
            texts.append(model.tokenizer.decode(prompt) + text if with_prompt else text)
        else:
            texts.append(model.tokenizer.decode(prompt + response if with_prompt else response))
    return texts[0] if asked.kind in prompt_data.SINGLE_KINDS and asked.answers == 1 else texts


def pieces(model, asked: Request, stop=None) -> Iterator[str]:
    """What `GemmaCausalLM.stream` yields.

    Raises:
        ValueError: several prompts, or ids.
    """
    if asked.kind not in prompt_data.SINGLE_KINDS:
        raise ValueError(
            "`stream` takes one text, conversation, or prefix and suffix. Use `generate` for ids and for several. "
            f"Received: {len(asked.prompts)} of kind {asked.kind!r}"
        )
    return _pieces(model, asked, StopStrings(stop))


def _pieces(model, asked: Request, stops: StopStrings) -> Iterator[str]:
    decoding, shown = Decoding(model, *asked.arrays), 0
    room = asked.max_length - len(asked.prompts[0])
    while True:
        (response,) = decoding.generated().responses()
        text, is_cut = stops.cut(model.tokenizer.decode(response[:room]))
        is_over = is_cut or decoding.is_over or len(response) >= room
        text = text if is_over else stops.safe_part(text)
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)
        if is_over:
            return
        decoding.advance(1)


def _until_strings(model, asked: Request, stops: StopStrings) -> Generated:
    return Decoding(model, *asked.arrays).to_the_end(lambda row, ids: stops.cut(model.tokenizer.decode(ids))[1])


def _id_arrays(asked: Request, generated: Generated, strip_prompt: bool, pad_token_id: int) -> dict[str, np.ndarray]:
    if strip_prompt:
        return {"token_ids": generated.token_ids, "padding_mask": generated.response_mask}
    whole = [prompt + response for prompt, response in zip(asked.prompts, generated.responses(), strict=True)]
    token_ids, padding_mask = padded(whole, pad_token_id, asked.max_length)
    return {"token_ids": token_ids, "padding_mask": padding_mask}


def _stop_token_ids(model, stop_token_ids, kind: str) -> tuple[int, ...]:
    if stop_token_ids is None:
        return ()
    if isinstance(stop_token_ids, str) and stop_token_ids == "auto":
        if kind in ("infilling", "infillings"):
            return infilling_stop_token_ids(model.tokenizer)
        return model.tokenizer.stop_token_ids if model.tokenizer is not None else (model.config.eos_token_id,)
    ids = prompt_data.whole_numbers(stop_token_ids)
    if ids is None:
        raise InputError(
            f'`stop_token_ids` must be "auto", a list of ids, or None for no end. Received: {stop_token_ids!r:.100}'
        )
    return tuple(ids)
