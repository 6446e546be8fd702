"""Writes a Hugging Face folder: `config.json`, `generation_config.json`, safetensors in one or several files; tensor by
tensor."""

import json
import math
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma_keras.checkpoints import names
from gemma_keras.checkpoints import safetensors_file as st
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.hugging_face_config import config_to_dict
from gemma_keras.checkpoints.hugging_face_reader import (
    CONFIG_FILE,
    INDEX_FILE,
    WEIGHTS_FILE,
    is_classifier,
    read_config,
    read_dtype,
    read_json,
)
from gemma_keras.config import GemmaConfig
from gemma_keras.files import write_text

GENERATION_FILE = "generation_config.json"
_SHARDS = "model-*-of-*.safetensors"
MODEL_FILES = (CONFIG_FILE, GENERATION_FILE, WEIGHTS_FILE, INDEX_FILE, _SHARDS)
"""Patterns of what a model can consist of here, without its tokenizer."""
SHARD_BYTES = 5e9


def write_config(
    folder: str | Path,
    config: GemmaConfig,
    dtype: str,
    reward: Mapping[str, float] | None = None,
    stop_token_ids: Iterable[int] | None = None,
) -> None:
    """Writes `config.json` (opens in transformers 4 and 5) and, for a language model, `generation_config.json`.

    Args:
        folder: made if it does not exist.
        config: the model.
        dtype: "float32", "bfloat16" or "float16": what `write_weights` casts to.
        reward: for a reward model, {"reward_mean": float, "reward_std": float}.
        stop_token_ids: ids that end a generated text, `<eos>` and the turn's end; default `<eos>` and the family's
            published end of turn.

    Raises:
        CheckpointError: Hugging Face's classes have no such model, or an unknown dtype.
    """
    folder = Path(folder)
    st.float_dtype(dtype)
    table = config_to_dict(config, dtype, reward)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG_FILE, _pretty(table))
    if reward is not None:
        return
    end_of_turn = 106 if config.family == "gemma3" else 107
    stops = sorted(set(stop_token_ids if stop_token_ids is not None else (config.eos_token_id, end_of_turn)))
    generation = {
        "bos_token_id": config.bos_token_id,
        "do_sample": True,
        "eos_token_id": stops,
        "pad_token_id": config.pad_token_id,
    }
    write_text(folder / GENERATION_FILE, _pretty(generation))


def write_weights(
    folder: str | Path, named_arrays: Iterable[tuple[str, np.ndarray]], shard_bytes: float = SHARD_BYTES
) -> None:
    """Writes the weights tensor by tensor, in one file or in shards with an index, beside the `config.json` that
    `write_config` wrote.

    Names, shapes and dtype come from that `config.json`, so that folder and weights agree; the arrays may come in any
    order. One array is held at a time. The files appear under their names only after all of them are complete and
    synced; a single file replaces its predecessor in one step.

    Args:
        folder: holds `config.json`.
        named_arrays: (our name, array in our layout, any float dtype), every weight once; `score` for a reward model.
        shard_bytes: largest file, bytes; a model above it is sharded.

    Raises:
        CheckpointError: a name or shape that the model does not have, a weight missing.
        OSError: the disk; no partial file is left behind.
    """
    folder = Path(folder)
    config = read_config(folder)
    dtype = read_dtype(folder) or "float32"
    ours = names.expected_shapes(config, with_score=is_classifier(read_json(folder / CONFIG_FILE)))
    shapes = {names.hugging_face_name(name, config): names.file_shape(name, shape) for name, shape in ours.items()}
    shards = _plan_shards(shapes, st.float_dtype(dtype).itemsize, shard_bytes)
    writers: list[st.SafetensorsWriter] = []
    try:
        writer_of = {}
        for file_name, tensors in shards.items():
            writers.append(st.SafetensorsWriter(folder / file_name, {name: shapes[name] for name in tensors}, dtype))
            writer_of.update(dict.fromkeys(tensors, writers[-1]))
        for name, values in named_arrays:
            if name not in ours:
                raise CheckpointError(f"{folder}: {name!r} is no weight of the {config.family} model in {CONFIG_FILE}.")
            if values.shape != ours[name]:
                raise CheckpointError(
                    f"{folder}: weight {name!r}: expected shape {ours[name]} by {CONFIG_FILE}. Received: {values.shape}"
                )
            theirs = names.hugging_face_name(name, config)
            writer_of[theirs].write(theirs, values.T if names.is_transposed(name) else values)
        for writer in writers:
            writer.finish()
        for writer in writers:
            writer.publish()
    except BaseException:  # a stop signal too must leave no partial file
        for writer in writers:
            writer.discard()
        raise
    _finish_folder(folder, shards, sum(writer.data_bytes for writer in writers))


def _plan_shards(shapes: Mapping[str, tuple[int, ...]], itemsize: int, shard_bytes: float) -> dict[str, list[str]]:
    """File name → tensor names, in order; a tensor is never split."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {WEIGHTS_FILE: groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, 1)}


def _finish_folder(folder: Path, shards: Mapping[str, list[str]], data_bytes: int) -> None:
    """Writes the index where there are shards, then removes what an earlier save left."""
    if len(shards) > 1:
        weight_map = {tensor: file for file, tensors in shards.items() for tensor in tensors}
        table = {"metadata": {"total_size": data_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        write_text(folder / INDEX_FILE, _pretty(table))
    else:
        (folder / INDEX_FILE).unlink(missing_ok=True)
    _remove_weights(folder, set(shards))


def _remove_weights(folder: Path, kept: Container[str]) -> None:
    """Remove the weight files of an earlier save that this one does not name."""
    for pattern in (WEIGHTS_FILE, _SHARDS):
        for file in folder.glob(pattern):
            if file.name not in kept:
                file.unlink()


def _pretty(table: Mapping[str, Any]) -> str:
    return json.dumps(table, indent=2, allow_nan=False) + "\n"
