"""The options of the commands on models: `chat`, `generate` and `convert`. Loads nothing but what `--help` needs."""

import argparse
from pathlib import Path

from gemma_keras.checkpoints.formats import FORMATS, MODEL_FILES
from pipelines.commands import models
from pipelines.commands.convert import convert

WEIGHT_DTYPES = ("float32", "bfloat16", "float16")
PROMPTS = """\
prompts: each --prompt TEXT; or --file FILE with JSON lines, {"prompt": "..."} or {"messages": [...]} each;
or, without both, standard input: one prompt a line, or JSON lines. From JSON lines come JSON lines,
{"prompt": ..., "response": "..."}, in the same order.
"""
CHAT_HELP = """\
An empty line or Ctrl-D ends the conversation; Ctrl-C stops an answer, or ends it. /help lists what else can be typed.
"""


def add_model_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `chat`, `generate` and `convert`."""
    raw = argparse.RawDescriptionHelpFormatter
    chat = subparsers.add_parser(
        "chat", help="talk to a model", description="Talk to a model, turn by turn.", epilog=CHAT_HELP
    )
    chat.add_argument(
        "--system", metavar="TEXT", help="instructions before the first turn; Gemma 3 has a turn for them"
    )
    generate = subparsers.add_parser(
        "generate", help="complete prompts", description="Answer prompts, in batches.", epilog=PROMPTS,
        formatter_class=raw,
    )  # fmt: skip
    generate.add_argument(
        "--prompt", action="append", default=None, metavar="TEXT", help="a user's turn; may be repeated"
    )
    generate.add_argument("--file", metavar="FILE", help="prompts as JSON lines; - is standard input")
    generate.add_argument("--json", action="store_true", help="write JSON lines, also where prompts are plain text")
    generate.add_argument("--batch-size", type=int, default=16, metavar="N", help="prompts at once, default 16")
    generate.add_argument("--raw", action="store_true", help="continue the text itself, without turns")
    generate.add_argument("--suffix", metavar="TEXT", help="fill in between the prompt and this text, with a CodeGemma")
    for command, function in ((chat, models.chat), (generate, models.generate)):
        _add_sampling(command)
        command.set_defaults(function=function)
    converter = _add_convert(subparsers)
    for command in (chat, generate, converter):
        command.add_argument(
            "--backend", default=None, help="jax, tensorflow or torch; default the first one installed"
        )
        command.add_argument("--quiet", action="store_true", help="no word on what is being loaded, no progress")


def _add_sampling(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model", metavar="DIR", help="model, adapter or stage folder, model file, hub id or published name"
    )
    command.add_argument(
        "--dtype", choices=WEIGHT_DTYPES, default="float32",
        help="of the weights, default float32; the two others take half the memory",
    )  # fmt: skip
    command.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="longest answer in tokens, default 256"
    )
    command.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="1, the default, is as trained; 0 is greedy"
    )
    command.add_argument(
        "--top-k", type=int, default=None, metavar="K", help="draw among the K likeliest tokens, default among all"
    )
    command.add_argument(
        "--top-p", type=float, default=None, metavar="P",
        help="draw among the likeliest tokens that hold this share of the probability, default among all",
    )  # fmt: skip
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the draws, default 0; the same seed, the same answers"
    )


def _add_convert(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    text = f"write a model in another format: {', '.join(FORMATS)}"
    converter = subparsers.add_parser("convert", help=text, description=text.capitalize() + ".")
    dtypes = dict.fromkeys(dtype for form in FORMATS.values() for dtype in form.dtypes)
    converter.add_argument("model", metavar="SRC", help=f"published name, hub id, an adapter, {MODEL_FILES}")
    converter.add_argument("destination", type=Path, metavar="DST", help="folder or file to write; must not exist")
    converter.add_argument("--format", choices=tuple(FORMATS), default=None, help="default by the name of DST")
    converter.add_argument("--keras-hub", action="store_true", help="the same as --format keras_hub")
    converter.add_argument(
        "--dtype", default=None, help=f"{', '.join(dtypes)}, where the format has it; default near the source"
    )
    converter.set_defaults(function=convert)
    return converter
