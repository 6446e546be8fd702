"""SentencePiece models as protobuf messages: read, built from other formats, mended.

1. The message types are declared here, with the fields that we set, instead of imported from
   `sentencepiece.sentencepiece_model_pb2`: that generated module works only with protobuf releases at least as new as
   the one that generated it, which would tie every installation to them. Field numbers are those of SentencePiece's
   published `sentencepiece_model.proto`; fields that are not declared survive parsing and serializing as unknown
   fields.
2. What a model file says is never written back changed: `without_matching_controls` makes the copy that encodes, a
   source's bytes stay as they are.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from gemma_keras.json_values import parse, shown

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM_MODEL, BPE_MODEL = 1, 2
SPACE = "\u2581"  # how a piece spells a space
TAB_BYTE = "<0x09>"  # in Gemma 1's tokenizer.json the tab itself stands in its place

EOS, START_OF_TURN, END_OF_TURN = "<eos>", "<start_of_turn>", "<end_of_turn>"
# CodeGemma's, in the order of `tokenizer.InfillingMarks`.
INFILLING_MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>")
# Pieces that some models type user-defined, so that SentencePiece would match them in text.
ALWAYS_CONTROL = (START_OF_TURN, END_OF_TURN, "[multimodal]", "<start_of_image>", "<end_of_image>", *INFILLING_MARKS)

_ADDED = "`added_tokens` in tokenizer.json"
_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "gemma_keras.sentencepiece"
_FIELDS: dict[str, list[tuple[str, int, int, str]]] = {
    "Piece": [
        ("piece", 1, _FIELD.TYPE_STRING, ""),
        ("score", 2, _FIELD.TYPE_FLOAT, ""),
        ("type", 3, _FIELD.TYPE_INT32, "1"),
    ],
    "TrainerSpec": [
        ("model_type", 3, _FIELD.TYPE_INT32, "1"),
        ("vocab_size", 4, _FIELD.TYPE_INT32, "8000"),
        ("split_digits", 25, _FIELD.TYPE_BOOL, "false"),
        ("byte_fallback", 35, _FIELD.TYPE_BOOL, "false"),
        ("unk_id", 40, _FIELD.TYPE_INT32, "0"),
        ("bos_id", 41, _FIELD.TYPE_INT32, "1"),
        ("eos_id", 42, _FIELD.TYPE_INT32, "2"),
        ("pad_id", 43, _FIELD.TYPE_INT32, "-1"),
        ("unk_piece", 45, _FIELD.TYPE_STRING, "<unk>"),
        ("bos_piece", 46, _FIELD.TYPE_STRING, "<s>"),
        ("eos_piece", 47, _FIELD.TYPE_STRING, "</s>"),
        ("pad_piece", 48, _FIELD.TYPE_STRING, "<pad>"),
    ],
    "NormalizerSpec": [
        ("name", 1, _FIELD.TYPE_STRING, ""),
        ("add_dummy_prefix", 3, _FIELD.TYPE_BOOL, "true"),
        ("remove_extra_whitespaces", 4, _FIELD.TYPE_BOOL, "true"),
        ("escape_whitespaces", 5, _FIELD.TYPE_BOOL, "true"),
    ],
}


def _message_class() -> Any:
    # A pool of our own: the default one may already hold SentencePiece's messages.
    file = descriptor_pb2.FileDescriptorProto(name="gemma_keras/sentencepiece.proto", package=_PACKAGE, syntax="proto2")
    for message_name, fields in _FIELDS.items():
        declared = file.message_type.add(name=message_name)
        for name, number, kind, default in fields:
            field = declared.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
            if default:
                field.default_value = default
    model = file.message_type.add(name="Model")
    for name, number, label, message_name in (
        ("pieces", 1, _FIELD.LABEL_REPEATED, "Piece"),
        ("trainer_spec", 2, _FIELD.LABEL_OPTIONAL, "TrainerSpec"),
        ("normalizer_spec", 3, _FIELD.LABEL_OPTIONAL, "NormalizerSpec"),
    ):
        model.field.add(
            name=name, number=number, type=_FIELD.TYPE_MESSAGE, label=label, type_name=f".{_PACKAGE}.{message_name}"
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))


_MODEL_CLASS = _message_class()


def parse_model(data: bytes) -> Any:
    """The message in `tokenizer.model`'s bytes: `.pieces` (each `.piece`, `.score`, `.type`), `.trainer_spec`,
    `.normalizer_spec`.

    Raises:
        ValueError: the bytes are no SentencePiece model.
    """
    model = _MODEL_CLASS()
    try:
        model.ParseFromString(data)
    except message.DecodeError as error:
        raise ValueError(
            f"Not a SentencePiece model: expected the bytes of a tokenizer.model. Received {len(data)} bytes: {error}"
        ) from error
    if not model.pieces:
        raise ValueError(
            f"Not a SentencePiece model: it holds no pieces. Received {len(data)} bytes; download tokenizer.model "
            "again."
        )
    return model


def control_piece_ids(model: Any) -> frozenset[int]:
    """Ids that text must never produce: every CONTROL piece, and turn, image and infilling marks whatever their
    type."""
    return frozenset(
        i for i, entry in enumerate(model.pieces) if entry.type == CONTROL or entry.piece in ALWAYS_CONTROL
    )


def without_matching_controls(model: Any, control_ids: frozenset[int]) -> bytes | None:
    """Bytes of the model with every control id typed CONTROL, which SentencePiece never matches in text.

    Returns:
        bytes, or None where every control id has that type already. `model` is changed in place.
    """
    wrong = [i for i in control_ids if model.pieces[i].type != CONTROL]
    for i in wrong:
        model.pieces[i].type = CONTROL
    return model.SerializeToString(deterministic=True) if wrong else None


def build_model(
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    model_type: int,
    special_ids: Mapping[str, int],
) -> bytes:
    """A SentencePiece model with Gemma's switches: byte fallback, no dummy prefix, no whitespace removal, no
    normalization.

    Args:
        pieces: v strings, a space spelled U+2581. scores: v floats, a higher one merges first. types: v of NORMAL ...
            BYTE.
        model_type: BPE_MODEL or UNIGRAM_MODEL.
        special_ids: ids of "pad", "eos", "bos", "unk".
    """
    model = _MODEL_CLASS()
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    model.pieces[special_ids["unk"]].type = UNKNOWN  # exactly one; GGUF files and tokenizer.json type it as control
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size = model_type, len(pieces)
    trainer.split_digits = True
    trainer.byte_fallback = any(kind == BYTE for kind in types)
    trainer.pad_id, trainer.pad_piece = special_ids["pad"], pieces[special_ids["pad"]]
    trainer.eos_id, trainer.eos_piece = special_ids["eos"], pieces[special_ids["eos"]]
    trainer.bos_id, trainer.bos_piece = special_ids["bos"], pieces[special_ids["bos"]]
    trainer.unk_id, trainer.unk_piece = special_ids["unk"], pieces[special_ids["unk"]]
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, False, True
    return model.SerializeToString(deterministic=True)


def model_from_gguf(metadata: Mapping[str, Any]) -> bytes:
    """SentencePiece model from a GGUF file's `tokenizer.ggml.*` metadata.

    The user-defined whitespace pieces hold plain spaces there, SentencePiece matches U+2581.

    Raises:
        ValueError: a key is missing, or the lists do not fit each other.
    """
    prefix = "tokenizer.ggml."
    missing = [prefix + name for name in ("tokens", "scores", "token_type") if prefix + name not in metadata]
    if missing:
        raise ValueError(
            f"The GGUF metadata hold no SentencePiece tokenizer: missing {', '.join(missing)}. Use a GGUF file of a "
            "Gemma model."
        )
    kind = metadata.get(prefix + "model", "llama")
    if kind != "llama":
        raise ValueError(
            f"`{prefix}model` must be 'llama' (SentencePiece). Received: {shown(kind)}. Use a GGUF file of a Gemma "
            "1, 2 or 3."
        )
    try:
        tokens = [piece.replace(" ", SPACE) for piece in metadata[prefix + "tokens"]]
        scores = [float(score) for score in metadata[prefix + "scores"]]
        types = [int(kind) for kind in metadata[prefix + "token_type"]]
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`{prefix}tokens`, `scores` and `token_type` must be lists of strings, numbers and integers: {error}"
        ) from error
    if not len(tokens) == len(scores) == len(types):
        raise ValueError(
            f"The GGUF tokenizer's lists must have one length. Received: {len(tokens)} tokens, {len(scores)} scores, "
            f"{len(types)} token types. The file is damaged; download it again."
        )
    keys = {
        "pad": ("padding_token_id", 0),
        "eos": ("eos_token_id", 1),
        "bos": ("bos_token_id", 2),
        "unk": ("unknown_token_id", 3),
    }
    special_ids = {
        name: _id(f"`{prefix}{key}`", metadata.get(prefix + key, default)) for name, (key, default) in keys.items()
    }
    if EOS in tokens:  # files of tuned models name the end of a turn in its place
        special_ids["eos"] = tokens.index(EOS)
    for name, i in special_ids.items():
        if not 0 <= i < len(tokens):
            raise ValueError(f"`{prefix}{keys[name][0]}` must be an id below {len(tokens)}. Received: {i}")
    return build_model(tokens, scores, types, BPE_MODEL, special_ids)


def _id(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} must be an integer. Received: {shown(value)}")
    return value


def model_from_tokenizer_json(text: bytes | str) -> bytes:
    """SentencePiece model that gives the ids of a Gemma's `tokenizer.json` (format of the `tokenizers` library).

    BPE: SentencePiece merges the pair whose piece has the highest score, so a piece's score is minus the rank of its
    first merge.

    Raises:
        ValueError: no JSON, no BPE or Unigram model, or ids with gaps.
    """
    with _tokenizer_json_errors():
        return _model_from_json(_parse(text))


def added_tokens(text: bytes | str) -> list[dict[str, Any]]:
    """`added_tokens` of a `tokenizer.json`: objects with `id` (int) and `content` (str), among others.

    Raises:
        ValueError: no JSON, or no such list.
    """
    with _tokenizer_json_errors():
        return _added_tokens(_parse(text))


def _parse(text: bytes | str) -> Any:
    try:
        return parse(text, unique_keys=False)  # of a large vocabulary the pairs would be held a second time
    except ValueError as error:
        raise ValueError(f"Not a tokenizer.json: {error}. Download it again.") from error


def _added_tokens(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    added = data.get("added_tokens") or []
    for token in added:
        if not isinstance(token["content"], str):
            raise ValueError(f"{_ADDED}: `content` must be a string. Received: {shown(token['content'])}")
        _id(f"{_ADDED}: `id`", token["id"])
    return added


@contextlib.contextmanager
def _tokenizer_json_errors() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            "Not a tokenizer.json: expected an object with `model.vocab`, `model.merges` and `added_tokens`. "
            f"Received one that fails with {type(error).__name__}: {str(error)[:200]}"
        ) from error


def _model_from_json(data: Mapping[str, Any]) -> bytes:
    model, added = data["model"], _added_tokens(data)
    kind, vocabulary = model.get("type", "BPE"), model["vocab"]
    if kind not in ("BPE", "Unigram"):
        raise ValueError(
            f"`model.type` in tokenizer.json must be BPE or Unigram. Received: {shown(kind)}. Use the tokenizer of a "
            "Gemma model."
        )
    if not vocabulary or not isinstance(vocabulary, list if kind == "Unigram" else Mapping):
        raise ValueError(f"`model.vocab` in tokenizer.json must hold the pieces. Received: {shown(vocabulary)}")
    ids = {piece: i for i, (piece, _) in enumerate(vocabulary)} if kind == "Unigram" else dict(vocabulary)
    ids.update((token["content"], token["id"]) for token in added)
    size = len(ids)
    by_id = {i: piece for piece, i in ids.items()}
    if sorted(by_id) != list(range(size)):
        raise ValueError(
            f"The ids in tokenizer.json must be 0 to {size - 1}, each once. Received: {len(by_id)} different ids, "
            f"highest {max(by_id)}."
        )
    pieces = [by_id[i] for i in range(size)]
    if kind == "Unigram":
        scores = [float(score) for _, score in vocabulary] + [0.0] * (size - len(vocabulary))
    else:
        scores = _bpe_scores(pieces, ids, model.get("merges") or [])
    types = [NORMAL] * size
    for value in range(256):
        i = ids.get(f"<0x{value:02X}>")
        if i is not None:
            types[i] = BYTE
    if TAB_BYTE not in ids and "\t" in ids:  # SentencePiece wants all 256
        pieces[ids["\t"]], types[ids["\t"]] = TAB_BYTE, BYTE
    for token in added:
        if types[token["id"]] != BYTE:
            types[token["id"]] = CONTROL if token.get("special") else USER_DEFINED
    special_ids = {}
    for name in ("pad", "eos", "bos", "unk"):
        if f"<{name}>" not in ids:
            raise ValueError(f"tokenizer.json lacks the piece '<{name}>'. Use the tokenizer of a Gemma model.")
        special_ids[name] = ids[f"<{name}>"]
    pieces = [piece.replace(" ", SPACE) for piece in pieces]
    return build_model(pieces, scores, types, BPE_MODEL if kind == "BPE" else UNIGRAM_MODEL, special_ids)


def _bpe_scores(pieces: list[str], ids: dict[str, int], merges: list[Any]) -> list[float]:
    unmerged = -float(len(merges) + 1)
    scores = [unmerged] * len(pieces)
    rank = 0
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        i = ids.get(left + right)
        if i is not None and scores[i] == unmerged:
            scores[i] = -float(rank)
            rank += 1
    return scores
