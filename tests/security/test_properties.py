"""Properties that hold of whatever is read: workflows, rows, text, weights, and what a run keeps."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemma_keras.checkpoints import safetensors_file
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.text.chat import encode_conversation
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.data.jsonl import read_jsonl
from pipelines.data.rejects import Rejects
from pipelines.host import states
from pipelines.host.errors import ConfigError, DataError
from pipelines.run import results
from pipelines.training.state import StageState
from pipelines.training.state_files import write_state
from pipelines.workflow import yaml_reader

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("properties: YAML, rows, chat, safetensors, manifests")]

FEW, MANY = 100, 2000
HOW_MANY = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
TEXTS = ["user model one two three", "river 2024\n\tred", "héllo 漢字 🙂"]


@pytest.fixture
def check(record_property):
    """Try a property on so many examples, always the same ones."""

    def check(examples, strategy, holds):
        tried = 0

        @settings(
            max_examples=examples, derandomize=True, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy)
        def one(value):
            nonlocal tried
            tried += 1
            holds(value)

        one()
        record_property("cases", tried)
        assert tried >= examples // 2

    return check


# --- YAML

YAML_LETTERS = st.characters(exclude_categories=())  # halves of surrogate pairs too
YAML_BITS = st.sampled_from(
    [": ", "- ", "\n", "\n  ", "{", "}", "[", "]", ",", "&a ", "*a", "!!str ", "'", '"', "|\n ", "#", "? ", "<<: ", "~",
     "1e5", "0x1f", ".inf", "---\n", "%YAML 1.1\n", "\t", "\x85", "\u2028", "\ufeff", "a", "name", "stages"]
)  # fmt: skip
YAML_TEXT = st.one_of(st.lists(YAML_BITS, max_size=30).map("".join), st.text(YAML_LETTERS, max_size=60))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@HOW_MANY
def test_any_text_is_a_workflow_or_refused_at_a_place(check, examples):
    def holds(text):
        try:
            found = yaml_reader.read_text(text, "w.yaml")
        except ConfigError as error:
            file, line, column, message = str(error).split(":", 3)
            assert file == "w.yaml" and message.strip()
            assert 1 <= int(line) <= text.count("\n") + text.count("\r") + 2 and int(column) >= 1
        else:
            assert found.where(()).startswith("w.yaml:")

    check(examples, YAML_TEXT, holds)


@HOW_MANY
def test_any_bytes_of_a_file(check, examples, tmp_path):
    path = tmp_path / "w.yaml"

    def holds(data):
        path.write_bytes(data)
        try:
            yaml_reader.read_file(path)
        except ConfigError as error:
            assert str(error).startswith(f"{path}:")

    check(examples, st.binary(max_size=80), holds)


@HOW_MANY
def test_what_is_dumped_is_read_back(check, examples):
    def holds(value):
        found = yaml_reader.read_text(yaml_reader.dump(value), "w.yaml").value
        assert found == value and json.dumps(found) == json.dumps(value)  # 1 is not True, nor 1.0

    check(examples, PLAIN, holds)


# --- rows

LINES = st.one_of(
    st.binary(max_size=30),
    st.dictionaries(st.text(max_size=5), PLAIN, max_size=3).map(lambda row: json.dumps(row).encode()),
    st.sampled_from([b"", b"  ", b"[", b'{"a": 1', b'{"a": NaN}', b'{"a": 1, "a": 2}', b'"\\ud800"',
                     b'{"a": "\\ud800"}', b"\xef\xbb\xbf{}", b"[" * 3000, b'{"a": 1e999}', b"1", b"null"]),
)  # fmt: skip


@HOW_MANY
def test_every_line_is_a_row_or_set_aside(check, examples, tmp_path):
    path = tmp_path / "rows.jsonl"

    def holds(lines):
        data = b"\n".join(lines)
        path.write_bytes(data)
        first, *others = data.split(b"\n")
        wanted = [line for line in (first.removeprefix(b"\xef\xbb\xbf"), *others) if line.strip()]
        rejects = Rejects("lenient")
        rows = list(read_jsonl(path, rejects))
        assert len(rows) + rejects.count == len(wanted)
        assert all(json.loads(json.dumps(row.values)) == row.values for row in rows)
        try:
            assert len(list(read_jsonl(path))) == len(wanted) and rejects.count == 0
        except DataError as error:
            assert rejects.count and str(error) == "{origin}: {reason}".format(**rejects.rows[0])
            assert rejects.rows[0]["origin"].startswith(f"{path}:")

    check(examples, st.lists(LINES, max_size=6), holds)


# --- text and turns

CONTROLS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\u2581")
TEXT = st.lists(
    st.text(LETTERS, max_size=12) | st.sampled_from([*CONTROLS, "<0x09>", "\n", "\u00a0", "<", ">"]), max_size=6
)


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(TEXTS * 9, 320, "gemma3")


@HOW_MANY
def test_text_comes_back_and_holds_no_control_id(check, examples, tokenizer):
    def holds(parts):
        text = "".join(parts)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and not tokenizer.control_ids & set(ids)

    check(examples, TEXT, holds)


@HOW_MANY
def test_turns_open_and_end_where_the_roles_say(check, examples, tokenizer):
    """As many marks as turns, whatever is written in them, and each turn's text comes back."""
    start, end = tokenizer.start_of_turn_id, tokenizer.end_of_turn_id

    def holds(turns):
        contents = ["".join(parts) for parts in turns]
        messages = [{"role": ("user", "model")[i % 2], "content": text} for i, text in enumerate(contents)]
        encoded = encode_conversation(tokenizer, messages)
        ids = encoded.token_ids
        assert ids.count(start) == ids.count(end) == len(turns) and ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.control_ids & set(ids) == {start, end, tokenizer.bos_token_id}
        expected = "".join(f"{('user', 'model')[i % 2]}\n{text.strip()}\n" for i, text in enumerate(contents))
        assert tokenizer.decode(ids) == expected
        targets = [i for i, is_target in zip(ids, encoded.is_target, strict=True) if is_target]
        assert tokenizer.decode(targets) == "".join(text.strip() for text in contents[1::2])

    check(examples, st.lists(TEXT, min_size=1, max_size=4), holds)


