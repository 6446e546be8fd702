"""YAML 1.2 values, places of values, and writing that reads back."""

import math

import pytest
import yaml

from pipelines.host.errors import ConfigError
from pipelines.workflow import yaml_reader

pytestmark = pytest.mark.no_backend


def read(text):
    return yaml_reader.read_text(text, "w.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-5", 1e-5), ("2E3", 2000.0), (".5", 0.5), ("1.", 1.0), ("-0.1e+2", -10.0), ("12", 12), ("+7", 7), ("-3",
         -3), ("010", 10),
        ("0o17", 15), ("0xff", 255), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("-.inf", -math.inf),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("1_000", "1_000"), ("1:30", "1:30"),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"), ("1e", "1e"), (".", "."), ("'1'", "1"), ('"true"', "true"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, expected):
    value = read(f"key: {text}").value["key"]
    assert value == expected
    assert type(value) is type(expected)


def test_not_a_number():
    assert math.isnan(read("key: .nan").value["key"])


def test_every_value_and_key_has_its_place():
    document = read(
        "name: x\nstages:\n  sft:\n    kind: a\n    data: {path: p, limit: 3}\n    compare: [one,\n      two]\n"
    )
    assert document.where(("stages", "sft", "kind")) == "w.yaml:4:11"
    assert document.where(("stages", "sft", "kind"), of_key=True) == "w.yaml:4:5"
    assert document.where(("stages", "sft", "data", "limit")) == "w.yaml:5:28"
    assert document.where(("stages", "sft", "compare", 1)) == "w.yaml:7:7"
    assert document.where(("stages", "sft", "nothing", "here")) == "w.yaml:3:3"  # the mapping that lacks it


def test_an_alias_is_a_copy():
    value = read("a: &x {k: [1]}\nb: *x\n").value
    assert value["b"] == {"k": [1]}
    value["b"]["k"].append(2)
    assert value["a"] == {"k": [1]}


def test_a_document_of_one_value_list_or_nothing():
    assert read("[1, 2]").value == [1, 2]
    assert read("# only a comment\n").value is None


TEXTS = [
    "1e-5",
    "no",
    "null",
    "",
    "~",
    "0o17",
    "1_0",
    " space",
    "a: b",
    "# c",
    "é😀",
    "line\nbreak",
    "'",
    '"',
    "true",
    "1.5",
    "-",
    "&a",
    "*a",
    "!x",
]


@pytest.mark.parametrize("text", TEXTS)
def test_written_texts_stay_texts_under_both_versions(text):
    written = yaml_reader.dump({"key": text, "list": [text]})
    assert read(written).value == {"key": text, "list": [text]}
    assert yaml.safe_load(written) == {"key": text, "list": [text]}


def test_written_values_read_back_under_both_versions():
    value = {"a": 1e-5, "b": [True, None, 3, -2.5e300], "c": {"d": {}, "e": []}, "shared": [1, 2]}
    value["again"] = value["shared"]
    written = yaml_reader.dump(value)
    assert read(written).value == value
    assert yaml.safe_load(written) == value


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot read the workflow file \(No such file"):
        yaml_reader.read_file(tmp_path / "nothing.yaml")


def test_byte_order_mark_is_allowed_and_latin_1_is_not(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yaml_reader.read_file(path).value == {"a": 1}
    path.write_bytes("a: 1\nb: café\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"w\.yaml:2:7: byte 0xe9 is no UTF-8"):
        yaml_reader.read_file(path)


@pytest.mark.parametrize("letter", ["\u0085", "\u2028", "\u2029"])
def test_separators_of_yaml_1_1_are_letters(letter):
    """In 1.2 a line ends at a newline: these cannot end a comment and begin a key."""
    document = read(f"# a{letter}seed: 3\nname: b{letter}c # d{letter}: e\nquoted: 'f{letter}g'\nh{letter}: [i]\n")
    assert document.value == {"name": f"b{letter}c", "quoted": f"f{letter}g", f"h{letter}": ["i"]}
    assert document.where(("quoted",)) == "w.yaml:3:9"
    with pytest.raises(ConfigError, match="w.yaml:2:4"):
        read(f"# a{letter}b\nc: ]\n")
    assert read(yaml_reader.dump({"a": f"b{letter} c"})).value == {"a": f"b{letter} c"}
    assert read(f"a: \ue000{letter}\ue001").value == {"a": f"\ue000{letter}\ue001"}
