"""Keys in words, of settings that no kind has: unions by name, lists of blocks, blocks in blocks."""

from collections.abc import Iterator
from typing import Annotated, Literal

import pytest
from pydantic import Field

from pipelines.schema.base import Settings
from pipelines.schema.roles import Names
from pipelines.stages.registry import KINDS
from pipelines.workflow import json_schema, key_pages, key_table
from pipelines.workflow.key_table import Block, Key, kind_blocks, own_keys

pytestmark = pytest.mark.no_backend


class Near(Settings):
    """Stays near. A second sentence.

    A second paragraph, which nobody is shown.
    """

    name: Literal["near"]
    radius: float = Field(0.28, gt=0, lt=1e9, description="How far.")
    rows: list[Annotated[int, Field(ge=2)]] | None = Field(
        None, min_length=3, max_length=3, description="Which | rows."
    )


class Far(Settings):
    """Goes far."""

    name: Literal["far"]
    near: Near = Field(Near(name="near"), description="Not too far.")


class Still(Settings):
    """Has no options."""

    name: Literal["still"] = "still"


class Part(Settings):
    """A part."""

    weight: float | int = Field(2e-7, description="Its share.")
    source: Annotated[str, Names("reward")] = Field(description="Where <it> comes from, `a < b`.")


class Made(Settings):
    """Made for this test."""

    kind: Literal["made"]
    way: Literal["short", "near", "long"] | Annotated[Near | Far | Still, Field(discriminator="name")] = Field(
        "short", description="How."
    )
    parts: list[Part] = Field(min_length=1, description="Its parts.")
    start: Annotated[str | None, Names("policy")] = Field(None, alias="from", description="Whence.")
    flag: bool = Field(False, description="Whether.")
    tags: list[str] = Field(description="Words.")


@pytest.fixture
def made(monkeypatch) -> Block:
    """`Made` as a block."""
    schema = json_schema._tidy(Made.model_json_schema())
    monkeypatch.setattr(key_table, "workflow_schema", lambda: schema)
    return key_table._block(schema, (), "")


def by_path(block: Block) -> Iterator[tuple[str, Key]]:
    for inner, key in block.all_keys():
        yield f"{inner.title}>{'.'.join(key.path)}", key


def test_types_defaults_and_ranges_in_words(made):
    found = {path: (key.type, key.default, key.range) for path, key in by_path(made)}
    assert found == {
        ">kind": ("`made`", "needed", ""),
        ">way": ("`short`, `near`, `long`, `{name: …}`, `{name: far}` or `{name: still}`", "short", ""),
        "way: {name: near}>way.name": ("`near`", "needed", ""),
        "way: {name: near}>way.radius": ("number", "0.28", "over 0, under 1000000000"),
        "way: {name: near}>way.rows": ("list of whole numbers", "", "3 items, at least 2"),
        "way: {name: far}>way.name": ("`far`", "needed", ""),
        "way: {name: far}>way.near": ("`{name: near}`", "{name: near, radius: 0.28}", ""),
        "way.near: {name: near}>way.near.name": ("`near`", "needed", ""),
        "way.near: {name: near}>way.near.radius": ("number", "0.28", "over 0, under 1000000000"),
        "way.near: {name: near}>way.near.rows": ("list of whole numbers", "", "3 items, at least 2"),
        ">parts": ("list of `{source: …}`", "needed", "1 or more items"),
        "parts: - {source: …}>parts.weight": ("number or whole number", "2e-07", ""),
        "parts: - {source: …}>parts.source": ("text", "needed", ""),
        ">from": ("text", "", ""),
        ">flag": ("true or false", "false", ""),
        ">tags": ("list of texts", "needed", ""),
    }


