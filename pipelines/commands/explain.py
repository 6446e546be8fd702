"""The command `explain`: what the kinds of stages, the algorithms and the keys are, from the code itself."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from pipelines.commands import key_search
from pipelines.commands.key_search import Found
from pipelines.host.errors import ConfigError
from pipelines.host.paths import documentation
from pipelines.stages.registry import algorithms
from pipelines.workflow.key_pages import algorithm_page, choice_page, key_section, kind_page, loop_page, plain
from pipelines.workflow.key_table import kind_blocks
from pipelines.workflow.schema import REPEAT

USAGE = """\
Further: `gemma-keras explain KIND`, `gemma-keras explain ALGORITHM`, and of a key `gemma-keras explain learning_rate`,
`lora.rank`, `KIND.learning_rate` or `stages.NAME.learning_rate`; with a workflow before it, `gemma-keras explain FILE
learning_rate`, also the values there and where they stand.
"""


def explain(options: argparse.Namespace) -> int:
    """`explain [FILE] [WORD]`: the kinds and algorithms; one of them with all its keys; or a key.

    Raises:
        ConfigError: nothing is called that, or a stage that the file does not have.
    """
    words = options.words
    if len(words) > 2:
        raise ConfigError(f"explain {' '.join(words)}: expected a word, or a workflow file and a word")
    if not words:
        _print(_overview())
    elif len(words) == 2:
        _print(_in_file(Path(words[0]), words[1]))
    elif Path(words[0]).suffix in (".yaml", ".yml"):
        raise ConfigError(f"{words[0]}: which key of it? E.g. gemma-keras explain {words[0]} learning_rate")
    else:
        _print(_page(words[0]) or _keys(key_search.find(words[0])))
    return 0


def _overview() -> str:
    kinds = [f"- `{kind}`: {block.meaning.partition('. ')[0].rstrip('.')}\n" for kind, block in kind_blocks().items()]
    methods = [f"- `{name}`, of `{kind}`: {method.summary}\n" for name, (kind, method) in algorithms().items()]
    return "\n".join(["## Kinds of stages\n", "".join(kinds), "## Algorithms\n", "".join(methods),
                      f"Stages are repeated by `kind: {REPEAT}`.\n", USAGE])  # fmt: skip


def _page(name: str) -> str | None:
    """The page of a kind, an algorithm or another name with options of its own; None of anything else."""
    if name in algorithms():
        return algorithm_page(name, _read(algorithms()[name][1].page))
    if name in kind_blocks():
        return "\n".join(filter(None, [_read(f"docs/algorithms/{name}.md"), kind_page(name)]))
    return loop_page() if name == REPEAT else choice_page(name) or None


def _read(page: str) -> str | None:
    path = documentation(page)
    return None if path is None else path.read_text(encoding="utf-8")


def _in_file(file: Path, word: str) -> str:
    document = key_search.read(file)
    page = _page(key_search.named_kind(word, document) or word)
    if page is not None:
        return page
    found = key_search.fitting(key_search.find(word, document), document)
    lines = key_search.values(found, document)
    return _keys(found) + "".join(["\n", *(lines or [f"- {file}: no stage there has it\n"])])


def _keys(found: list[Found]) -> str:
    """A section for each key that is meant; where kinds have the same one, one for them all."""
    alike: dict[str, tuple[Found, list[str]]] = {}
    for one in found:
        alike.setdefault(key_section(one.key, one.block, ()), (one, []))[1].append(one.owner)
    return "\n".join(key_section(one.key, one.block, owners) for one, owners in alike.values())


def _print(page: str) -> None:
    """Rendered on a terminal; as it is for a pipe or a file."""
    if not sys.stdout.isatty():
        print(plain(page), end="", flush=True)
        return
    from rich.markdown import Markdown

    Console().print(Markdown(page))
