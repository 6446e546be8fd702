"""The command `show`: rows of a stage as the stage will encode them. Loads no Keras."""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemma_keras.checkpoints.formats import recognize
from gemma_keras.checkpoints.resolve import open_model
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.commands.token_text import CLOSE, OPEN, has_colors, render
from pipelines.commands.workflows import run_folder
from pipelines.data.encoding import EncodedPair, need_tokenizer
from pipelines.data.examples import load_examples
from pipelines.data.rejects import Rejects
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.run_folder import stage_folder
from pipelines.host.spelling import did_you_mean
from pipelines.schema.base import Encoding, StageConfig, Use
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.roles import DATA, blocks, references_of
from pipelines.workflow.encoding_checks import encode_rows, lengths_of
from pipelines.workflow.loading import LoadedWorkflow, load
from pipelines.workflow.tokenizers import tokenizer_origin

_LEGENDS: dict[Use, str] = {
    "text": f"{OPEN}...{CLOSE} bears loss",
    "instruction": f"{OPEN}...{CLOSE} bears loss",
    "preference": f"{OPEN}...{CLOSE} is a response; the score is read at its last token",
    "prompt": "a response follows what is shown",
}


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What is shown of a stage.

    Args:
        loaded: the workflow. stage: its name. folder: of the run, finished or not. file: as the user wrote it.
        rows: examples shown. colors: whether the terminal takes them.
    """

    loaded: LoadedWorkflow
    stage: str
    folder: Path
    file: Path
    rows: int
    colors: bool

    def finished(self, stage: str) -> Path | None:
        """The folder of a finished stage, of the first seed that has one."""
        seeds = self.loaded.workflow.seeds
        places = [stage_folder(self.folder, stage, seed) for seed in (None, *(seeds.values if seeds else ()))]
        return next((one for one in places if (one / "stage.json").is_file() and (one / "final.json").is_file()), None)

    def need(self, stage: str, what: str) -> Path:
        """The folder of a finished stage.

        Raises:
            ConfigError: it has not run; says `what` is missing with it.
        """
        found = self.finished(stage)
        if found is None:
            raise ConfigError(
                f"{what} comes from stage {stage!r}, which has not finished in {self.folder}. Run it first: "
                f"gemma-keras run {self.file}"
            )
        return found


def show(options: argparse.Namespace) -> int:
    """`show FILE STAGE`: the first rows of a stage, rendered; how long all are, and how many too long.

    Raises:
        ConfigError: no such stage, one without rows, or no tokenizer yet. DataError: rows that the stage would refuse.
    """
    if options.rows < 1:
        raise ConfigError(f"--rows {options.rows}: expected 1 or more")
    loaded = load(options.file, options.set, plugins=options.plugin)
    stages = loaded.workflow.stages
    if options.stage not in stages:
        hint = did_you_mean(options.stage, stages)
        raise ConfigError(f"no stage {options.stage!r} in {options.file}.{hint} Stages: {', '.join(stages)}")
    config = stages[options.stage]
    encoding = config.encoding()
    if encoding is None or not config.reads():
        raise ConfigError(
            f"stage {options.stage!r} is of kind {config.kind}, which encodes no rows. Name another stage"
        )
    what = _Shown(
        loaded, options.stage, run_folder(options, loaded), options.file, options.rows, has_colors(sys.stdout)
    )
    tokenizer = _tokenizer(what)
    for data in _sources(config):
        for use in config.reads():
            for line in _lines(what, data, use, tokenizer, encoding):
                print(line, flush=True)
    return 0


def _sources(config: StageConfig) -> Iterator[FileData | TaskData | str]:
    """What a stage reads rows from: files, the built-in task, and stages."""
    for _, block in blocks(config):
        if isinstance(block, FileData | TaskData):
            yield block
    for reference in references_of(config):
        if reference.role.product in DATA:
            yield reference.name


def _tokenizer(what: _Shown) -> GemmaTokenizer:
    origin = tokenizer_origin(what.loaded.workflow, what.stage, what.loaded.base_folder)
    source = origin.source
    if origin.trained_by is not None:
        source = what.need(origin.trained_by, "the tokenizer") / "model"
    if source is None:
        raise ConfigError(f"stage {what.stage!r}: no model to take the tokenizer from; name one in `from` or `model`")
    found = recognize(source)
    if found is not None and found.needs_keras:
        raise ConfigError(
            f"{source}: the tokenizer of {found.description} opens with a backend only. Convert it first: gemma-keras "
            f"convert {source} FOLDER"
        )
    return need_tokenizer(open_model(source, with_weights=False).tokenizer)


def _lines(
    what: _Shown, data: FileData | TaskData | str, use: Use, tokenizer: GemmaTokenizer, encoding: Encoding
) -> Iterator[str]:
    workflow = what.loaded.workflow
    inputs = {data: what.need(data, "the data")} if isinstance(data, str) else {}
    is_repeated = workflow.seeds is not None and what.stage not in workflow.stages_run_once()
    seed = workflow.seeds.values[0] if workflow.seeds is not None and is_repeated else workflow.seed
    rejects = Rejects(data.on_bad_row) if isinstance(data, FileData) else Rejects()
    examples = load_examples(data, use, what.loaded.base_folder, inputs, seed, rejects)
    bad, examples = rejects.count, examples[: encoding.most_rows]
    encoding = encoding if use == "prompt" else dataclasses.replace(encoding, room=0)
    whole = encode_rows(
        use, tokenizer, examples, dataclasses.replace(encoding, max_length=sys.maxsize, room=0)
    ).examples
    lengths = [max(lengths_of(one)) for one in whole]
    shown = min(what.rows, len(examples))
    yield f"{what.stage}: {shown} of {len(examples)} rows, read as {use}; {_LEGENDS[use]}"
    for example, encoded, length in zip(examples[:shown], whole, lengths, strict=False):
        yield ""
        fate = ""
        if length + encoding.room > encoding.max_length:
            encoded, fate = _overlong(use, tokenizer, example, encoded, encoding)
        yield f"{example.origin}: {_count(encoded)}{fate}"
        for title, token_ids, is_target in _parts(encoded):
            text = render(tokenizer, token_ids, is_target, what.colors)
            yield f"  {title}{text}".replace("\n", "\n  ")
    yield ""
    yield f"lengths: {min(lengths)} to {max(lengths)} tokens, median {statistics.median(lengths):g}"
    yield _overlong_count(
        sum(length + encoding.room > encoding.max_length for length in lengths), len(lengths), encoding
    )
    if bad:
        yield f"{bad} bad {'row is' if bad == 1 else 'rows are'} set aside, the first {_first(rejects)}"
    yield from (f"{origin}: {notice}" for notice, origin in rejects.notices.items())
    if isinstance(data, FileData) and data.disjoint_from:
        yield f"what {', '.join(data.disjoint_from)} learned from is left out by the run, and not here"


def _overlong(use: Use, tokenizer: GemmaTokenizer, example: Any, whole: Any, encoding: Encoding) -> tuple[Any, str]:
    """What the stage makes of a row that is too long, and a word on it."""
    place = f", over max_length {encoding.max_length}"
    if encoding.overlong == "truncate" and use != "prompt":
        try:
            return encode_rows(use, tokenizer, [example], encoding).examples[0], f"{place}: cut at its end"
        except DataError:
            return whole, f"{place}: dropped, as no whole response would be left"
    if encoding.room:
        place = f" leave no room for {encoding.room} more within max_length {encoding.max_length}"
    return whole, f"{place}: {'stops the run' if encoding.overlong == 'error' else 'dropped'}"


def _overlong_count(count: int, total: int, encoding: Encoding) -> str:
    fate = {"error": "stop the run", "drop": "are dropped", "truncate": "are cut, or dropped where nothing bears loss"}
    limit = f"over max_length {encoding.max_length}"
    if encoding.room:
        limit = f"over {encoding.max_length - encoding.room} tokens, max_length {encoding.max_length} less "
        limit += f"max_new_tokens {encoding.room}"
    return f"{count} of {total} rows are {limit}" + (f", and {fate[encoding.overlong]}" if count else "")


def _count(encoded: Any) -> str:
    if isinstance(encoded, EncodedPair):
        chosen, rejected = lengths_of(encoded)
        return (
            f"{chosen} tokens with chosen ({encoded.chosen_length} its own), {rejected} with rejected "
            f"({encoded.rejected_length} its own)"
        )
    if isinstance(encoded, list):
        return f"{len(encoded)} tokens"
    return f"{len(encoded.token_ids)} tokens, {sum(encoded.is_target)} bear loss"


def _parts(encoded: Any) -> Iterator[tuple[str, list[int], list[bool]]]:
    """Title, ids and marks of what is shown of a row."""
    if not isinstance(encoded, EncodedPair):
        ids = encoded if isinstance(encoded, list) else encoded.token_ids
        yield "", ids, [False] * len(ids) if isinstance(encoded, list) else encoded.is_target
        return
    sides = [
        ("chosen: ", encoded.chosen_ids, encoded.chosen_length),
        ("rejected: ", encoded.rejected_ids, encoded.rejected_length),
    ]
    prompts = [ids[: len(ids) - length] for _, ids, length in sides]
    is_shared = prompts[0] == prompts[1]
    if is_shared:
        yield "prompt: ", prompts[0], [False] * len(prompts[0])
    for (title, ids, length), prompt in zip(sides, prompts, strict=True):
        start = len(prompt) if is_shared else 0
        yield title, ids[start:], ([False] * len(prompt) + [True] * length)[start:]


def _first(rejects: Rejects) -> str:
    return f"{rejects.rows[0]['origin']}: {rejects.rows[0]['reason']}"
