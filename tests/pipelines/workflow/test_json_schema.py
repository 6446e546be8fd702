"""The JSON schema says what `validate` says of types, ranges, names of keys and of kinds; judged by `jsonschema`."""

import copy
import json
import re

import pydantic
import pytest

from pipelines.host.paths import shipped_workflows
from pipelines.stages.registry import KINDS
from pipelines.workflow import json_schema, yaml_reader
from pipelines.workflow.json_schema import workflow_schema
from pipelines.workflow.schema import Workflow

pytestmark = pytest.mark.no_backend

WORKFLOW = {
    "name": "w", "seed": 3, "model": "google/gemma-3-270m",
    "stages": {
        "sft": {"kind": "instruction_tuning", "data": {"path": "rows.jsonl"}, "lora": {"rank": 4}},
        "policy": {
            "kind": "policy_optimization", "from": "sft", "data": {"path": "rows.jsonl"},
            "reward": [{"reward": "exact_answer", "weight": 1.0}],
        },
    },
}  # fmt: skip
VALUES = (
    None, True, 0, 1, 3, -1, 0.5, 1.5, 10**19, "", "x", "none", "jax", "int8", "SFT", [], ["x"], [1], [1, 2], [1, 2, 3],
    {}, {"path": "x"}, {"path": ""}, {"path": "x", "task": "small_world"}, {"path": "x", "limit": 0},
    {"task": "small_world", "split": "sft", "size": 1}, {"task": "small_world", "split": "sft"}, {"rank": 4},
    {"rank": 0}, {"rank": "4"}, {"rnk": 4}, {"values": [1]}, {"values": []}, {"config": {"num_layers": 2}},
    {"config": {"layers": 2}}, [{"reward": "x"}], [{"reward": "x", "weight": "1"}],
    {"ensemble": ["x", "y"]}, {"ensemble": ["x"]}, {"ensemble": ["x", "y"], "combine": "max"},
    [{"name": "x", "data": "y"}], ["quality"], [{"name": "duplicates", "near": 0.5}], [{"name": "duplicates", "nr": 1}],
)  # fmt: skip
"""Tried in the place of every key."""


def whole_workflows(repository):
    """Snippets of the pages that are whole workflows: where, text."""
    pages = [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").rglob("*.md"))]
    for page in pages:
        for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            if re.search(r"^name:", text, re.MULTILINE):
                yield str(page.relative_to(repository)), text


def changed(path, value):
    """`WORKFLOW` with another value in one place; `...` removes it."""
    data = copy.deepcopy(WORKFLOW)
    *parents, last = path
    place = data
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.fixture
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft7Validator.check_schema(workflow_schema())
    return jsonschema.Draft7Validator(workflow_schema())


def passes(model, data):
    """Whether `validate`'s types take it."""
    try:
        model.model_validate(data)
    except pydantic.ValidationError:
        return False
    return True


def test_every_shipped_workflow_is_accepted(validator):
    shipped = shipped_workflows()
    assert len(shipped) > 5
    for path in shipped.values():
        assert [error.message for error in validator.iter_errors(yaml_reader.read_file(path).value)] == [], path


def test_every_workflow_of_the_pages_is_accepted(validator, repository):
    found = list(whole_workflows(repository))
    assert "README.md" in [page for page, _ in found]
    for page, text in found:
        value = yaml_reader.read_text(text, page).value
        assert [error.message for error in validator.iter_errors(value)] == [], page


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("nme",), "x"),
        (("name",), ...),
        (("name",), "a/b"),
        (("stages",), {}),
        (("stages", "SFT"), WORKFLOW["stages"]["sft"]),
        (("stages", "sft", "kind"), "instruction_tunin"),
        (("stages", "sft", "kind"), ...),
        (("stages", "sft", "data"), ...),
        (("stages", "sft", "lerning_rate"), 1e-4),
        (("stages", "sft", "learning_rate"), "1e-4"),
        (("stages", "sft", "learning_rate"), 0),
        (("stages", "sft", "epochs"), True),
        (("stages", "sft", "batch_size"), 1.5),
        (("stages", "sft", "schedule"), "cosin"),
        (("stages", "sft", "from_"), "x"),
        (("stages", "sft", "lora", "rnk"), 4),
        (("stages", "sft", "lora", "rank"), 0),
        (("stages", "sft", "data", "rows"), [1]),
        (("stages", "policy", "reward", 0, "wight"), 1.0),
        (("stages", "policy", "algorithm"), "pony"),
    ],
)
def test_what_is_wrong_in_itself_is_refused_by_both(validator, path, value):
    assert validator.is_valid(WORKFLOW) and passes(Workflow, WORKFLOW)
    data = changed(path, value)
    assert not passes(Workflow, data)
    assert not validator.is_valid(data)


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_schema_and_types_agree_on_every_key_and_many_values(validator, kind):
    """Each value in the place of each key, in an otherwise right mapping."""
    schema, model = workflow_schema(), KINDS.get(kind, Workflow)
    part = schema["$defs"][model.__name__] if kind else schema
    judge = validator.evolve(schema={"$defs": schema["$defs"], **part})
    right = WORKFLOW if not kind else {"kind": kind, **{key: None for key in part["required"] if key != "kind"}}
    for key in [name for name, value in right.items() if value is None]:
        values = (*VALUES, *named_values(part["properties"][key]))
        right[key] = next(value for value in values if not _complains(model, right, key, value))
    assert passes(model, right) and judge.is_valid(right)
    assert judge.is_valid(model.model_validate(right).model_dump(mode="json", by_alias=True)), "with its defaults"
    accepted = 0
    for key, below in part["properties"].items():
        for value in (*VALUES, *named_values(below)):
            data = {**right, key: value}
            accepted += passes(model, data)
            assert judge.is_valid(data) == passes(model, data), (key, value)
    assert len(part["properties"]) < accepted < len(part["properties"]) * len(VALUES) / 2


