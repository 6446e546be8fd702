"""The page of each algorithm says what it must: equation, needs, keys as they are in the code, metrics, sources."""

import re
import subprocess
import sys

import pytest
from algorithm_pages import metric_rows, undocumented

from pipelines.stages.registry import KINDS, algorithms

pytestmark = pytest.mark.no_backend


@pytest.fixture(params=list(algorithms()))
def name(request):
    return request.param


@pytest.fixture
def page(name, repository):
    return repository / algorithms()[name][1].page


def test_it_has_every_part(name, page):
    text = page.read_text(encoding="utf-8")
    shares = [other for other, (_, one) in algorithms().items() if one.page == algorithms()[name][1].page]
    assert text.startswith(f"# {name}\n") if shares == [name] else f"`{name}`" in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert set(headings) >= {"What it computes", "What it needs", "Keys", "Metrics", "Sources"}
    (equations,) = re.findall(r"^## What it computes\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert re.search(r"^    \S.* = ", equations, re.MULTILINE), "an equation stands in a line of its own"
    (keys,) = re.findall(r"^## Keys\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert "<!-- keys -->" in keys and "<!-- /keys -->" in keys


def test_each_metric_that_it_adds_stands_there_with_what_it_means(name, page):
    _, algorithm = algorithms()[name]
    assert undocumented(page, set(algorithm.metrics)) == set()
    for metric, meaning in algorithm.metrics.items():
        assert any(meaning in row for pattern, row in metric_rows(page).items() if re.fullmatch(pattern, metric))


def test_a_metric_that_does_not_stand_there_is_found(repository):
    """The test of the test above."""
    page = repository / algorithms()["reinforce"][1].page
    assert undocumented(page, {"reward", "rewards/x/mean", "eval_gold_ci95_low"}) == set()
    assert undocumented(page, {"rewards/x/y/mean", "regret", "kl_ci95"}) == {"rewards/x/y/mean", "regret", "kl_ci95"}


def test_what_is_made_from_the_code_is_up_to_date(repository):
    outcome = subprocess.run([sys.executable, str(repository / "docs/keys.py"), "--check"], check=False)
    assert outcome.returncode == 0, "the keys in docs/ or the schema are out of date: run python docs/keys.py"


def test_the_page_of_all_keys_has_each_kind_and_the_commands_that_print_it(repository):
    text = (repository / "docs/workflow_keys.md").read_text(encoding="utf-8")
    assert re.findall(r"^## `(\w+)`$", text, re.MULTILINE) == list(KINDS)
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert len(set(headings)) == len(headings), "a block is described once"
    assert {"`data: {path: …}`", "`lora: {rank: …}`", "`model.config: {family: …}`"} <= set(headings)
    assert "`gemma-keras explain KIND`" in re.sub(r"\s+", " ", text)
