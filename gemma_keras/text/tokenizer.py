"""Text to token ids and back, exactly, and never a control id from text.

The tokenizer is SentencePiece's; this module finds its model in the files that Gemma comes in, keeps control ids out of
what text produces, and writes the folder that `transformers` opens. It imports no Keras.

Source: the Gemma paper, arXiv:2403.08295, section 2; `sentencepiece` 0.2.
"""

import base64
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sentencepiece

from gemma_keras.errors import InputError
from gemma_keras.files import atomic_folder, need_file
from gemma_keras.text import export as tokenizer_export
from gemma_keras.text import folder as tokenizer_folder
from gemma_keras.text import graph_mode
from gemma_keras.text import sentencepiece_files as tokenizer_files
from gemma_keras.text import training as tokenizer_training
from gemma_keras.text.folder import CONFIG_FILE, JSON_FILE, MODEL_FILE


class InfillingMarks(NamedTuple):
    """Ids of the pieces that CodeGemma fills in between with."""

    prefix: int
    suffix: int
    middle: int
    file_separator: int


class GemmaTokenizer:
    """A SentencePiece model with Gemma's special pieces.

    Text never yields one of `control_ids`: their pieces, written out in text, are encoded as ordinary text and decode
    to themselves. `decode(encode(text)) == text` for every text without U+2581, which is how SentencePiece spells a
    space.

    Args:
        model_proto: bytes of a `tokenizer.model`, or its path; KerasHub's name for it, `proto`, is taken too.
        family: "gemma", "gemma2" or "gemma3", which decides on the chat template. Default: "gemma3" if the pieces are
            Gemma 3's, else "gemma".
        tokenizer_json: bytes of the `tokenizer.json` that came along, to be handed on by `save`.
        chat_template: the Jinja template that came along, to be handed on; default Gemma's. It is for other engines:
            conversations are written here by `chat`, in Gemma's turns.
        more_stop_ids: ids that end a response beside eos and end of turn; those outside the vocabulary are left out.
        template_file: the chat template came in a file of its own, `chat_template.jinja`; `save` writes that too.

    Attributes:
        pad_token_id, eos_token_id, bos_token_id, unknown_token_id: int.
        start_of_turn_id, end_of_turn_id: int, or None where the model has no turn marks.
        infilling_marks: `InfillingMarks`, None but for CodeGemma.
        stop_token_ids: ids that end a response: eos, end of turn, and what the source names beside them.
        control_ids: frozenset of ids that text never yields.

    Raises:
        ValueError: the bytes are no SentencePiece model or lack pad, eos, bos or unk.
    """

    def __init__(
        self, model_proto: bytes | str | pathlib.Path | None = None, family: str | None = None,
        tokenizer_json: bytes | None = None, chat_template: str | None = None, more_stop_ids: Iterable[int] = (),
        template_file: bool = False, *, proto: bytes | str | pathlib.Path | None = None,
    ):  # fmt: skip
        model_proto = model_proto if proto is None else proto
        if model_proto is None:
            raise TypeError("A tokenizer needs `model_proto`, the bytes of a tokenizer.model or its path")
        if not isinstance(model_proto, bytes):
            model_proto = _read(pathlib.Path(model_proto))
        if family is not None and family not in tokenizer_export.CHAT_TEMPLATES:
            raise ValueError(
                f"`family` must be one of {tuple(tokenizer_export.CHAT_TEMPLATES)}. Received: family={family!r}"
            )
        model = tokenizer_files.parse_model(model_proto)
        self.model_proto: bytes = model_proto
        self.tokenizer_json = tokenizer_json
        self.control_ids = tokenizer_files.control_piece_ids(model)
        mended = tokenizer_files.without_matching_controls(model, self.control_ids)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(
                model_proto=model_proto if mended is None else mended
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePiece does not load the tokenizer: {error}. Use the tokenizer of a Gemma model."
            ) from error
        self._size: int = self._processor.get_piece_size()
        self.pad_token_id: int = self._processor.pad_id()
        self.eos_token_id: int = self._processor.eos_id()
        self.bos_token_id: int = self._processor.bos_id()
        self.unknown_token_id: int = self._processor.unk_id()
        ids = {
            "pad": self.pad_token_id,
            "eos": self.eos_token_id,
            "bos": self.bos_token_id,
            "unk": self.unknown_token_id,
        }
        missing = [name for name, i in ids.items() if i < 0]
        if missing:
            raise ValueError(
                f"The tokenizer lacks the special pieces {', '.join(missing)}. Use the tokenizer of a Gemma model."
            )
        self.start_of_turn_id = self._find(tokenizer_files.START_OF_TURN)
        self.end_of_turn_id = self._find(tokenizer_files.END_OF_TURN)
        stops = (self.eos_token_id, self.end_of_turn_id, *(i for i in more_stop_ids if 0 <= i < self._size))
        self.stop_token_ids: tuple[int, ...] = tuple(dict.fromkeys(i for i in stops if i is not None))
        marks = [i for i in map(self._find, tokenizer_files.INFILLING_MARKS) if i is not None]
        self.infilling_marks = InfillingMarks(*marks) if len(marks) == len(tokenizer_files.INFILLING_MARKS) else None
        self.family: str = family or ("gemma" if self._find("<start_of_image>") is None else "gemma3")
        self.chat_template: str = chat_template or tokenizer_export.CHAT_TEMPLATES[self.family]
        self.template_file = template_file

    def _find(self, piece: str) -> int | None:
        i: int = self._processor.piece_to_id(piece)
        return None if i == self.unknown_token_id else i

    @classmethod
    def from_preset(cls, preset: str | pathlib.Path) -> "GemmaTokenizer":
        """The tokenizer of what `GemmaCausalLM.from_preset` opens, or of a folder with a tokenizer alone.

        No weights are read, and of a repository on the hub none are fetched. Keras is loaded for a handle alone that
        only KerasHub opens.

        Raises:
            gemma_keras.checkpoints.errors.CheckpointError: nothing there, no tokenizer there, or a damaged one.
        """
        from gemma_keras import open_tokenizer

        return open_tokenizer(preset)

    @classmethod
    def from_file(cls, file: str | pathlib.Path, family: str | None = None, **options: Any) -> "GemmaTokenizer":
        """Reads a `tokenizer.model`, or a `tokenizer.json` if the name ends so; `options` as the class takes them."""
        path = pathlib.Path(file)
        data = _read(path)
        try:
            if path.suffix == ".json":
                return cls(
                    tokenizer_files.model_from_tokenizer_json(data), family, **{**options, "tokenizer_json": data}
                )
            return cls(data, family, **options)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_folder(
        cls, folder: str | pathlib.Path, family: str | None = None, rows: int | None = None
    ) -> "GemmaTokenizer":
        """Reads a Hugging Face folder: `tokenizer.model`, or `tokenizer.json` where that is alone or has other tokens;
        the chat template and the ids that end a response from the files beside.

        Args:
            family: default by `config.json`, if there is one.
            rows: of the model's embedding; tokens of `tokenizer.json` beyond them do not count. Default: those of
                `tokenizer.model`.

        Raises:
            FileNotFoundError: the folder has neither file.
            ValueError: a damaged file.
        """
        folder = pathlib.Path(folder)
        model_file, json_file = folder / tokenizer_folder.MODEL_FILE, folder / tokenizer_folder.JSON_FILE
        options: dict[str, Any] = {
            "family": family or tokenizer_folder.family_of_folder(folder),
            "chat_template": tokenizer_folder.chat_template(folder),
            "more_stop_ids": tokenizer_folder.stop_token_ids(folder),
            "template_file": (folder / tokenizer_folder.TEMPLATE_FILE).is_file(),
        }
        tokenizer_json = json_file.read_bytes() if json_file.is_file() else None
        if not model_file.is_file() and tokenizer_json is None:
            raise FileNotFoundError(
                f"No tokenizer in {folder}: expected {model_file.name} or {json_file.name}. Copy one of them there "
                "from the model's source."
            )
        if not model_file.is_file():
            return cls.from_file(json_file, **options)
        if tokenizer_json is not None and tokenizer_folder.has_other_pieces(
            tokenizer_json, model_file.read_bytes(), rows
        ):
            return cls.from_file(json_file, **options)
        return cls.from_file(model_file, tokenizer_json=tokenizer_json, **options)

    @classmethod
    def from_gguf_metadata(cls, metadata: Mapping[str, Any], family: str | None = None) -> "GemmaTokenizer":
        """Rebuilds the model from a GGUF file's metadata.

        Args:
            metadata: plain dict with `tokenizer.ggml.tokens` (v strings), `.scores` (v floats), `.token_type` (v ints)
                and the special ids; `tokenizer.chat_template`, and `general.architecture`, which gives the family, if
                there.
            family: see the class.
        """
        template = metadata.get("tokenizer.chat_template")
        stops = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
        return cls(
            tokenizer_files.model_from_gguf(metadata),
            family or tokenizer_folder.family_of(metadata.get("general.architecture")),
            chat_template=template if isinstance(template, str) else None,
            more_stop_ids=[i for i in stops if isinstance(i, int)],
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int, family: str | None = None) -> "GemmaTokenizer":
        """Trains a tokenizer with Gemma's layout; the same texts give the same bytes. See
        `tokenizer_training.train_model`."""
        return cls(tokenizer_training.train_model(texts, vocabulary_size), family)

    def vocabulary_size(self) -> int:
        """v, pieces in all."""
        return self._size

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without bos and eos, never one of `control_ids`.

        Raises:
            TypeError: no string. InputError: one that holds half of a surrogate pair.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"`encode` takes one string; use `encode_batch` for several. Received: {type(text).__name__}"
            )
        try:
            ids: list[int] = self._processor.encode(text)
        except (RuntimeError, ValueError):  # SentencePiece says no more than that it cannot be cast
            _check_is_unicode(text)
            raise
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, token_ids: Iterable[int], keep_control: bool = False) -> str:
        """Text of ids.

        Args:
            token_ids: ints (t,), a list or an array.
            keep_control: True writes control pieces out, such as `<end_of_turn>`; False leaves them away.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        ids = [int(i) for i in token_ids]
        outside = [i for i in ids if not 0 <= i < self._size]
        if outside:
            raise ValueError(f"Token ids must be from 0 to {self._size - 1}. Received: {outside[0]}")
        parts: list[str] = []
        run: list[int] = []
        for i in ids:
            if i not in self.control_ids:
                run.append(i)
            elif keep_control:
                parts += [self._processor.decode(run), self.piece(i)]
                run = []
        return "".join([*parts, self._processor.decode(run)])

    # --- under KerasHub's names

    def __call__(self, inputs: Any) -> Any:
        """`tokenize`."""
        return self.tokenize(inputs)

    def tokenize(self, inputs: Any) -> Any:
        """Ids of a text, a list; of several texts a list of lists. Never one of `control_ids`. Within
        `tf.data.Dataset.map` it takes and gives tensors."""
        if graph_mode.is_symbolic(inputs):
            return graph_mode.tokenize(self.encode, inputs)
        return self.encode(inputs) if isinstance(inputs, str) else self.encode_batch(list(inputs))

    def detokenize(self, inputs: Any) -> Any:
        """The text of ids (t,), or the texts of rows of ids; control pieces are left away."""
        rows = list(inputs)
        return [self.decode(row) for row in rows] if rows and np.ndim(rows[0]) else self.decode(rows)

    def token_to_id(self, token: str) -> int:
        """The id of a piece, a space spelled U+2581; that of unk where there is no such piece. Unlike in text, the name
        of a control piece is found."""
        i: int = self._processor.piece_to_id(token)
        return i

    def id_to_token(self, token_id: int) -> str:
        """The piece of an id.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        if not 0 <= token_id < self._size:
            raise ValueError(f"Token ids must be from 0 to {self._size - 1}. Received: {token_id}")
        return self.piece(token_id)

    def get_vocabulary(self) -> list[str]:
        """Every piece, in the order of the ids."""
        return [self.piece(i) for i in range(self._size)]

    @property
    def start_token(self) -> str:
        """The piece of bos."""
        return self.piece(self.bos_token_id)

    @property
    def end_token(self) -> str:
        """The piece of eos."""
        return self.piece(self.eos_token_id)

    @property
    def pad_token(self) -> str:
        """The piece of padding."""
        return self.piece(self.pad_token_id)

    @property
    def start_token_id(self) -> int:
        """The id of bos."""
        return self.bos_token_id

    @property
    def end_token_id(self) -> int:
        """The id of eos."""
        return self.eos_token_id

    def get_config(self) -> dict[str, Any]:
        """Plain values that `from_config` makes the same tokenizer of; `proto` is the SentencePiece model in base64."""
        return {
            "proto": base64.b64encode(self.model_proto).decode("ascii"),
            "family": self.family,
            "chat_template": self.chat_template,
            "more_stop_ids": list(self.stop_token_ids),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "GemmaTokenizer":
        """The tokenizer that `get_config` was asked of."""
        others = {name: value for name, value in config.items() if name != "proto"}
        return cls(base64.b64decode(config["proto"]), **others)

    def piece(self, token_id: int) -> str:
        """The piece of one id as SentencePiece spells it, a space as U+2581."""
        piece: str = self._processor.id_to_piece(int(token_id))
        return piece

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes `tokenizer.model`, `tokenizer_config.json` with the chat template, and `tokenizer.json`, in place of
        an earlier tokenizer's files; see `atomic_folder`.

        `tokenizer.model`, `tokenizer.json` and the chat template are the source's bytes where it had them, the template
        in `chat_template.jinja` too where it came in that. Otherwise `tokenizer.json` is
        derived, for `transformers` and engines that read nothing else.
        """
        with atomic_folder(folder, tokenizer_folder.TOKENIZER_FILES) as place:
            self.write_files(place)

    def write_files(self, folder: pathlib.Path) -> None:
        """What `save` writes, into a folder that holds no tokenizer."""
        (folder / MODEL_FILE).write_bytes(self.model_proto)
        if self.tokenizer_json is None:
            self.tokenizer_json = tokenizer_export.tokenizer_json(self.model_proto)
        if self.tokenizer_json is not None:
            (folder / JSON_FILE).write_bytes(self.tokenizer_json)
        names = {
            "pad": self.pad_token_id,
            "eos": self.eos_token_id,
            "bos": self.bos_token_id,
            "unk": self.unknown_token_id,
        }
        pieces = {name: self.piece(i) for name, i in names.items()}
        if self.template_file:
            (folder / tokenizer_folder.TEMPLATE_FILE).write_bytes(self.chat_template.encode("utf-8"))
        config = tokenizer_export.tokenizer_config(pieces, self.chat_template)
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(file: pathlib.Path) -> bytes:
    need_file(file)
    return file.read_bytes()


def _check_is_unicode(text: str) -> None:
    half = next((i for i, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)
    if half is not None:
        raise InputError(
            f"A text holds half of a surrogate pair, which is no character: {text[half]!r} at place {half}, after "
            f"{text[max(0, half - 20) : half]!r}. Remove it, or mend what cut the pair."
        )
