"""What a Hugging Face folder says about its tokenizer beside the SentencePiece model: other pieces, chat template, stop
ids, family."""

import pathlib
from typing import Any

from gemma_keras import json_values
from gemma_keras.text import sentencepiece_files as files

MODEL_FILE, JSON_FILE, CONFIG_FILE = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_FILES = (
    MODEL_FILE, JSON_FILE, CONFIG_FILE, TEMPLATE_FILE, "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""What a tokenizer can consist of, the last two as other tools write it."""
_FAMILY_OF_MODEL_TYPE = {"gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "gemma3_text": "gemma3"}


def family_of(model_type: Any) -> str | None:
    """The family that `model_type` of a config.json, or GGUF's architecture, stands for."""
    return _FAMILY_OF_MODEL_TYPE.get(str(model_type))


def family_of_folder(folder: pathlib.Path) -> str | None:
    """The family by `config.json`; None where that is missing or damaged: whoever reads the weights names what is wrong
    with it."""
    try:
        return family_of(_table(folder / "config.json").get("model_type"))
    except (OSError, ValueError):
        return None


def chat_template(folder: pathlib.Path) -> str | None:
    """The Jinja template of the folder, in a file of its own or in `tokenizer_config.json`, or None. Its line ends are
    those of the source: whoever compares templates compares them too.

    Raises:
        ValueError: `tokenizer_config.json` is no JSON object.
    """
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_bytes().decode("utf-8")
    template = _table(folder / CONFIG_FILE).get("chat_template")
    if isinstance(template, list):  # several, each with a name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template else None


def stop_token_ids(folder: pathlib.Path) -> tuple[int, ...]:
    """`eos_token_id` of `generation_config.json`, one or several ids; () without the file.

    Raises:
        ValueError: the file is no JSON object.
    """
    found = _table(folder / "generation_config.json").get("eos_token_id")
    return tuple(
        i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int) and not isinstance(i, bool)
    )


def has_other_pieces(tokenizer_json: bytes, model_proto: bytes, rows: int | None) -> bool:
    """Whether a `tokenizer.json` adds or renames tokens that the `tokenizer.model` beside it does not know, as
    fine-tunes with tokens of their own do. transformers and every engine follow `tokenizer.json` then.

    Args:
        rows: of the model's embedding; tokens beyond do not count, such as Gemma 3's for images in a text model. None:
            as many as pieces.
    """
    pieces = [entry.piece for entry in files.parse_model(model_proto).pieces]
    limit = len(pieces) if rows is None else rows
    for token in files.added_tokens(tokenizer_json):
        i, content = token["id"], token["content"].replace(" ", files.SPACE)
        if i >= len(pieces):
            if i < limit:
                return True
        elif pieces[i] != content and not (content == "\t" and pieces[i] == files.TAB_BYTE):
            return True
    return False


def _table(file: pathlib.Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        return json_values.read_object(file)
    except ValueError as error:
        raise ValueError(f"{error} Download it again, or remove it.") from error
