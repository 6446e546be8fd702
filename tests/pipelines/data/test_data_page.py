"""The page on data is true: each row in it is read as what it says there and as nothing else, or refused as it says."""

import re
import typing

import pytest

from pipelines.data.examples import load_examples
from pipelines.host.errors import DataError
from pipelines.schema.base import StageConfig, Use
from pipelines.schema.data import FileData
from pipelines.stages.registry import KINDS

pytestmark = pytest.mark.no_backend
BLOCK = re.compile(r"^```json\n(.+)\n```\n\n(?:Read as: (.+)\.|As (\w+): (.+))$", re.MULTILINE)


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs/data.md").read_text(encoding="utf-8")


def read(tmp_path, row, use):
    (tmp_path / "rows.jsonl").write_text(row + "\n")
    return load_examples(FileData(path="rows.jsonl"), use, tmp_path)


def test_every_row_is_read_as_the_page_says(page, tmp_path):
    blocks = BLOCK.findall(page)
    assert len(blocks) == page.count("```json") == 18
    for row, uses, refused_use, reason in blocks:
        named = uses.split(", ") if uses else []
        assert set(named) <= set(typing.get_args(Use))
        for use in typing.get_args(Use):
            if use in named:
                assert len(read(tmp_path, row, use)) == 1
            else:
                with pytest.raises(DataError, match=r"rows\.jsonl:1: ") as caught:
                    read(tmp_path, row, use)
                if use == refused_use:
                    assert str(caught.value).startswith(f"{tmp_path}/rows.jsonl:1: {reason}"), row


def test_every_kind_that_reads_rows_stands_in_the_table(page):
    table = dict(re.findall(r"^\| (\w+) \| (`.+) \|$", page, re.MULTILINE))
    assert set(table) == set(typing.get_args(Use))
    for kind, config in KINDS.items():
        if config.reads is StageConfig.reads:  # questions of others, which `tasks/benchmarks` reads
            continue
        assert any(f"`{kind}`" in kinds for kinds in table.values()), kind