def named_values(schema):
    """The names that a schema has for a value, and blocks that such a name tells from others: right, and with a key too
    many."""
    if "$ref" in schema:
        schema = workflow_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    yield from schema.get("enum", [schema["const"]] if "const" in schema else [])
    fixed = {name: below["const"] for name, below in schema.get("properties", {}).items() if "const" in below}
    if fixed:
        yield from (fixed, {**fixed, "wrong": 1}, {next(iter(fixed)): "wrong"}, *fixed.values())
    for branch in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from named_values(branch)


def _complains(model, data, key, value):
    try:
        model.model_validate({**data, key: value})
    except pydantic.ValidationError as error:
        return any(detail["loc"][0] == key for detail in error.errors())
    return False


def test_an_editor_finds_names_meanings_defaults_and_values():
    schema = workflow_schema()
    keys = schema["$defs"]["PolicyOptimization"]["properties"]
    assert "from" in keys and "from_" not in keys
    assert keys["kl_weight"] == {
        "default": 0.05, "description": "Weight of the KL to the starting model.", "minimum": 0, "type": "number",
    }  # fmt: skip
    assert keys["schedule"]["enum"] == ["cosine", "linear", "constant"] and keys["schedule"]["default"] == "cosine"
    assert schema["$defs"]["Lora"]["description"].startswith("Low-rank adapters")
    sizes = schema["$defs"]["Sizes"]["properties"]
    assert sizes["num_layers"]["description"] == "Decoder blocks. Default 18."
    assert [name for name, size in sizes.items() if len(size.get("description", "")) < 8] == []
    described = [*KINDS.values(), Workflow]
    for model in described:
        of_model = schema["$defs"][model.__name__] if model is not Workflow else schema
        names = {name for name, key in of_model["properties"].items() if not key.get("description")}
        assert names <= {"kind"}, model


def test_nothing_in_it_is_noise_and_every_version_of_pydantic_writes_the_same():
    text = json_schema.schema_text()
    assert not re.search(r'"(discriminator|title|allOf)":', text)
    old = {"allOf": [{"$ref": "#/$defs/A"}], "title": "A", "description": "Of a."}
    older = {"const": "a", "enum": ["a"], "minimum": 0.0, "default": 1.0, "exclusiveMaximum": 0.5}
    tidy = json_schema._tidy({"properties": {"title": old, "b": older}})
    assert tidy == {
        "properties": {
            "title": {"$ref": "#/$defs/A", "description": "Of a."},
            "b": {"const": "a", "minimum": 0, "default": 1.0, "exclusiveMaximum": 0.5},
        }
    }
    assert type(tidy["properties"]["b"]["minimum"]) is int and type(tidy["properties"]["b"]["default"]) is float


def test_only_what_this_program_wrote_is_ours():
    assert json_schema.is_ours(json_schema.schema_text())
    assert json_schema.is_ours(json.dumps({**workflow_schema(), "properties": {}})), "of another version"
    assert not any(map(json_schema.is_ours, ("", "{", "[]", "{}", '{"$comment": "mine"}')))


def test_each_shipped_workflow_names_it_first(repository):
    for path in shipped_workflows().values():
        assert path.read_text(encoding="utf-8").splitlines()[0] == json_schema.MODELINE
        assert (path.parent / json_schema.FILE).read_text(encoding="utf-8") == json_schema.schema_text(), (
            "workflows/workflow.schema.json is out of date: run python docs/keys.py"
        )