# --- damaged bytes

CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "remove", "cut"]), st.floats(0, 1), st.integers(0, 255)),
    min_size=1, max_size=4,
)  # fmt: skip


def changed(data, changes):
    """`data` with bytes set, put in, taken out or cut off, each at a share of its length."""
    data = bytearray(data)
    for kind, share, byte in changes:
        place = min(int(share * len(data)), max(0, len(data) - 1))
        if kind == "insert":
            data[place:place] = bytes([byte])
        elif kind == "cut":
            del data[len(data) - byte % (len(data) + 1) :]
        elif data:
            data[place : place + 1] = bytes([byte]) if kind == "set" else b""
    return bytes(data)


ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2], np.int32)}


@HOW_MANY
def test_weights_are_as_they_were_or_refused(check, examples, tmp_path):
    """Of a header whose bytes changed; a change of the arrays' own bytes is no damage that a header could show."""
    file = tmp_path / "model.safetensors"
    shapes = {name: array.shape for name, array in ARRAYS.items()}
    dtypes = {name: array.dtype for name, array in ARRAYS.items()}
    with safetensors_file.SafetensorsWriter(file, shapes, "float32", dtypes=dtypes) as writer:
        for name, array in ARRAYS.items():
            writer.write(name, array)
    whole = file.read_bytes()
    size = len(whole) - sum(array.nbytes for array in ARRAYS.values())

    def holds(changes):
        file.write_bytes(changed(whole[:size], changes) + whole[size:])
        try:
            entries = safetensors_file.read_header(file)
            read = {name: safetensors_file.read_tensor(entry) for name, entry in entries.items()}
        except CheckpointError as error:
            assert str(file) in str(error) and "\n" not in str(error) and len(str(error)) < 900
        else:
            assert sum(array.nbytes for array in read.values()) == len(whole) - size
            for name in read.keys() & ARRAYS.keys():
                if read[name].dtype == ARRAYS[name].dtype and read[name].shape == ARRAYS[name].shape:
                    np.testing.assert_array_equal(read[name], ARRAYS[name])
            safetensors_file.read_metadata(file)

    check(examples, CHANGES, holds)


@HOW_MANY
@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors"])
def test_a_damaged_state_is_named_and_the_older_one_taken(check, examples, tmp_path, name):
    for step in (1, 2):
        folder = tmp_path / "state" / str(step)
        folder.mkdir(parents=True)
        record = {"training": {"step": step, "losses": [0.5, float("nan")]}, "warnings": [], "lengths": {}}
        about = {"key": "k", "step": step, "done": step, "of": 3, "unit": "updates", "seconds": 1.5}
        write_state(folder, {"training/w": ARRAYS["a"] + step}, {**about, "record": record, "logs": {}})
    file = tmp_path / "state" / "2" / name
    whole = file.read_bytes()

    def holds(changes):
        new = changed(whole, changes)
        file.write_bytes(new)
        said = []
        saved = StageState(tmp_path, "k", {}, warn=said.append).resume([])
        is_newest = not said
        assert saved.record["step"] == (2 if is_newest else 1)
        np.testing.assert_array_equal(saved.arrays["w"], ARRAYS["a"] + saved.record["step"])
        assert not is_newest or new == whole or json.dumps(json.loads(new)) == json.dumps(json.loads(whole))
        assert is_newest or said[0].startswith("the state state/2 is damaged: ")
        states.how_far(tmp_path)

    check(examples if name == "manifest.json" else examples // 4, CHANGES, holds)


@HOW_MANY
@pytest.mark.parametrize("name", ["files.json", "final.json", "stage.json"])
def test_damage_of_a_finished_stage_is_named(check, examples, tmp_path, name):
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "final.json").write_text(json.dumps({"loss": 0.5}))
    (folder / "stage.json").write_text(json.dumps({"key": "k", "seconds": 1.5}))
    results.record_files(folder)
    file = folder / name
    whole = file.read_bytes()

    def holds(changes):
        new = changed(whole, changes)
        file.write_bytes(new)
        found = results.damage(folder, with_digests=True)
        results.read_about(folder)
        assert found is None or any(part in found for part in ("files.json", name, "is missing", "bytes", "contents"))
        if name != "files.json":
            assert (found is None) == (new == whole)
        elif found is None:  # still the list of these files, or of fewer
            assert {*json.loads(new)} <= {"final.json", "stage.json"}

    check(examples, CHANGES, holds)
