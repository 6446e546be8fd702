"""Where rows come from: files, folders, tables through datasets, the built-in task, a stage, and what happens where
there is nothing."""

import json
import subprocess
import sys

import pytest

from pipelines.data.examples import load_examples
from pipelines.data.sources import load_rows
from pipelines.host.errors import ConfigError, DataError
from pipelines.schema.data import FileData, TaskData
from pipelines.tasks import task
from pipelines.tasks.items import TaskItem

pytestmark = pytest.mark.no_backend


def data(spec):
    return (TaskData if "task" in spec else FileData).model_validate(spec)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_relative_path_limit_and_origin(tmp_path):
    write(tmp_path / "a.jsonl", [{"text": str(i)} for i in range(5)])
    rows = load_rows(data({"path": "a.jsonl", "limit": 2}), tmp_path)
    assert [(row.values["text"], row.origin) for row in rows] == [
        ("0", f"{tmp_path}/a.jsonl:1"),
        ("1", f"{tmp_path}/a.jsonl:2"),
    ]


def test_folder_of_json_lines(tmp_path):
    write(tmp_path / "d" / "train-1.jsonl", [{"text": "a"}, {"text": "b"}])
    write(tmp_path / "d" / "train-2.jsonl", [{"text": "c"}])
    write(tmp_path / "d" / "test.jsonl", [{"text": "d"}])
    assert [row.values["text"] for row in load_rows(data({"path": "d", "split": "train"}), tmp_path)] == ["a", "b", "c"]
    assert [row.values["text"] for row in load_rows(data({"path": "d", "split": "train[1:]"}), tmp_path)] == ["b", "c"]
    assert len(load_rows(data({"path": "d"}), tmp_path)) == 4
    with pytest.raises(DataError, match="whose name starts with 'valid'"):
        load_rows(data({"path": "d", "split": "valid"}), tmp_path)
    with pytest.raises(ConfigError, match=r"train\[:1000\], got 'train\[x\]'"):
        load_rows(data({"path": "d", "split": "train[x]"}), tmp_path)


def test_parquet_and_saved_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = datasets.Dataset.from_dict({"prompt": ["p", "q"], "completion": ["c", ""]})
    table.to_parquet(tmp_path / "t.parquet")
    table.save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    table.to_parquet(tmp_path / "folder" / "train.parquet")
    for spec in ({"path": "t.parquet"}, {"path": "saved"}, {"path": "folder", "split": "train"}):
        assert [row.values for row in load_rows(data(spec), tmp_path)] == [
            {"prompt": "p", "completion": "c"},
            {"prompt": "q", "completion": ""},
        ]
        with pytest.raises(DataError, match=r":2: column 'completion': the text is empty"):
            load_examples(data(spec), "instruction", tmp_path)
        assert len(load_examples(data({**spec, "on_bad_row": "lenient"}), "instruction", tmp_path)) == 1
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut\.parquet:1: cannot be loaded"):
        load_rows(data({"path": "cut.parquet"}), tmp_path)