def test_meanings_roles_and_what_tells_a_block_from_others(made):
    keys = dict(by_path(made))
    assert keys[">from"].roles == ("policy",) and keys[">parts"].roles == ()
    assert keys["parts: - {source: …}>parts.source"].roles == ("reward",)
    blocks = {block.title: block for block in made.all_blocks()}
    assert {title: dict(block.fixed) for title, block in blocks.items()} == {
        "way: {name: near}": {"name": "near"}, "way: {name: far}": {"name": "far"},
        "way.near: {name: near}": {"name": "near"}, "parts: - {source: …}": {},
    }  # fmt: skip
    assert blocks["way: {name: near}"].meaning == "Stays near. A second sentence."


def test_a_table_can_be_read_as_it_is_and_escapes_what_markdown_would_take(made):
    blocks = {block.title: block for block in made.all_blocks()}
    assert key_pages._section("### part", blocks["parts: - {source: …}"], ["A fact."]) == (
        "### part\n\nA part.\n\nA fact.\n\n"
        "| key      | takes                                 | meaning |\n"
        "| -------- | ------------------------------------- | --- |\n"
        "| `weight` | number or whole number; default 2e-07 | Its share. |\n"
        "| `source` | text; needed                          | Where \\<it> comes from, `a < b`. |\n"
    )
    near = key_pages._section("### near", blocks["way: {name: near}"], ())
    assert (
        "| number, over 0, under 1000000000; default 0.28 " in near and "| list of whole numbers, 3 items, at" in near
    )
    assert "Which \\| rows." in near and "Which | rows." in key_pages.plain(near)
    assert key_pages.plain("<!-- keys -->\na\n<!-- /keys -->\n\n\n") == "a\n"


def test_an_algorithm_has_its_kind_s_own_keys_and_its_block(made, monkeypatch):
    class Method:
        summary = "near by near"
        page = "docs/algorithms/near.md"
        metrics = {"steps": "how many"}

    class Other(Method):
        page = "docs/algorithms/far.md"

    monkeypatch.setattr(key_pages, "algorithms", lambda: {"far": ("made", Other), "near": ("made", Method)})
    monkeypatch.setattr(key_pages, "kind_blocks", lambda: {"made": made})
    monkeypatch.setattr(key_pages, "own_keys", lambda kind: made.keys[1:])
    keys = key_pages.page_keys(Method.page)
    assert keys.startswith("Of `kind: made`; ") and "| `way` " in keys and "| `kind` " not in keys
    assert "### `way: {name: near}`\n\nStays near." in keys and "way: {name: far}`\n" not in keys
    page = "# near\n\n<!-- keys -->\nold\n<!-- /keys -->\n\nSources\n"
    filled = key_pages.with_keys(page, Method.page)
    assert filled == f"# near\n\n<!-- keys -->\n{keys}<!-- /keys -->\n\nSources\n"
    assert key_pages.with_keys(filled, Method.page) == filled
    assert key_pages.with_keys("# near\n", Method.page) == "# near\n"
    monkeypatch.setattr(key_pages, "algorithms", lambda: {"far": ("made", Method), "near": ("made", Method)})
    both = key_pages.page_keys(Method.page)
    assert "### `way: {name: near}`\n" in both and "### `way: {name: far}`\n" in both, "of a page that they share"
    monkeypatch.setattr(key_pages, "algorithms", lambda: {"near": ("made", Method)})
    assert key_pages.algorithm_page("near", None) == (
        f"# near\n\nNear by near.\n\n## Keys\n\n{keys}\n## Metrics\n\n- `steps`: how many\n"
    )


def test_a_kind_s_own_keys_stand_before_those_it_shares():
    for kind, config in KINDS.items():
        names = [key.name for key in kind_blocks()[kind].keys]
        assert sorted(names) == sorted(field.alias or name for name, field in config.model_fields.items())
        assert names[0] == "kind"
        assert names[1 : 1 + len(own_keys(kind))] == [key.name for key in own_keys(kind)]
    assert [key.name for key in own_keys("pretraining")] == ["data"]
    names = [key.name for key in kind_blocks()["pretraining"].keys]
    assert names.index("epochs") < names.index("learning_rate") < names.index("from") < names.index("backend")
