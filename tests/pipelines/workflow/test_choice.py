"""A key that is a name, or a name with options of its own: what a workflow may write, and what it is told."""

import pytest

from pipelines.host.errors import ConfigError
from pipelines.workflow import loading

pytestmark = pytest.mark.no_backend

WORKFLOW = """\
name: w
model: google/gemma-3-270m
stages:
  dpo:
    kind: preference_optimization
    data: {{path: a/b, chosen: chosen, rejected: rejected}}
    loss: {}
"""


@pytest.fixture
def load(tmp_path):
    def load(loss, *overrides):
        path = tmp_path / "w.yaml"
        path.write_text(WORKFLOW.format(loss))
        return loading.load(path, overrides)

    return load


def test_a_name_has_the_defaults_and_options_are_its_own(load):
    assert load("simpo").workflow.stages["dpo"].loss.gamma == 1.0
    chosen = load("{name: simpo, gamma: 0.5}").workflow.stages["dpo"].loss
    assert (chosen.name, chosen.gamma, chosen.beta) == ("simpo", 0.5, 2.0)
    assert load("dpo", "stages.dpo.loss={name: ipo, beta: 0.3}").workflow.stages["dpo"].loss.beta == 0.3
    assert load("{name: dpo}", "stages.dpo.loss.beta=0.2").workflow.stages["dpo"].loss.beta == 0.2


@pytest.mark.parametrize(
    ("loss", "place", "words"),
    [
        ("dpoo", "7:11", "`stages.dpo.loss`: expected dpo or ipo or robust or simpo or orpo or kto or cpo, got"),
        ("dpoo", "7:11", "Did you mean 'dpo'?"),
        ("{name: dpoo, beta: 1}", "7:18", "`stages.dpo.loss.name`: expected dpo or ipo"),
        ("{beta: 1}", "7:5", "missing key 'name'"),
        ("{name: dpo, bta: 1}", "7:23", "unknown key 'bta'. Did you mean 'beta'?"),
        ("{name: dpo, gamma: 1}", "7:23", "unknown key 'gamma'."),
        ("{name: dpo, label_smoothing: 0.5}", "7:40", "`stages.dpo.loss.label_smoothing`: expected less than 0.5"),
        ("3", "7:11", "got 3"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(load, tmp_path, loss, place, words):
    with pytest.raises(ConfigError) as caught:
        load(loss)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/w.yaml:{place}: ") and words in line


def test_unknown_options_are_told_those_of_their_own_name(load):
    with pytest.raises(ConfigError, match=r"Known here: name, beta, nll_weight, label_smoothing, length_normalized$"):
        load("{name: dpo, gamma: 1}")
