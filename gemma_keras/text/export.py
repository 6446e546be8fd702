"""The tokenizer files of a Hugging Face folder: chat templates, `tokenizer_config.json`, `tokenizer.json`.

The class named in `tokenizer_config.json` is `PreTrainedTokenizerFast`, which uses `tokenizer.json` as it stands;
`transformers` 5 rebuilds a `GemmaTokenizer` from its vocabulary and adds a `<mask>` piece to models that have none.
"""

import json
from typing import Any

from gemma_keras.text import sentencepiece_files as files

_TURNS = """\
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Turns must alternate, beginning with user: user, model, user, ...') }}
{%- endif -%}
{%- if message['role'] not in ['user', 'model', 'assistant'] -%}
{{ raise_exception('A role must be user, model or assistant.') }}
{%- endif -%}
{{ '<start_of_turn>' ~ ('user' if message['role'] == 'user' else 'model') ~ '\\n' }}
{{- (system if loop.first else '') ~ (message['content'] | trim) ~ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""

_WITHOUT_SYSTEM = (
    """\
{{- bos_token -}}
{%- if messages and messages[0]['role'] == 'system' -%}
{{ raise_exception('This model has no system role. Put the text into the first user turn.') }}
{%- endif -%}
{%- set system = '' -%}
{%- set turns = messages -%}
"""
    + _TURNS
)

_WITH_SYSTEM = (
    """\
{{- bos_token -}}
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] ~ '\\n\\n' -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- endif -%}
"""
    + _TURNS
)

# Gemma 3 puts a system message in front of the first user turn, Gemma 1 and 2 have none.
CHAT_TEMPLATES = {"gemma": _WITHOUT_SYSTEM, "gemma2": _WITHOUT_SYSTEM, "gemma3": _WITH_SYSTEM}


def tokenizer_config(special_pieces: dict[str, str], chat_template: str) -> dict[str, Any]:
    """Content of `tokenizer_config.json`; `special_pieces` names the pieces of pad, eos, bos and unk."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        **{f"{name}_token": piece for name, piece in special_pieces.items()},
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "chat_template": chat_template,
    }


def tokenizer_json(model_proto: bytes) -> bytes | None:
    """`tokenizer.json` with the ids of a SentencePiece BPE model, or None for a Unigram model, whose ids `tokenizers`
    does not promise.

    User-defined pieces are matched after normalization, with the spaces spelled U+2581: then runs of spaces are cut
    from the left into the longest pieces, as SentencePiece does, not merged pairwise.
    """
    model = files.parse_model(model_proto)
    if model.trainer_spec.model_type != files.BPE_MODEL:
        return None
    control_ids = files.control_piece_ids(model)
    entries = [(entry.piece, entry.score, entry.type) for entry in model.pieces]
    added = []
    for i, (piece, _, kind) in enumerate(entries):
        special = i in control_ids or kind == files.UNKNOWN
        if special or kind == files.USER_DEFINED:
            flags = {
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": not special,
                "special": special,
            }
            added.append({"id": i, "content": piece, **flags})
    bos, unknown = model.trainer_spec.bos_piece, model.trainer_spec.unk_piece
    bos_id = next(i for i, entry in enumerate(entries) if entry[0] == bos)
    start = {"SpecialToken": {"id": bos, "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": files.SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first],
            "pair": [start, first, {"SpecialToken": {"id": bos, "type_id": 1}}, second],
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": files.SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": bool(model.trainer_spec.byte_fallback),
            "ignore_merges": False,
            "vocab": {piece: i for i, (piece, _, _) in enumerate(entries)},
            "merges": _merges(entries),
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _merges(entries: list[tuple[str, float, int]]) -> list[tuple[str, str]]:
    """Every way to put a normal piece together from two others, in the order in which SentencePiece would choose the
    piece."""
    normal = {piece for piece, _, kind in entries if kind == files.NORMAL}
    ordered = sorted(
        (entry for entry in entries if entry[2] == files.NORMAL and len(entry[0]) > 1), key=lambda entry: -entry[1]
    )
    return [
        (piece[:cut], piece[cut:])
        for piece, _, _ in ordered
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
