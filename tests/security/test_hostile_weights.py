"""Model files made to hurt: nothing is executed, nothing large is allocated, and the one line of the error says which
file and why."""

import json
import os
import pickle
import random
import struct
import tracemalloc

import numpy as np
import pytest

from gemma_keras.checkpoints import gguf_reader as checkpoints_gguf
from gemma_keras.checkpoints import hugging_face_reader, hugging_face_writer, names, safetensors_file
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.formats import recognize
from gemma_keras.config import GemmaConfig

pytestmark = [pytest.mark.no_backend, pytest.mark.fault("hostile files and settings")]

CONFIG = GemmaConfig(
    vocabulary_size=8,
    num_layers=1,
    num_query_heads=2,
    num_key_value_heads=1,
    head_dim=2,
    hidden_dim=4,
    intermediate_dim=4,
)
MEBIBYTE = 2**20


@pytest.fixture
def folder(tmp_path):
    """A sound folder, to be damaged."""
    hugging_face_writer.write_config(tmp_path, CONFIG, "float32")
    shapes = names.expected_shapes(CONFIG)
    hugging_face_writer.write_weights(tmp_path, [(name, np.ones(shape, np.float32)) for name, shape in shapes.items()])
    return tmp_path


def refused(read, *arguments) -> str:
    """The error's text, after checking that it is one line and came before 4 MiB were allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            for _ in read(*arguments):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MEBIBYTE, f"{peak} bytes were allocated before the refusal"
    text = str(error.value)
    assert "\n" not in text and len(text) < 2000
    return text


def header_and_data(file) -> tuple[dict, bytes]:
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def with_header(file, header, data) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl", "tf_model.h5"]
)
def test_pickles_are_named_and_not_opened(folder, name):
    (folder / "model.safetensors").unlink()
    trap = folder / "trap"
    (folder / name).write_bytes(pickle.dumps(Payload(trap)))
    text = refused(hugging_face_reader.read_weights, folder)
    assert name in text and "Convert to safetensors" in text
    assert not trap.exists()


def test_a_pickle_under_a_safetensors_name_is_not_opened(folder):
    trap = folder / "trap"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(trap)) + bytes(200))
    assert "model.safetensors" in refused(hugging_face_reader.read_weights, folder)
    assert not trap.exists()


def test_an_empty_folder(tmp_path):
    assert "config.json: cannot be read" in refused(hugging_face_reader.read_weights, tmp_path)
    hugging_face_writer.write_config(tmp_path, CONFIG, "float32")
    assert "no weights: expected model.safetensors" in refused(hugging_face_reader.read_weights, tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1, -200])
def test_cut_files(folder, kept):
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw[:kept])
    assert "model.safetensors" in refused(hugging_face_reader.read_weights, folder)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**9, 200_000_000])
def test_a_header_longer_than_the_file(folder, length):
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    assert f"claims {length} bytes" in refused(hugging_face_reader.read_weights, folder)


NAME = "model.norm.weight"  # 16 bytes of float32 at the end of the file
HEADERS = {
    "beyond the end": (
        lambda h: h[NAME].update(data_offsets=[h[NAME]["data_offsets"][0], 10**15], shape=[10**15]),
        "its data ends at byte",
    ),
    "shape bomb": (lambda h: h[NAME].update(shape=[2**40, 2**20]), "needs"),
    "shape whose product overflows to the right size": (lambda h: h[NAME].update(shape=[2**62, 4, 4]), "needs"),
    "shape too small": (lambda h: h[NAME].update(shape=[3]), "needs 12 bytes, the header gives it 16"),
    "dtype too wide": (lambda h: h[NAME].update(dtype="F64"), "needs 32 bytes, the header gives it 16"),
    "unknown dtype": (lambda h: h[NAME].update(dtype="F4"), "unknown dtype"),
    "dtype no string": (lambda h: h[NAME].update(dtype=["F32"]), "unknown dtype"),
    "negative size": (lambda h: h[NAME].update(shape=[-4]), "the shape must be"),
    "size true": (lambda h: h[NAME].update(shape=[True, 4]), "the shape must be"),
    "size a fraction": (lambda h: h[NAME].update(shape=[4.0]), "the shape must be"),
    "many dimensions": (lambda h: h[NAME].update(shape=[1] * 100_000), "the shape must be"),
    "offsets reversed": (lambda h: h[NAME].update(data_offsets=h[NAME]["data_offsets"][::-1]), "begin <= end"),
    "offsets negative": (lambda h: h[NAME].update(data_offsets=[-16, 0]), "begin <= end"),
    "one offset": (lambda h: h[NAME].update(data_offsets=[0]), "begin <= end"),
    "overlap": (lambda h: h[NAME].update(data_offsets=[0, 16]), "overlaps the tensor before it"),
    "hole": (lambda h: h.pop("model.layers.0.self_attn.q_proj.weight"), "leaves a hole before it"),
    "bytes behind": (lambda h: h.pop(NAME), "bytes follow the last tensor"),
    "extra key": (lambda h: h[NAME].update(code="import os"), "expected the keys dtype, shape, data_offsets"),
    "entry no object": (lambda h: h.update({NAME: [1, 2]}), "expected the keys dtype, shape, data_offsets"),
    "integer weights": (lambda h: h[NAME].update(dtype="I32"), "expected one of F64, F32, F16, BF16. Received: I32"),
    "another shape": (lambda h: h[NAME].update(shape=[2, 2]), "expected shape (4,) by config.json. Received: (2, 2)"),
    "renamed": (lambda h: h.update({"model.norm.wheight": h.pop(NAME)}), "the first is 'model.norm.weight'"),
    "renamed with a newline": (
        lambda h: h.update({"a\nb" * 99: {**h[NAME], "shape": [0], "data_offsets": [0, 0]}}),
        "no weights of a gemma",
    ),
    "adapter": (
        lambda h: h.update({"base_model.lora_A.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        "merged first",
    ),
    "one weight twice": (
        lambda h: h.update({"norm.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        "are both 'final_norm'",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie(folder, case):
    change, message = HEADERS[case]
    header, data = header_and_data(folder / "model.safetensors")
    change(header)
    with_header(folder / "model.safetensors", header, data)
    text = refused(hugging_face_reader.read_weights, folder)
    assert message in text and ("model.safetensors" in text or "missing" in text)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[]", "does not begin with an object"),
        (b"", "does not begin with an object"),
        (b"{" * 50, "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "not valid JSON"),
        (b'{"a": \xff}', "not valid JSON"),
        (b'{"a": {}, "a": {}}', "a key occurs twice"),
        (b'{"__metadata__": 3, "a": {"dtype": "F32", "shape": [0, NaN], "data_offsets": [0, 0]}}', "the shape must be"),
    ],
)
def test_headers_that_are_no_header(folder, header, message):
    with_header(folder / "model.safetensors", header, b"")
    assert message in refused(hugging_face_reader.read_weights, folder)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors", "/etc/passwd", "/tmp/outside.safetensors", "sub/outside.safetensors",
        "..\\outside.safetensors",
        "C:outside.safetensors", "pytorch_model.bin", "", ".", "..", "model\0.safetensors", None, 3,
        ["model.safetensors"],
    ],
)  # fmt: skip
def test_an_index_that_points_elsewhere(folder, name):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NAME: name}}))
    text = refused(hugging_face_reader.read_weights, folder)
    assert "must lie in a .safetensors file of the same folder" in text and "index.json" in text


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "expected the object `weight_map`"),
        ({"weight_map": []}, "expected the object `weight_map`"),
        ([], "expected a JSON object"),
        ({"weight_map": {NAME: "model-00001-of-00002.safetensors"}}, "model-00001-of-00002.safetensors: this shard"),
        ({"weight_map": {"gone.weight": "part.safetensors"}}, "'gone.weight' should be here"),
        ({"weight_map": {NAME: "part.safetensors"}}, "the first is 'model.embed_tokens.weight'"),
    ],
)
def test_an_index_that_lies(folder, index, message):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert message in refused(hugging_face_reader.read_weights, folder)


@pytest.mark.parametrize(
    "change",
    [{"num_hidden_layers": 10**8}, {"hidden_size": 2**31 - 1}, {"vocab_size": 10**9}, {"num_hidden_layers": 2}],
)
def test_a_configuration_bomb(folder, change):
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**table, **change}))
    refused(hugging_face_reader.read_weights, folder)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 100_000, b'{"model_type": "gemma", "model_type": "gemma2"}', b"\xff\xfe", b"3"]
)
def test_a_configuration_that_is_no_object(folder, text):
    (folder / "config.json").write_bytes(text)
    assert "config.json" in refused(hugging_face_reader.read_weights, folder)


def mutated(raw: bytes, generator: random.Random, region: int) -> bytes:
    """One to four changes inside the first `region` bytes: flips, cuts, insertions, extreme numbers."""
    data = bytearray(raw)
    for _ in range(generator.randint(1, 4)):
        i = generator.randrange(min(region, len(data)))
        kind = generator.randrange(5)
        if kind == 0:
            data[i] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[i] = generator.choice(b'0123456789{}[]",:-e\x00\xff')
        elif kind == 2:
            data[i : i + 8] = struct.pack("<Q", generator.choice([0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]))
        elif kind == 3:
            del data[i : i + generator.randint(1, 9)]
        else:
            data[i:i] = generator.randbytes(generator.randint(1, 9))
    return bytes(data)


def overwrite(file, data: bytes) -> None:
    """In place: truncating to nothing first makes some file systems flush at every close, a millisecond each."""
    with open(file, "r+b") as stream:
        stream.write(data)
        stream.truncate()


def test_five_thousand_mutated_safetensors_headers(folder):
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    region = 8 + struct.unpack("<Q", raw[:8])[0]
    generator, shapes, refusals = random.Random(17), names.expected_shapes(CONFIG), 0
    tracemalloc.start()
    for round_number in range(5000):
        if round_number == 500:  # tracing costs five times the rest; these 500 stand for all
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        overwrite(file, mutated(raw, generator, region))
        try:
            read = {name: values.shape for name, values in hugging_face_reader.read_weights(folder)}
        except CheckpointError as error:
            assert "\n" not in str(error)
            refusals += 1
        else:
            assert read == shapes
    assert refusals > 4000 and peak < 8 * MEBIBYTE


def gguf_file(file) -> int:
    """A sound GGUF file of `CONFIG`; returns the header's length."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(file), "gemma")
    for key, value in (
        ("block_count", 1), ("embedding_length", 4), ("feed_forward_length", 4), ("attention.head_count", 2),
        ("attention.head_count_kv", 1), ("attention.key_length", 2),
    ):  # fmt: skip
        writer.add_uint32(f"gemma.{key}", value)
    writer.add_token_list([f"t{i}" for i in range(8)])
    writer.add_token_scores([0.0] * 8)
    shapes = names.expected_shapes(CONFIG)
    for name, shape in shapes.items():
        writer.add_tensor(names.gguf_name(name, CONFIG), np.ones(names.file_shape(name, shape), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(entry.start for entry in checkpoints_gguf.read_header(file).tensors.values())


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_two_thousand_mutated_gguf_headers(tmp_path):
    file = tmp_path / "model.gguf"
    region = gguf_file(file)
    raw = file.read_bytes()
    generator, refusals = random.Random(18), 0
    assert len(dict(checkpoints_gguf.read_weights(file))) == len(names.expected_shapes(CONFIG))
    tracemalloc.start()
    for round_number in range(2000):
        if round_number == 200:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        overwrite(file, mutated(raw, generator, region))
        try:
            config = checkpoints_gguf.read_config(file)
            read = {name: values.shape for name, values in checkpoints_gguf.read_weights(file)}
        except CheckpointError as error:
            assert "\n" not in str(error)
            refusals += 1
        else:
            assert read == names.expected_shapes(config)
    assert refusals > 1000 and peak < 8 * MEBIBYTE


@pytest.mark.parametrize("kept", [0, 3, 20, 300, -20])
def test_a_cut_gguf_file(tmp_path, kept):
    file = tmp_path / "model.gguf"
    gguf_file(file)
    file.write_bytes(file.read_bytes()[:kept])
    assert "model.gguf" in refused(checkpoints_gguf.read_weights, file)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"GGML" + bytes(60), "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "expected GGUF version 2 or 3"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "expected GGUF version 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "the number of tensors must be at most"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "the number of metadata keys must be at most"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 60_000), "needs 60000 bytes"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**40), "claims 1099511627776 strings"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 6, 2**40), "needs 4398046511104 bytes"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "unknown type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIQ2s", 3, 0, 1, 1, b"k", 8, 2, b"\xff\xfe"), "is not UTF-8"),
    ],
)
def test_gguf_headers_that_lie(tmp_path, raw, message):
    file = tmp_path / "model.gguf"
    file.write_bytes(raw)
    assert message in refused(checkpoints_gguf.read_weights, file)