def test_hub_id_goes_to_datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(path, config, split, revision):
        calls.append((path, config, split, revision))
        return datasets.Dataset.from_dict({"text": ["a"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = load_rows(data({"path": "openai/gsm8k", "config": "main", "split": "train", "revision": "abc"}), tmp_path)
    assert calls == [("openai/gsm8k", "main", "train", "abc")]
    assert rows[0].origin == "openai/gsm8k/train:1"
    assert load_rows(data({"path": "openai/gsm8k@v2"}), tmp_path)[0].origin == "openai/gsm8k/train:1"
    load_rows(data({"path": "imdb@refs/convert/parquet"}), tmp_path)
    assert calls[1:] == [("openai/gsm8k", None, None, "v2"), ("imdb", None, None, "refs/convert/parquet")]

    def fail(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="openai/gsm8k:1: cannot be loaded: no network at all. Check the name"):
        load_rows(data({"path": "openai/gsm8k"}), tmp_path)


def test_task_rows_carry_their_items(tmp_path):
    rows = load_rows(data({"task": "small_world", "split": "rl", "size": 3}), tmp_path, seed=4)
    assert [row.origin for row in rows] == ["small_world/rl:1", "small_world/rl:2", "small_world/rl:3"]
    prompts = load_examples(data({"task": "small_world", "split": "rl", "size": 3}), "prompt", tmp_path, seed=4)
    assert all(
        isinstance(p.item, TaskItem) and p.prompt == p.item.prompt and p.answer == p.item.answer for p in prompts
    )
    taught = load_examples(data({"task": "small_world", "split": "sft", "size": 3}), "instruction", tmp_path, seed=4)
    items = task("small_world").prompts("sft", 3, 4)
    assert [(one.completion, one.content) for one in taught] == [(item.demonstration, item.content) for item in items]
    assert len(load_examples(data({"task": "small_world", "split": "pretraining", "size": 3}), "text", tmp_path)) == 3


def test_stage_rows(tmp_path):
    row = {
        "prompt": "p",
        "chosen": "a",
        "rejected": "b",
        "prompt_ids": [2, 5],
        "chosen_ids": [6, 1],
        "rejected_ids": [7, 1],
        "probability": 0.8,
    }
    write(tmp_path / "stage" / "preferences.jsonl", [row])
    (pair,) = load_examples("prefs", "preference", tmp_path, {"prefs": tmp_path / "stage"})
    assert (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids, pair.probability) == ([2, 5], [6, 1], [7, 1], 0.8)
    with pytest.raises(ConfigError, match="'other' is no earlier stage. Stages at hand: prefs"):
        load_rows("other", tmp_path, {"prefs": tmp_path / "stage"})
    with pytest.raises(DataError, match="left no preferences"):
        load_rows("empty", tmp_path, {"empty": tmp_path})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"path": "none.jsonl"}, "none.jsonl:1: no such file or folder. Paths are relative"),
        ({"path": "../x/y/none"}, "no such file or folder"),
        ({"path": "a.txt"}, "unknown kind of file '.txt'"),
    ],
)
def test_missing_or_unknown_files(tmp_path, spec, message):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=message) as caught:
        load_rows(data(spec), tmp_path)
    assert caught.value.exit_code == 65


def chosen(folder, **spec):
    return [row.values["text"] for row in load_rows(data({"path": "a.jsonl", **spec}), folder)]


def test_parts_of_one_file_are_disjoint(tmp_path):
    """`shuffle`, then `rows`, then `limit`; the order does not depend on the run's seed."""
    texts = [f"text {i}" for i in range(50)]
    write(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    assert chosen(tmp_path, rows=[10, 13]) == texts[10:13]
    assert chosen(tmp_path, rows=[10, 50], limit=2) == texts[10:12]
    shuffled = chosen(tmp_path, shuffle=3)
    assert shuffled != texts and sorted(shuffled) == sorted(texts)
    first, second = (chosen(tmp_path, shuffle=3, rows=rows) for rows in ([0, 20], [20, 50]))
    assert first + second == shuffled
    assert chosen(tmp_path, shuffle=3, rows=[5, 20], limit=4) == shuffled[5:9]
    assert chosen(tmp_path, shuffle=4) != shuffled
    with pytest.raises(DataError, match=r"a.jsonl:1: `rows: \[40, 51\]` ends behind its 50 rows"):
        chosen(tmp_path, rows=[40, 51])


def test_split_of_a_file_is_refused(tmp_path):
    write(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(ConfigError, match="a.jsonl is a file. Remove them"):
        load_rows(data({"path": "a.jsonl", "split": "train"}), tmp_path)


def test_reading_lines_imports_neither_keras_nor_datasets():
    heavy = "any(m in sys.modules for m in ('keras', 'datasets'))"
    code = f"import sys, pipelines.data.examples, pipelines.data.batches; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
