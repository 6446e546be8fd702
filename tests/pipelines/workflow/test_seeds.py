"""Several seeds in one workflow: what may be written, what is wrong and where, and which stages run once."""

import pytest

from pipelines.host.errors import ConfigError
from pipelines.workflow import loading as workflow
from pipelines.workflow import yaml_reader

pytestmark = pytest.mark.no_backend

SEEDS = "seeds: {values: [17, 18, 19], from: sft}\n"


@pytest.fixture
def load(workflow_file):
    """A function that loads the workflow of four stages with `written` before its second line."""
    text = workflow_file.read_text()

    def load(written=SEEDS, *arguments, **options):
        workflow_file.write_text(text.replace("seed: 3\n", f"{written}seed: 3\n"))
        return workflow.load(workflow_file, *arguments, **options)

    return load


def errors(load, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **options)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("seeds", "once"),
    [
        ("", ["base", "sft", "other", "evaluation"]),
        ("seeds: {values: [17]}\n", []),
        ("seeds: {values: [17], from: base}\n", []),
        ("seeds: {values: [17], from: sft}\n", ["base"]),
        # `other` needs nothing of a seed's stages, and runs once only where it is written before them.
        ("seeds: {values: [17], from: other}\n", ["base", "sft"]),
        ("seeds: {values: [17], from: evaluation}\n", ["base", "sft", "other"]),
    ],
)
def test_stages_before_the_named_one_run_once(load, seeds, once):
    assert load(seeds).workflow.stages_run_once() == once


def test_what_the_run_folder_gets_is_the_same_workflow(load, workflow_file):
    loaded = load()
    workflow_file.write_text(yaml_reader.dump(loaded.as_data()))
    again = workflow.load(workflow_file).workflow
    assert again == loaded.workflow
    assert (again.seeds.values, again.seeds.from_) == ([17, 18, 19], "sft")


@pytest.mark.parametrize(
    ("seeds", "place", "message"),
    [
        ("seeds: {values: [17, 18, 17]}", "2:26", "the seed 17 is named twice; expected different ones"),
        ("seeds: {values: [17], from: evalution}", "2:29",
         "no stage 'evalution'. Did you mean 'evaluation'? Stages: base, sft, other, evaluation"),
        ("seeds: {values: [17, x], from: bas}", "2:22", "`seeds.values.1`: expected a whole number, got the text 'x'"),
        ("seeds: {values: [17, x], from: bas}", "2:32", "no stage 'bas'. Did you mean 'base'?"),
        ("seeds: {values: [17, 1.5]}", "2:22", "expected a whole number, got 1.5"),
        ("seeds: {values: [17, -1]}", "2:22", "expected greater than or equal to 0, got -1"),
        ("seeds: {values: []}", "2:17", "`seeds.values`: expected at least 1 item, got 0"),
        ("seeds: {from: sft}", "2:1", "missing key 'values': The seeds, e.g. [17, 18, 19]"),
        ("seeds: {value: [17]}", "2:9", "unknown key 'value'. Did you mean 'values'?"),
        ("seeds: [17, 18]", "2:8", "`seeds`: expected a mapping, got a list"),
        ("sedes: {values: [17]}", "2:1", "unknown key 'sedes'. Did you mean 'seeds'?"),
    ],
)  # fmt: skip
def test_each_error_has_place_and_advice(load, seeds, place, message):
    lines = errors(load, f"{seeds}\n")
    assert any(f"w.yaml:{place}: " in line and message in line for line in lines), lines


def test_the_command_line_beats_the_file(load):
    def seeds(*arguments, **options):
        found = load(*arguments, **options).workflow.seeds
        return (found.values, found.from_)

    assert seeds("", seeds="4,5") == ([4, 5], None)
    assert seeds("", seeds="4, 5", seeds_from="other") == ([4, 5], "other")
    assert seeds(SEEDS, seeds="4") == ([4], "sft")
    assert seeds(SEEDS, seeds_from="evaluation") == ([17, 18, 19], "evaluation")
    assert load(SEEDS, ["seeds=null"]).workflow.seeds is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": "4,x"}, "--seeds 4,x: `seeds.values.1`: expected a whole number, got the text 'x'"),
        ({"seeds": "4;5"}, "--seeds 4;5: `seeds.values.0`: expected a whole number, got the text '4;5'"),
        ({"seeds": "4,4"}, "--seeds 4,4: the seed 4 is named twice"),
        ({"seeds": "4,-1"}, "--seeds 4,-1: `seeds.values.1`: expected greater than or equal to 0, got -1"),
        ({"seeds": ""}, "`seeds.values`: expected at least 1 item, got 0"),
        ({"seeds": "4], from: [5"}, "--seeds 4], from: [5:1:4: no valid YAML"),
        ({"seeds": "4", "seeds_from": "oter"}, "--seeds-from oter: no stage 'oter'. Did you mean 'other'?"),
        ({"seeds_from": "other"}, "--seeds-from other: there are no seeds to run from there; name them: --seeds 17,18"),
    ],
)
def test_wrong_options_name_themselves(load, options, message):
    (line,) = errors(load, "", **options)
    assert line.startswith("--seeds") and message in line


def test_a_folder_that_a_seed_of_another_workflow_leaves_names_that_workflow(load, workflow_file):
    text = workflow_file.read_text().replace("from: base", "from: runs/quickstart/seeds/18/stages/sft", 1)
    workflow_file.write_text(text)
    with pytest.raises(ConfigError, match="Run the workflow 'quickstart' first, it makes that folder"):
        workflow.load(workflow_file)
