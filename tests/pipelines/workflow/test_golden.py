"""Every shipped workflow means what it meant: its resolved form is the stored one, defaults and all."""

import importlib.util
import pathlib

import pytest

from pipelines.host.paths import shipped_workflows

pytestmark = pytest.mark.no_backend

_SPEC = importlib.util.spec_from_file_location("make_golden", pathlib.Path(__file__).with_name("make_golden.py"))
make_golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_golden)


def test_every_workflow_has_its_file_and_every_file_its_workflow():
    assert {path.stem for path in make_golden.GOLDEN.glob("*.yaml")} == set(shipped_workflows())


@pytest.mark.parametrize("name", shipped_workflows())
def test_the_resolved_form_is_the_stored_one(name):
    stored = (make_golden.GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    advice = "a default or the schema moved; if that is meant: python tests/pipelines/workflow/make_golden.py"
    assert make_golden.resolved(shipped_workflows()[name]) == stored, advice
