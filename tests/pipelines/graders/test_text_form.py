"""Pattern, length and repetition by hand; JSON by its grammar and the schema's own examples."""

import itertools
import re

import pytest

from pipelines.graders.json_text import json_check, schema_problem
from pipelines.graders.text_form import distinct_share, has_pattern, length_within

pytestmark = pytest.mark.no_backend
needs_schema = pytest.mark.needs("jsonschema")


@pytest.mark.parametrize(
    ("text", "anywhere", "whole"),
    [
        ("12", 1, 1),
        (" 12\n", 1, 1),
        ("it is 12", 1, 0),
        ("12 it is", 1, 0),
        ("1 2", 0, 0),
        ("", 0, 0),
        ("12\n12", 1, 0),
    ],
)
def test_a_pattern(text, anywhere, whole):
    pattern = re.compile(r"\d\d")
    assert (has_pattern(text, pattern), has_pattern(text, pattern, whole=True)) == (anywhere, whole)


def test_a_length_by_hand():
    """Within [4, 6]; 1 at both limits, then down by a quarter a step where it fades over 4."""
    lengths = range(13)
    assert [length_within(n, 4, 6, 0) for n in lengths] == [0] * 4 + [1] * 3 + [0] * 6
    assert [length_within(n, 4, 6, 4) for n in lengths] == [0, 0.25, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0]
    assert [length_within(n, None, 2, 1) for n in range(5)] == [1, 1, 1, 0, 0]
    assert [length_within(n, 2, None, 2) for n in range(5)] == [0, 0.5, 1, 1, 1]
    assert [length_within(n, 0, 0, 0) for n in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("items", "n", "share"),
    [
        ("abcabc", 3, 3 / 4),  # abc bca cab abc
        ("aaaa", 1, 1 / 4),
        ("aaaa", 2, 1 / 3),
        ("abab", 2, 2 / 3),
        ("abc", 3, 1),
        ("aa", 3, 1),
        ("", 1, 1),
    ],
)
def test_repetition_by_hand(items, n, share):
    assert distinct_share(items, n) == pytest.approx(share)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_repetition_by_enumeration(n):
    """An n-gram is new where no earlier one is equal."""
    for items in itertools.product((5, 6), repeat=5):
        new = sum(all(items[i : i + n] != items[j : j + n] for j in range(i)) for i in range(5 - n + 1))
        assert distinct_share(items, n) == pytest.approx(new / (5 - n + 1))


@pytest.mark.parametrize("text", ['{"a": 1}', " [1, 2]\n", '"x"', "3", "null", '{"a": {"b": [null, true]}}'])
def test_what_is_json(text):
    assert json_check({})(text) == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "x", "{'a': 1}", '{"a": 1,}', '{"a": 1} and more', "```json\n{}\n```", "NaN", "[Infinity]", "-Infinity",
     '{"a": 1', "[" * 100_000, "9" * 5000],
)  # fmt: skip
def test_what_is_no_json(text):
    assert json_check({})(text) == 0.0


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0, "$anchor": "years"}},
}


@needs_schema
@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"name": "Ada", "age": 36}', 1), ('{"name": "Ada"}', 1), ('{"age": 36}', 0), ('{"name": ""}', 0),
        ('{"name": "Ada", "age": -1}', 0), ('{"name": "Ada", "age": 1.5}', 0), ('{"name": "Ada", "x": 1}', 0),
        ("[]", 0), ('{"name": "Ada"', 0),
    ],
)  # fmt: skip
def test_a_schema_by_hand(text, score):
    assert schema_problem(PERSON) is None
    assert json_check(PERSON)(text) == score


@needs_schema
def test_the_draft_that_a_schema_names_counts():
    """`dependencies` is one of draft 7 and none of 2020-12; without a name it is the latter."""
    schema = {"dependencies": {"a": ["b"]}}
    assert json_check({"$schema": "http://json-schema.org/draft-07/schema#", **schema})('{"a": 1}') == 0.0
    assert json_check(schema)('{"a": 1}') == 1.0


@needs_schema
@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "objekt"}, "no valid JSON Schema: 'objekt' is not valid under any of the given schemas (at type)"),
        ({"properties": {"a": {"minLength": -1}}}, "-1 is less than the minimum of 0 (at properties/a/minLength)"),
        ({"$ref": "http://nowhere.invalid/schema"}, "$ref 'http://nowhere.invalid/schema' is elsewhere; expected a "
         "place in this schema, such as '#/$defs/name'"),
        ({"$ref": "other.json#/a"}, "is elsewhere"),
        ({"allOf": [{"$ref": "#/$defs/b"}], "$defs": {"a": {}}}, "$ref '#/$defs/b' leads nowhere in this schema"),
        ({"$ref": "#years"}, "$ref '#years' leads nowhere"),
        ({"$ref": "#/allOf/2", "allOf": [{}, {}]}, "leads nowhere"),
        ({"$ref": "#/allOf/x", "allOf": [{}, {}]}, "leads nowhere"),
    ],
)  # fmt: skip
def test_a_schema_that_will_not_do(schema, problem):
    assert problem in schema_problem(schema)


@needs_schema
@pytest.mark.parametrize(
    "reference", ["#", "#/$defs/age", "#years", "#/$defs/a~1b~0c%25", "#/properties/age", "#/allOf/1"]
)
def test_places_in_a_schema(reference):
    schema = {**PERSON, "$defs": {**PERSON["$defs"], "a/b~c%": {}}, "allOf": [{}, {"not": {"$ref": reference}}]}
    assert schema_problem(schema) is None


@needs_schema
def test_a_value_called_ref_is_no_reference_of_another_kind():
    assert schema_problem({"properties": {"$ref": {"type": "string"}}}) is None
