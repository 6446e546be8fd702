"""Gemma 1, 2 and 3 into a GGUF file that llama.cpp and Ollama run, tensor by tensor and without Keras.

The `gguf` package (an extra) writes the header and quantizes. llama.cpp derives some of a model from its architecture
alone: the attention scale, the window pattern, the local rotary base. A model that has others is refused, because it
would run there as something else.
"""

import contextlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints import names
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.gguf_reader import LAYERS_OF_27B, WINDOW_PATTERN, gguf_package
from gemma_keras.config import GemmaConfig, every_nth_global
from gemma_keras.files import sync_folder, temporary_beside
from gemma_keras.text.sentencepiece_files import BPE_MODEL, CONTROL, SPACE, UNUSED, USER_DEFINED, parse_model
from gemma_keras.text.tokenizer import GemmaTokenizer

TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
_FILE_TYPES = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
_BLOCK_VALUES = 1 << 24


def write(
    file: str | Path,
    config: GemmaConfig,
    named_arrays: Iterable[tuple[str, np.ndarray]],
    tokenizer: GemmaTokenizer | None,
    dtype: str = "float16",
    name: str | None = None,
) -> None:
    """Write a model; the file appears under its name only when it is complete and synced.

    Args:
        file: ends in .gguf.
        config: the model.
        named_arrays: (our name, array in our layout), every weight once, in any order; one is held at a time.
        tokenizer: its pieces go into the metadata; None for a file without them, which llama.cpp does not open.
        dtype: "float32", "float16", "bfloat16" or "q8_0" of the matrices; norms are always float32, as llama.cpp wants
            them, and so are the rows that q8_0's blocks of 32 do not divide (float16).
        name: `general.name`, default the file's.

    Raises:
        CheckpointError: an unknown dtype, a model or tokenizer that llama.cpp does not have, a weight missing or of
            another shape; no `gguf` package.
        OSError: the disk; no partial file is left behind.
    """
    file = Path(file)
    if dtype not in TYPES:
        raise CheckpointError(f"GGUF is written as one of {', '.join(TYPES)}. Received: dtype={dtype!r}")
    check_writable(config)
    package = gguf_package(file)
    temporary = temporary_beside(file)
    writer = package.GGUFWriter(temporary, config.family)
    try:
        _add_config(writer, config, package, dtype, name or file.stem)
        if tokenizer is not None:
            _add_tokenizer(writer, tokenizer, config, package)
        places = _announce(writer, config, package, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        stream = writer.fout[0]
        first = _padded(stream.tell(), writer.data_alignment)
        _write_arrays(stream, first, places, named_arrays, config, package, file)
        stream.flush()
        os.fsync(stream.fileno())
        writer.close()
        os.replace(temporary, file)
        sync_folder(file.parent)
    except BaseException:  # a stop signal too must leave no partial file
        with contextlib.suppress(OSError):
            writer.close()
        temporary.unlink(missing_ok=True)
        raise


def check_writable(config: GemmaConfig) -> None:
    """Refuse what llama.cpp would run as another model.

    Raises:
        CheckpointError: names the field.
    """
    family = config.family
    is_27b = config.num_layers == LAYERS_OF_27B.get(family)
    scale = (config.hidden_dim / config.num_query_heads if is_27b else config.head_dim) ** -0.5
    local = (
        (False,) * config.num_layers
        if family == "gemma"
        else every_nth_global(config.num_layers, WINDOW_PATTERN[family])
    )
    rules = {
        "query_scale": math.isclose(config.query_scale or 0.0, scale),
        "local_layers": config.local_layers == local,
        "local_rope_theta": config.local_rope_theta == (1e4 if family == "gemma3" else config.rope_theta),
        "use_post_norms": config.use_post_norms == (family != "gemma"),
        "use_query_key_norm": config.use_query_key_norm == (family == "gemma3"),
        "rope_scale": config.rope_scale == 1.0 or family == "gemma3",
        "attention_logit_soft_cap": (config.attention_logit_soft_cap is None) == (family != "gemma2"),
        "final_logit_soft_cap": (config.final_logit_soft_cap is None) == (family != "gemma2"),
    }
    for field, holds in rules.items():
        if not holds:
            raise CheckpointError(f"llama.cpp's {family} has no such model: {field}={getattr(config, field)!r}")


def _add_config(writer: Any, config: GemmaConfig, package: Any, dtype: str, name: str) -> None:
    writer.add_name(name)
    writer.add_file_type(package.LlamaFileType[_FILE_TYPES[dtype]])
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_dim)
    writer.add_head_count(config.num_query_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    if config.family == "gemma2":
        writer.add_attn_logit_softcapping(config.attention_logit_soft_cap)
        writer.add_final_logit_softcapping(config.final_logit_soft_cap)
    if config.family != "gemma":
        writer.add_sliding_window(config.sliding_window)
    if config.rope_scale != 1.0:
        writer.add_rope_scaling_type(package.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scale)


def _add_tokenizer(writer: Any, tokenizer: GemmaTokenizer, config: GemmaConfig, package: Any) -> None:
    tokens, scores, kinds = _vocabulary(tokenizer, config)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unknown_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.end_of_turn_id is not None:
        writer.add_eot_token_id(tokenizer.end_of_turn_id)
    if tokenizer.infilling_marks is not None:
        keys = package.Keys.Tokenizer
        marks = dict(
            zip(
                (keys.FIM_PRE_ID, keys.FIM_SUF_ID, keys.FIM_MID_ID, keys.FIM_SEP_ID),
                tokenizer.infilling_marks,
                strict=True,
            )
        )
        for key, token_id in marks.items():
            writer.add_uint32(key, token_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(tokenizer.chat_template)


def _vocabulary(tokenizer: GemmaTokenizer, config: GemmaConfig) -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and types, one for each row of the embedding, as llama.cpp requires."""
    model = parse_model(tokenizer.model_proto)
    if model.trainer_spec.model_type != BPE_MODEL:
        raise CheckpointError(
            "GGUF's tokenizer for Gemma is SentencePiece's BPE. Received: a Unigram model, whose ids llama.cpp changes"
        )
    for entry in list(model.pieces)[config.vocabulary_size :]:
        if entry.type not in (CONTROL, UNUSED):
            raise CheckpointError(
                f"The tokenizer has {len(model.pieces)} pieces and the model {config.vocabulary_size} rows: "
                f"{entry.piece!r} would be lost. Use the tokenizer that the model was trained with"
            )
    tokens, scores, kinds = [], [], []
    for i, entry in enumerate(list(model.pieces)[: config.vocabulary_size]):
        # Published files type turn and infilling marks user-defined: llama.cpp would match them in what users write.
        kind = CONTROL if i in tokenizer.control_ids else entry.type
        # It matches user-defined pieces against the text as it is, with plain spaces.
        tokens.append(entry.piece.replace(SPACE, " ") if kind == USER_DEFINED else entry.piece)
        scores.append(entry.score)
        kinds.append(int(kind))
    for i in range(len(tokens), config.vocabulary_size):
        tokens.append(f"[PAD{i}]")
        scores.append(-1000.0)
        kinds.append(UNUSED)
    return tokens, scores, kinds


def _announce(writer: Any, config: GemmaConfig, package: Any, dtype: str) -> dict[str, tuple[int, Any]]:
    """Tell the writer every tensor; our name → (offset in the data region, its type)."""
    places = {}
    position = 0
    for name, shape in names.expected_shapes(config).items():
        shape = names.file_shape(name, shape)
        kind = package.GGMLQuantizationType[TYPES[dtype] if len(shape) > 1 else "F32"]
        block_values, block_bytes = package.GGML_QUANT_SIZES[kind]
        if shape[-1] % block_values:
            kind = package.GGMLQuantizationType.F16
            block_values, block_bytes = package.GGML_QUANT_SIZES[kind]
        size = math.prod(shape) // block_values * block_bytes
        writer.add_tensor_info(names.gguf_name(name, config), shape, np.dtype(np.float32), size, raw_dtype=kind)
        places[name] = (position, kind)
        position += _padded(size, writer.data_alignment)
    return places


def _write_arrays(stream, first, places, named_arrays, config, package, file) -> None:
    shapes = names.expected_shapes(config)
    missing = dict(places)
    end = first
    for name, values in named_arrays:
        if name not in missing:
            raise CheckpointError(f"{file}: {name!r} is no weight of the {config.family} model, or came twice.")
        if values.shape != shapes[name]:
            raise CheckpointError(f"{file}: weight {name!r}: expected shape {shapes[name]}. Received: {values.shape}")
        offset, kind = missing.pop(name)
        stream.seek(first + offset)
        rows = values.T if names.is_transposed(name) else values
        step = max(1, _BLOCK_VALUES // rows.shape[-1]) if rows.ndim > 1 else len(rows)
        for i in range(0, len(rows), step):
            block = np.ascontiguousarray(rows[i : i + step], dtype=np.float32)
            # GGUF keeps 1 + scale; the sum is exact for bfloat16 weights.
            stream.write(package.quantize(block + 1.0 if names.is_norm(name) else block, kind).tobytes())
        end = max(end, stream.tell())
    if missing:
        raise CheckpointError(f"{file}: {len(missing)} weights were never written, the first is {min(missing)!r}.")
    stream.truncate(first + _padded(end - first, 32))


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
