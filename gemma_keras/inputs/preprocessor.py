"""Text to arrays and back under one length: what KerasHub calls a model's preprocessor."""

from typing import Any

import numpy as np

from gemma_keras.inputs import fit_data, prompt_data
from gemma_keras.inputs.padding import padded
from gemma_keras.text import graph_mode
from gemma_keras.text.tokenizer import GemmaTokenizer


class GemmaCausalLMPreprocessor:
    """A tokenizer and a number of positions.

    A model has one as `model.preprocessor`; its `sequence_length` and `truncate` are what `fit` and `generate` go by
    where nothing else is said.

    Args:
        tokenizer: `GemmaTokenizer`, or None; then it only holds the length.
        sequence_length: t, positions a row.
        truncate: cut longer rows at their end, as KerasHub does; False makes them an error.
        add_start_token, add_end_token: put bos before a text and eos behind one that is trained on. Turns have both
            marks in any case.

    Call: any data that `GemmaCausalLM.fit` takes → x, y, sample_weight, which Keras' `fit` and this model's take:
        x: {"token_ids": int32 (b, t), "padding_mask": bool (b, t)}.
        y: int32 (b, t), the token after each position.
        sample_weight: float32 (b, t), 1 where that token bears loss.
    A single text, or dict of texts, gives arrays without the axis b. Within `tf.data.Dataset.map` it takes and gives
    tensors.

    Raises:
        ValueError: a row longer than `sequence_length` without `truncate`, or data of another kind.
    """

    def __init__(
        self, tokenizer: GemmaTokenizer | None, sequence_length: int = 1024, truncate: bool = False,
        add_start_token: bool = True, add_end_token: bool = True,
    ):  # fmt: skip
        if isinstance(sequence_length, bool) or not isinstance(sequence_length, int) or sequence_length < 2:
            raise ValueError(
                f"`sequence_length` must be an integer >= 2. Received: sequence_length={sequence_length!r}"
            )
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.truncate = truncate
        self.add_start_token = add_start_token
        self.add_end_token = add_end_token

    @classmethod
    def from_preset(cls, preset: Any, **options: Any) -> "GemmaCausalLMPreprocessor":
        """One over the tokenizer of `preset`, see `GemmaTokenizer.from_preset`; `options` as the class takes them."""
        return cls(GemmaTokenizer.from_preset(preset), **options)

    def __call__(
        self, x: Any, sequence_length: int | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        length = self.sequence_length if sequence_length is None else sequence_length
        if graph_mode.is_symbolic(x):
            return graph_mode.preprocess(lambda rows: self(rows, length), x, length)
        is_single = isinstance(x, str) or (isinstance(x, dict) and all(isinstance(each, str) for each in x.values()))
        # One token more than positions: the last position predicts it.
        rows = fit_data.encoded_rows([x] if is_single else x, self.tokenizer, length + 1, self.truncate, self.marks)
        pad = 0 if self.tokenizer is None else self.tokenizer.pad_token_id
        token_ids, padding_mask = padded([row.token_ids for row in rows], pad, length + 1)
        is_target = padded([row.is_target for row in rows], False, length + 1)[0].astype(np.float32)
        features = {"token_ids": token_ids[:, :-1], "padding_mask": padding_mask[:, :-1]}
        found = features, token_ids[:, 1:], is_target[:, 1:]
        if is_single:
            return {name: each[0] for name, each in features.items()}, found[1][0], found[2][0]
        return found

    @property
    def marks(self) -> tuple[bool, bool]:
        """Whether a text gets bos, and eos."""
        return self.add_start_token, self.add_end_token

    def generate_preprocess(self, x: Any, sequence_length: int | None = None) -> dict[str, np.ndarray]:
        """Prompts of any kind that `generate` takes, padded on the right: {"token_ids": int32 (b, t), "padding_mask":
        bool (b, t)}, for a single text without the axis b.

        Raises:
            ValueError: a prompt of more than `sequence_length` tokens without `truncate`.
        """
        length = self.sequence_length if sequence_length is None else sequence_length
        rows = 2**31 if self.tokenizer is None else self.tokenizer.vocabulary_size()
        prompts, kind = prompt_data.encode(x, self.tokenizer, rows, self.add_start_token)
        longest = max(map(len, prompts))
        if longest > length and not self.truncate:
            raise ValueError(
                f"A prompt has {longest} tokens, more than sequence_length={length}. Raise it, or pass truncate=True"
            )
        pad = 0 if self.tokenizer is None else self.tokenizer.pad_token_id
        token_ids, padding_mask = padded([prompt[:length] for prompt in prompts], pad, length)
        if kind in prompt_data.SINGLE_KINDS:
            return {"token_ids": token_ids[0], "padding_mask": padding_mask[0]}
        return {"token_ids": token_ids, "padding_mask": padding_mask}

    def generate_postprocess(self, x: dict[str, Any]) -> str | list[str]:
        """The text of {"token_ids": (b, t), "padding_mask": (b, t)}, prompt included, control pieces left away; one
        string for arrays without the axis b."""
        if self.tokenizer is None:
            raise ValueError(prompt_data.NO_TOKENIZER)
        token_ids, padding_mask = np.asarray(x["token_ids"]), np.asarray(x["padding_mask"], bool)
        if token_ids.ndim == 1:
            return self.tokenizer.decode(token_ids[padding_mask])
        return [self.tokenizer.decode(row[real]) for row, real in zip(token_ids, padding_mask, strict=True)]

    def get_config(self) -> dict[str, Any]:
        """Plain values that `from_config` makes the same object of."""
        tokenizer = None if self.tokenizer is None else self.tokenizer.get_config()
        names = ("sequence_length", "truncate", "add_start_token", "add_end_token")
        return {"tokenizer": tokenizer, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GemmaCausalLMPreprocessor":
        """The object that `get_config` was asked of."""
        tokenizer = config["tokenizer"]
        tokenizer = None if tokenizer is None else GemmaTokenizer.from_config(tokenizer)
        return cls(tokenizer, **{name: value for name, value in config.items() if name != "tokenizer"})
