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
    signals = stage_process.StopSignals()
    try:
        # A signal too must leave no half-written file of many gigabytes.
        with signals.installed(), signals.raising():
            _convert(options, target)
    except OSError as error:
        if is_disk_error(error):
            raise disk_error(error, target) from error
        raise ConfigError(f"{error.filename or target}: {error.strerror or error}. Name another place") from error
    return 0


def _convert(options: argparse.Namespace, target: Path) -> None:
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
    source = _open_keras_hub(name) if from_hub else _open(resolve.resolve(name), None if to_gguf else options.dtype)
    if source.reward is not None and (to_gguf or options.keras_hub):
        raise ConfigError(f"{name}: a reward model; {'llama.cpp' if to_gguf else 'KerasHub'} has no scalar head. Convert it to a folder")
    dtype = options.dtype or source.dtype
    if to_gguf:
        dtype = options.dtype or ("bfloat16" if source.dtype == "bfloat16" else "float16")
        if source.tokenizer is None:
            raise ConfigError(f"{name}: has no tokenizer, without which llama.cpp opens no file. Put its tokenizer.model into the folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        gguf_writer.write(target, source.config, source.weights, source.tokenizer, dtype)
    elif options.keras_hub:
        proto = None if source.tokenizer is None else source.tokenizer.model_proto
        write_folder(target, lambda folder: keras_hub.task_of(source.config, source.weights, proto, dtype).save_to_preset(str(folder)))
    else:
        write_folder(target, lambda folder: _write_hugging_face(folder, source, dtype))
    print(f"{target}: {source.config.family}, {source.config.parameter_count:,} parameters, {dtype}")


def _open(path: Path, dtype: str | None) -> _Source:
    """`dtype`: of the target, where rows of a GGUF file may be rounded as they are read."""
    if path.is_file():
        config = gguf.read_config(path)
        return _Source(config, gguf.read_weights(path, dtype), read_tokenizer(path, config), "float32", None)
    config = hugging_face.read_config(path)
    stored = hugging_face.read_dtype(path) or "float32"
    return _Source(config, hugging_face.read_weights(path), read_tokenizer(path, config), stored, hugging_face.read_reward(path))


def _open_keras_hub(name: str) -> _Source:
    backbone, proto = keras_hub.open_preset(name)
    config = keras_hub.config_of(backbone)
    tokenizer = None if proto is None else GemmaTokenizer(proto, config.family)
    dtype = backbone.dtype_policy.variable_dtype
    return _Source(config, keras_hub.weights_of(backbone), tokenizer, dtype if dtype in _DTYPES else "float32", None)


def _write_hugging_face(folder: Path, source: _Source, dtype: str) -> None:
    stops = None if source.tokenizer is None else source.tokenizer.stop_token_ids
    hugging_face.write_config(folder, source.config, dtype, source.reward, stops)
    hugging_face.write_weights(folder, source.weights)
    if source.tokenizer is not None:
        source.tokenizer.save(folder)
