"""The recipe for an algorithm, followed: it is validated, explained and run from its file and one line."""

import json

import pytest
from recipe import ROOT, Recipe

MODEL = ROOT / "tests/parity/cross_backend_oracle/tuned/model"
WORKFLOW = f"""\
name: group
seed: 3
stages:
  policy:
    kind: policy_optimization
    from: {MODEL}
    reward: answer_format
    data: {{task: small_world, split: rl, size: 12}}
    algorithm: {{name: group_mean, unbiased: true}}
    samples_per_prompt: 2
    prompts_per_step: 2
    steps: 2
    inner_updates: 2
    max_new_tokens: 4
    max_length: 64
    eval_prompts: 2
    learning_rate: 1e-3
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return Recipe("An algorithm of policy optimization", tmp_path_factory.mktemp("recipe"))


@pytest.mark.no_backend
def test_one_file_one_page_and_one_line(recipe):
    assert recipe.changed == ["pipelines/stages/policy_optimization/methods/registry.py"]


@pytest.mark.no_backend
@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("samples_per_prompt: 2", "samples_per_prompt: 1", "10:25",
         "group_mean compares the samples of a prompt; expected at least 2"),
        ("inner_updates: 2", "inner_updates: 5", "13:20",
         "group_mean cannot learn from a rollout more often; expected at most 4"),
        ("{name: group_mean, unbiased: true}", "group_men", "9:16",
         "or reinforce or group_mean or grpo or ppo, got the text 'group_men'. Did you mean 'group_mean'?"),
        ("unbiased: true", "unbiasd: true", "9:35",
         "unknown key 'unbiasd'. Did you mean 'unbiased'? Known here: name, unbiased"),
        ("unbiased: true", "unbiased: 2", "9:45", "`stages.policy.algorithm.unbiased`: expected true or false, got 2"),
    ],
)  # fmt: skip
def test_validate_knows_what_it_needs(recipe, tmp_path, old, new, place, message):
    (tmp_path / "w.yaml").write_text(WORKFLOW.replace(old, new))
    done = recipe.command("validate", "w.yaml", "--backend", "jax", cwd=tmp_path)
    assert done.returncode == 2
    assert any(f"w.yaml:{place}" in line and message in line for line in done.stderr.splitlines()), done.stderr


@pytest.mark.no_backend
def test_it_is_explained_by_its_page_with_the_keys_as_they_are(recipe, tmp_path):
    done = recipe.command("explain", "group_mean", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# group_mean\n") and "\n    A_i = R_i - mean of R_j over all j\n" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| `algorithm` ")]
    assert "`rloo`, `reinforce`, `group_mean`, " in row
    assert "- `group_mean`, of `policy_optimization`: the baseline" in recipe.command("explain", cwd=tmp_path).stdout


@pytest.mark.once
def test_it_runs(recipe, tmp_path):
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    done = recipe.command("run", "w.yaml", "--out", "out", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out/stages/policy/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "policy_loss" in row]
    assert [row["step"] for row in steps] == [1, 2] and all("clip_ratio" in row for row in steps)
