"""The page on rewards is true: its example is a plugin, its workflow is valid, and it names every setting."""

import re

import pytest
import yaml

from pipelines import cli
from pipelines.data.examples import load_examples
from pipelines.plugins.loading import load
from pipelines.plugins.sources import functions_in
from pipelines.schema.data import FileData
from pipelines.schema.functions import FUNCTIONS
from pipelines.scoring.user_rewards import SECONDS, TRL_ALONE, Samples, UserReward
from pipelines.workflow.functions import SHIPPED

pytestmark = pytest.mark.no_backend
ROWS = (
    '{"prompt": "1 + 1?", "level": "easy"}\n'
    '{"prompt": [{"role": "user", "content": "2 * 3?"}], "answer": 6, "level": "hard"}\n'
    '{"prompt": "3 * 3?", "level": "hard"}\n'
)


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs/rewards.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(page, tmp_path, monkeypatch):
    """The files of the page beside some rows."""
    for name, text in re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text)
    (tmp_path / "questions.jsonl").write_text(ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return tmp_path


def test_the_example_scores_what_it_says(folder):
    found = functions_in([folder / "my_rewards.py"], SHIPPED)
    assert set(found) == {"polite", "level_format"}
    prompts = load_examples(FileData(path="questions.jsonl"), "prompt", folder)
    texts = ["Thank you. Sorry!", "Step 1: 6", "9"]
    samples = Samples([prompts[0], prompts[2], prompts[2]], texts, [[5]] * 3)
    scores = {name: UserReward(one, load(one))(samples).tolist() for name, one in found.items()}
    assert scores["polite"] == pytest.approx([2 / 3, 0, 0])
    assert scores["level_format"][1:] == [1, 0] and scores["level_format"][0] != scores["level_format"][0]


def test_its_commands_work(page, folder, capsys):
    commands = re.findall(r"^gemma-keras (validate|plan) (.+)$", page, re.MULTILINE)
    assert len(commands) == 2
    for command, arguments in commands:
        assert cli.main([command, *arguments.split()]) == 0, capsys.readouterr().err


def test_its_sum_is_valid(page, folder, capsys):
    (block,) = re.findall(r"^```yaml\n(reward:\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    workflow = yaml.safe_load((folder / "own.yaml").read_text())
    workflow["stages"]["policy"] |= yaml.safe_load(block)
    (folder / "sum.yaml").write_text(yaml.safe_dump(workflow, sort_keys=False))
    assert cli.main(["validate", "sum.yaml", "--plugin", "my_rewards.py"]) == 0, capsys.readouterr().err


def test_trl_s_wrapper_is_a_reward(folder):
    assert set(functions_in([folder / "trl_rewards.py"], SHIPPED)) == {"think"}


def test_every_function_and_setting_is_named(page):
    for name, function in FUNCTIONS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        for setting, field in function.model_fields.items():
            assert setting in ("function", "name") or f"`{field.alias or setting}`" in row
    for name in (*SHIPPED, *TRL_ALONE):
        assert f"`{name}`" in page
    assert SECONDS == 600 and "more than ten minutes" in page
