"""The commands `chat` and `generate` up to the model: what can be wrong is said before anything is loaded, and what is
being loaded while it is."""

import argparse
from types import ModuleType

from pipelines.commands import prompts
from pipelines.commands.backend import use_backend
from pipelines.host.activity import Activity
from pipelines.host.errors import ConfigError
from pipelines.host.paths import model_source


def chat(options: argparse.Namespace) -> int:
    """`chat DIR`: a conversation on the terminal, or with what is piped in."""
    source = _checked_source(options)
    with Activity(options.model, options.quiet) as activity:
        talk = _load_talk(options, activity)
        return int(talk.chat(options, source, activity))


def generate(options: argparse.Namespace) -> int:
    """`generate DIR`: answers to prompts from the command line, a file or standard input."""
    source = _checked_source(options)
    if options.batch_size < 1:
        raise ConfigError(f"--batch-size {options.batch_size}: expected 1 or more")
    asked = prompts.read(options.prompt, options.file, options.raw, options.suffix)
    with Activity(options.model, options.quiet) as activity:
        talk = _load_talk(options, activity)
        return int(talk.generate(options, source, asked, activity))


def _checked_source(options: argparse.Namespace) -> str:
    if options.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens {options.max_new_tokens}: expected 1 or more")
    return model_source(options.model)


def _load_talk(options: argparse.Namespace, activity: Activity) -> ModuleType:
    use_backend(options.backend)
    activity.say("loading Keras")
    from pipelines.commands import talk

    return talk
