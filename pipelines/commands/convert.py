"""The command `convert`: a model from one format into another, tensor by tensor."""

import argparse
from pathlib import Path

from gemma_keras.checkpoints.format import FLOAT_DTYPES, Format
from gemma_keras.checkpoints.formats import FORMATS, format_of_target, recognize
from gemma_keras.checkpoints.resolve import open_model
from gemma_keras.errors import InputError
from pipelines.commands.backend import use_backend
from pipelines.host.activity import Activity
from pipelines.host.errors import ConfigError
from pipelines.host.files import disk_error, is_disk_error
from pipelines.host.paths import model_source
from pipelines.run.stop_signals import StopSignals
from pipelines.training.model_folder import write_folder


def convert(options: argparse.Namespace) -> int:
    """Write a model in another format. Where neither format needs Keras no backend is loaded and one tensor is held at
    a time.

    The target's name decides on the format, or `--format` does.
    """
    target: Path = options.destination
    signals = StopSignals()
    try:
        # A signal too must leave no half-written file of many gigabytes.
        with signals.installed(), signals.raising(), Activity("convert", options.quiet) as activity:
            _convert(options, target, activity)
    except OSError as error:
        if is_disk_error(error):
            raise disk_error(error, target) from error
        raise ConfigError(f"{error.filename or target}: {error.strerror or error}. Name another place") from error
    return 0


def _convert(options: argparse.Namespace, target: Path, activity: Activity) -> None:
    if target.exists():
        raise ConfigError(f"{target}: exists already; name a file or folder that does not")
    into = _target_format(options, target)
    if options.dtype is not None and options.dtype not in into.dtypes:
        raise ConfigError(f"--dtype {options.dtype}: expected one of {', '.join(into.dtypes)}")
    name = model_source(options.model)
    source = recognize(name)
    if into.needs_keras or (source is not None and source.needs_keras):
        use_backend(options.backend)
    activity.say(f"opening {name}")
    model = open_model(name, options.dtype if options.dtype in FLOAT_DTYPES else None)

    def write(place: Path) -> str:
        try:
            return into.write(place, model, options.dtype)
        except InputError as error:
            raise ConfigError(f"{name}: {error}") from error

    activity.say(f"writing {target}")
    if into.suffix is None:
        written: list[str] = []
        write_folder(target, lambda folder: written.append(write(folder)))
        dtype = written[0]
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        dtype = write(target)
    activity.pause()
    print(f"{target}: {model.config.family}, {model.config.parameter_count:,} parameters, {dtype}")


def _target_format(options: argparse.Namespace, target: Path) -> Format:
    asked = "keras_hub" if options.keras_hub else options.format
    if asked is None:
        return format_of_target(target)
    into, by_name = FORMATS[asked], format_of_target(target)
    if by_name.suffix is not None and by_name is not into:
        raise ConfigError(
            f"{target}: {by_name.description} is not {into.description}; name another target, or another format"
        )
    return into
