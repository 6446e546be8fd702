"""What a stage is given: its examples, with the rows that were set aside told and kept, and where a model lies."""

import dataclasses
import json

import pytest

from pipelines.host.errors import ConfigError, DataError
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


def test_a_model_is_a_path_where_there_is_one_and_else_a_name(context, tmp_path):
    named = dataclasses.replace(context, model="google/gemma-3-270m", inputs={"sft": tmp_path / "sft"})
    assert named.model_source(None) == "google/gemma-3-270m"
    assert named.model_source("sft") == named.model_source("reward_model:sft") == tmp_path / "sft" / "model"
    (tmp_path / "folder" / "model").mkdir(parents=True)
    assert context.model_source(None) == tmp_path / "folder"  # what is wrong with it, its reader says
    (tmp_path / "folder" / "model" / "config.json").write_text("{}")
    (tmp_path / "folder" / "model" / "model.safetensors").touch()
    assert context.model_source(None) == context.model_source("folder") == tmp_path / "folder" / "model"
    with pytest.raises(ConfigError, match="'nowhere' is neither an earlier stage nor a folder with a model"):
        context.model_source("nowhere")
    with pytest.raises(ConfigError, match="needs weights to start from"):
        dataclasses.replace(context, model=None).model_source(None)


def test_a_quiet_stage_shows_no_progress_and_no_warning(context, capsys):
    for quiet in (False, True):
        one = dataclasses.replace(context, quiet=quiet, warnings=[])
        one.warn("Look here.")
        assert one.warnings == ["Look here."] and one.progress(3, "training").quiet == quiet
        assert ("Look here." in capsys.readouterr().err) != quiet
