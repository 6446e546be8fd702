"""The command `convert`: a model from one format into another, tensor by tensor."""

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gemma_keras import backend_choice
from gemma_keras.checkpoints import gguf, gguf_writer, hugging_face, keras_hub, resolve
from gemma_keras.checkpoints.tokenizers import read_tokenizer
from gemma_keras.config import GemmaConfig
from gemma_keras.tokenizer import GemmaTokenizer
from pipelines import stage_process
from pipelines.checkpoint import write_folder
from pipelines.errors import ConfigError
from pipelines.files import disk_error, is_disk_error
from pipelines.paths import model_source

_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class _Source:
    config: GemmaConfig
    weights: Iterable[tuple[str, np.ndarray]]
    tokenizer: GemmaTokenizer | None
    dtype: str
    reward: dict[str, float] | None


def convert(options: argparse.Namespace) -> int:
    """Write a model in another format. From and to Hugging Face folders and GGUF no backend is loaded and one tensor is held at a time.

    The target decides on the format: a name that ends in .gguf, with `--keras-hub` a KerasHub preset, else a Hugging Face folder.
    """
    target: Path = options.destination
    if target.exists():
        raise ConfigError(f"{target}: exists already; name a file or folder that does not")
    to_gguf = target.suffix == ".gguf"
    if to_gguf and options.keras_hub:
        raise ConfigError(f"{target}: a .gguf file is no KerasHub preset; leave out --keras-hub or name a folder")
    known = tuple(gguf_writer.TYPES) if to_gguf else _DTYPES
    if options.dtype is not None and options.dtype not in known:
        raise ConfigError(f"--dtype {options.dtype}: expected one of {', '.join(known)}")
    name = model_source(options.model)
    from_hub = name.startswith("kaggle://") or keras_hub.is_preset(Path(name))
    if from_hub or options.keras_hub:
        backend = backend_choice.choose_backend(options.backend)
        stage_process.set_environment(backend)
        backend_choice.set_backend(backend)
    source = _open_keras_hub(name) if from_hub else _open(resolve.resolve(name))
    dtype = options.dtype or source.dtype
    if to_gguf:
        dtype = options.dtype or ("bfloat16" if source.dtype == "bfloat16" else "float16")
        if source.reward is not None:
            raise ConfigError(f"{name}: a reward model; llama.cpp has no scalar head. Convert it to a folder")
        _write_gguf(target, source, dtype)
    elif options.keras_hub:
        if source.reward is not None:
            raise ConfigError(f"{name}: a reward model; KerasHub has no scalar head. Convert it to a folder")
        proto = None if source.tokenizer is None else source.tokenizer.model_proto
        write_folder(target, lambda folder: keras_hub.task_of(source.config, source.weights, proto, dtype).save_to_preset(str(folder)))
    else:
        write_folder(target, lambda folder: _write_hugging_face(folder, source, dtype))
    print(f"{target}: {source.config.family}, {source.config.parameter_count:,} parameters, {dtype}")
    return 0


def _open(path: Path) -> _Source:
    if path.is_file():
        config = gguf.read_config(path)
        return _Source(config, gguf.read_weights(path), read_tokenizer(path, config.family), "float32", None)
    config = hugging_face.read_config(path)
    dtype = hugging_face.read_dtype(path) or "float32"
    return _Source(config, hugging_face.read_weights(path), read_tokenizer(path, config.family), dtype, hugging_face.read_reward(path))


def _open_keras_hub(name: str) -> _Source:
    backbone, proto = keras_hub.open_preset(name)
    config = keras_hub.config_of(backbone)
    tokenizer = None if proto is None else GemmaTokenizer(proto, config.family)
    dtype = backbone.dtype_policy.variable_dtype
    return _Source(config, keras_hub.weights_of(backbone), tokenizer, dtype if dtype in _DTYPES else "float32", None)


def _write_gguf(file: Path, source: _Source, dtype: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        gguf_writer.write(file, source.config, source.weights, source.tokenizer, dtype)
    except OSError as error:
        if is_disk_error(error):
            raise disk_error(error, file) from error
        raise


def _write_hugging_face(folder: Path, source: _Source, dtype: str) -> None:
    stops = None if source.tokenizer is None else source.tokenizer.stop_token_ids
    hugging_face.write_config(folder, source.config, dtype, source.reward, stops)
    hugging_face.write_weights(folder, source.weights)
    if source.tokenizer is not None:
        source.tokenizer.save(folder)
