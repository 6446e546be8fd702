"""The keys of a workflow as pages: Markdown that `explain` prints and `docs/keys.py` writes, the same text in both."""

from collections.abc import Iterable, Sequence

from pipelines.schema.roles import ROLES
from pipelines.stages.registry import KINDS, algorithms
from pipelines.workflow.json_schema import FILE
from pipelines.workflow.key_table import NEEDED, Block, Key, kind_blocks, loop_block, own_keys, workflow_block
from pipelines.workflow.schema import REPEAT

START, END = "<!-- keys -->", "<!-- /keys -->"
"""What stands between these in an algorithm's page is made here."""

_WIDEST = 60  # what a column is padded to at most; a longer cell moves what follows it
_COLUMNS = ("key", "takes", "meaning")  # three, as more are cut on a terminal of 80 columns
_PREFACE = f"""\
# The keys of a workflow

Made from the code (`python docs/keys.py` writes this page). `gemma-keras explain KIND` prints what stands here of a
kind of stage, `gemma-keras explain lora.rank` of a key, `gemma-keras explain FILE stages.NAME.KEY` also its value in a
workflow and where it stands.

`gemma-keras schema` prints all of it as a JSON schema, from which an editor with a YAML language server completes and
explains. The shipped workflows name it in their first line, and `gemma-keras copy` puts `{FILE}` beside what it
copies; in a workflow of your own that line does the same. What `validate` checks beyond types and ranges, such as names
of stages, no schema says.

A key without a default may be left out; what that means is said with its meaning.
"""

_LOOPS = """\
    loop: {kind: repeat, times: 2, from: sft, stages: {pairs: {...}, dpo: {...}}}

becomes the stages `loop_1_pairs`, `loop_1_dpo`, `loop_2_pairs`, `loop_2_dpo`. A round starts from the last model of the
one before, the first one from `from`: that is the `from` of each stage in it that has none. Within the loop its stages
are called as they are written and mean those of the same round. Outside, `loop` is the last model of the last round,
and every other stage has its whole name."""


def keys_page() -> str:
    """All keys: of the workflow, of each kind, and of the blocks that stand in them, each once."""
    workflow, kinds = workflow_block(), kind_blocks()
    parts = [_PREFACE, _section("## The workflow", workflow, ())]
    parts += [_kind_section(kind) for kind in kinds]
    parts.append(loop_page())
    parts.append("## Blocks\n\nWhat may stand in a key that takes a mapping, or a list of mappings.\n")
    return "\n".join(parts + _block_sections([workflow, *kinds.values()]))


def loop_page() -> str:
    """Stages that are repeated."""
    return _section(f"## Loops: `kind: {REPEAT}`", loop_block(), [_LOOPS])


def kind_page(kind: str) -> str:
    """A kind with all its keys, those in blocks too."""
    return "\n".join([_kind_section(kind), *_block_sections([kind_blocks()[kind]])])


def page_keys(page: str) -> str:
    """The keys that go with the algorithms of a page: their kind's own, and what each alone has.

    Args:
        page: as they name it, from the root of the repository; several may share one.
    """
    names = [name for name, (_, algorithm) in algorithms().items() if algorithm.page == page]
    kind, _ = algorithms()[names[0]]
    own = [block for block in kind_blocks()[kind].all_blocks() if set(block.fixed.values()) & set(names)]
    shared = "the rest, which it shares with other kinds, and the blocks: [workflow_keys.md](../workflow_keys.md)"
    parts = [f"Of `kind: {kind}`; {shared}.\n", _table(own_keys(kind))]
    return "\n".join(parts + [_section(f"### `{block.title}`", block, ()) for block in own])


def algorithm_page(name: str, text: str | None) -> str:
    """What there is to say of an algorithm.

    Args:
        text: of its page, whose keys are made anew; None where it has none, and what its class says must do.
    """
    _, algorithm = algorithms()[name]
    if text is not None:
        return with_keys(text, algorithm.page)
    metrics = [f"- `{metric}`: {meaning}\n" for metric, meaning in algorithm.metrics.items()]
    return "\n".join([f"# {name}\n", f"{algorithm.summary[:1].upper()}{algorithm.summary[1:]}.\n", "## Keys\n",
                      page_keys(algorithm.page), "## Metrics\n", "".join(metrics)])  # fmt: skip


