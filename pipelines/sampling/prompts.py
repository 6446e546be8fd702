"""The prompts of a stage as token ids, with one padded length for all."""

import dataclasses

from gemma_keras.text.chat import encode_prompt
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.data.batches import bucket
from pipelines.data.columns import Preference, Prompt
from pipelines.data.encoding import need_tokenizer
from pipelines.host.errors import DataError


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts that fit.

    Attributes:
        examples: with `prompt`, `answer`, `origin` and, of the built-in task, `item`.
        token_ids: of each, bos and turns up to the model's open turn.
        length: a padded length that all of them fit.
        dropped: how many were left out because they were too long.
    """

    examples: list[Prompt]
    token_ids: list[list[int]]
    length: int
    dropped: int

    def __len__(self) -> int:
        return len(self.examples)


def encode_prompts(
    tokenizer: GemmaTokenizer | None, examples: list[Prompt], max_length: int, max_new_tokens: int
) -> Prompts:
    """Prompts in the turn format; those that leave no room for a response within `max_length` are dropped and counted.

    Raises:
        ConfigError: the model has no tokenizer.
        DataError: turns that are out of order, naming the line; or no prompt fits.
    """
    tokenizer = need_tokenizer(tokenizer)
    kept, token_ids = [], []
    for example in examples:
        try:
            ids = encode_prompt(tokenizer, example.prompt)
        except ValueError as error:
            raise DataError(f"{example.origin}: {error}") from error
        if len(ids) + max_new_tokens <= max_length:
            kept.append(example)
            token_ids.append(ids)
    if not kept:
        raise DataError(
            f"{examples[0].origin}: none of {len(examples)} prompts leaves room for max_new_tokens={max_new_tokens} "
            f"within max_length={max_length}. Raise max_length or lower max_new_tokens."
        )
    return Prompts(kept, token_ids, bucket(max(map(len, token_ids))), len(examples) - len(kept))


def prompt_text(example: Prompt | Preference) -> str:
    """A prompt as one string, for samples and reports: its text, or its turns as `role: content` lines."""
    if isinstance(example.prompt, str):
        return example.prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in example.prompt)
