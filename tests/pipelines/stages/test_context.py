"""What a stage is given: its examples, with the rows that were set aside told and kept."""

import json

import pytest

from pipelines.host.errors import DataError
from pipelines.schema.data import FileData
from pipelines.stages.context import StageContext

pytestmark = pytest.mark.no_backend


@pytest.fixture
def context(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n{"prompt": "c", "completion": "d"}\n'
    )
    output = tmp_path / "out"
    output.mkdir()
    return StageContext("sft", output, {}, 0, "folder", tmp_path)


def test_a_lenient_stage_keeps_and_counts_the_rows_it_sets_aside(context, capsys):
    rows = context.examples(FileData(path="rows.jsonl", on_bad_row="lenient"), "instruction")
    assert [row.completion for row in rows] == ["b", "d"]
    (rejected,) = (json.loads(line) for line in (context.output / "rejected.jsonl").read_text().splitlines())
    assert rejected["origin"].endswith("rows.jsonl:2")
    assert json.loads((context.output / "metrics.jsonl").read_text()) == {"step": 0, "rejected_rows": 1}
    context.examples(FileData(path="rows.jsonl", on_bad_row="lenient"), "prompt")
    (warning,) = context.warnings  # once, though an evaluation reads its rows twice
    assert warning.startswith("1 bad row set aside") and capsys.readouterr().err.count(warning) == 1


def test_a_strict_stage_stops_at_the_row(context):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
        context.examples(FileData(path="rows.jsonl"), "instruction")
    assert not (context.output / "rejected.jsonl").exists()