def with_keys(text: str, page: str) -> str:
    """A page's text with the keys as they are now between the marks; as it is where it has no marks."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{START}\n{page_keys(page)}{END}{after}" if start and end else text


def choice_page(name: str) -> str:
    """The blocks that a name tells from others in their place, `loss: {name: NAME}`; "" where it is no such name."""
    titles: dict[str, tuple[Block, list[str]]] = {}
    for kind, block in kind_blocks().items():
        for below in block.all_blocks():
            if name in below.fixed.values():
                titles.setdefault(below.title, (below, []))[1].append(f"`{kind}`")
    sections = [
        _section(f"## `{title}`", block, [f"Of {', '.join(kinds)}."]) for title, (block, kinds) in titles.items()
    ]
    return "\n".join(sections)


def key_section(key: Key, block: Block, owners: Sequence[str]) -> str:
    """One key.

    Args:
        block: what it stands in. owners: kinds whose stages have it, "" for the workflow itself.
    """
    kinds = ", ".join(f"`{kind}`" if kind else "the workflow" for kind in owners)
    facts = {
        "in": f"`{block.title}` of {kinds}" if block.title else kinds, "type": key.type, "default": key.default,
        "range": key.range,
    }  # fmt: skip
    lines = [f"- {name}: {_escaped(text)}\n" for name, text in facts.items() if text]
    parts = [f"## `{'.'.join(key.path)}`\n", f"{_escaped(key.meaning)}\n" if key.meaning else "", "".join(lines)]
    parts += [_section(f"### `{below.title}`", below, ()) for below in key.blocks]
    return "\n".join(part for part in parts if part)


def _kind_section(kind: str) -> str:
    block = kind_blocks()[kind]
    reads = [f"{_role(role)} (`{key.name}`)" for key in block.keys for role in key.roles]
    product = KINDS[kind].produces
    facts = [f"Reads: {', '.join(reads)}."] if reads else []
    facts.append(f"Leaves for other stages: {product.replace('_', ' ') if product else 'nothing'}.")
    return _section(f"## `{kind}`", block, facts)


def _role(name: str) -> str:
    role = ROLES[name]
    return (role.product or "any stage").replace("_", " ") + (" or a function" if role.functions else "")


def _block_sections(blocks: Iterable[Block]) -> list[str]:
    sections = (_section(f"### `{below.title}`", below, ()) for block in blocks for below in block.all_blocks())
    return list(dict.fromkeys(sections))


def _section(heading: str, block: Block, facts: Sequence[str]) -> str:
    texts = [heading, _escaped(block.meaning), *facts]
    return "".join(f"{text}\n\n" for text in texts if text) + _table(block.keys)


def _table(keys: Iterable[Key]) -> str:
    """A table of keys; its columns but the last are padded, so that it can be read as it is."""
    rows = [[f"`{key.name}`", _escaped(_takes(key)), _escaped(key.meaning)] for key in keys]
    cells = [[row[place] for row in [_COLUMNS, *rows]] for place in range(len(_COLUMNS) - 1)]
    widths = [max(len(cell) for cell in column if len(cell) <= _WIDEST) for column in cells]
    ruler = ["-" * width for width in widths] + ["---"]
    return "".join(
        f"| {' | '.join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]])} |\n"
        for row in [_COLUMNS, ruler, *rows]
    )


def _takes(key: Key) -> str:
    values = f"{key.type}, {key.range}" if key.range else key.type
    default = f"default {key.default}" if key.default not in ("", NEEDED) else key.default
    return f"{values}; {default}" if default else values


def _escaped(text: str) -> str:
    """A text in which Markdown sees neither the end of a cell nor a tag, which it does not look for in `code`."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if place % 2 else part.replace("<", "\\<") for place, part in enumerate(parts))


def plain(page: str) -> str:
    """A page for readers of plain text: without comments, and nothing escaped."""
    lines = [line for line in page.splitlines() if not line.startswith("<!--")]
    return "\n".join(lines).replace("\\|", "|").replace("\\<", "<").rstrip() + "\n"
