"""The registries: what stands behind each name says what it has to."""

import typing

import pytest

from pipelines.schema.roles import ROLES
from pipelines.stages import registry
from pipelines.stages.policy_optimization.methods.registry import FILES, METHODS

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize("kind", registry.FOLDERS)
def test_a_kind_is_called_like_its_folder(kind):
    config = registry.KINDS[kind]
    assert typing.get_args(config.model_fields["kind"].annotation) == (kind,)
    assert config.__doc__ and config.produces in (None, *{role.product for role in ROLES.values()})


def test_every_role_has_a_kind_that_fills_it():
    assert all(registry.producers(role) for role in ROLES.values())


def test_the_parts_of_the_report_are_those_of_kinds():
    assert {report.kind for report in registry.reports()} <= set(registry.KINDS)
    sections = [section for report in registry.reports() for section in report.sections]
    assert all(section.template.is_file() for section in sections)
    assert len({section.id for section in sections}) == len(sections)


@pytest.mark.parametrize("name", FILES)
def test_an_algorithm_is_called_like_its_file_and_has_a_page_that_explains_its_metrics(name, repository):
    method = METHODS[name]
    assert method.name == name and method.summary
    page = (repository / method.page).read_text()
    explained = page + (repository / "docs/algorithms/rloo.md").read_text() if "(rloo.md)" in page else page
    assert all(metric in explained for metric in method.metrics)