def test_a_tensor_that_ends_early_while_it_is_read(folder):
    weights = hugging_face_reader.read_weights(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' ends after 12 of 16 bytes"):
        dict(weights)
    assert safetensors_file.MAX_HEADER_BYTES == 100_000_000


@pytest.mark.parametrize("name", [b"../kept", b"..", b".", b"", b"/etc/hosts", b"sub/kept"])
def test_a_record_of_a_save_that_names_files_elsewhere(folder, name):
    """A folder from elsewhere may come with a save to be finished; that must reach nothing outside of it."""
    (folder.parent / "kept").write_text("mine")
    (folder / ".saved").mkdir()
    (folder / ".saved" / ".replaces").write_bytes(name + b"\0")
    assert "expected names in the folder" in refused(recognize, folder)
    assert (folder.parent / "kept").read_text() == "mine" and (folder / "config.json").is_file()


def test_a_link_to_another_folder_is_no_save(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "key").write_text("mine")
    (folder / ".saved").symlink_to(elsewhere)
    assert recognize(folder) is not None
    assert (elsewhere / "key").is_file() and not (folder / "key").exists()


def test_a_save_to_be_finished_removes_a_link_and_not_what_it_leads_to(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "key").write_text("mine")
    (folder / "link").symlink_to(elsewhere)
    (folder / ".saved").mkdir()
    (folder / ".saved" / ".replaces").write_bytes(b"link\0")
    assert recognize(folder) is not None
    assert (elsewhere / "key").is_file() and not (folder / "link").is_symlink() and not (folder / ".saved").exists()
