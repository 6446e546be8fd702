"""A kind that other programs have: the complaint says what it is called here, and no workflow may use the name."""

import pytest

from pipelines.host.errors import ConfigError
from pipelines.stages import registry
from pipelines.workflow import loading

pytestmark = pytest.mark.no_backend
WORKFLOW = "name: w\nmodel: google/gemma-3-270m\nstages:\n  a:\n    kind: {}\n    data: {{path: rows.jsonl}}\n"
POLICY = "Here that is `kind: policy_optimization`"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sft", "Here that is `kind: instruction_tuning`."),
        ("SFT", "Here that is `kind: instruction_tuning`."),
        ("fine-tuning", "Here that is `kind: instruction_tuning`."),
        ("reward", "Here that is `kind: reward_modeling`."),
        ("rm", "Here that is `kind: reward_modeling`."),
        ("rl", f"{POLICY}."),
        ("rloo", f"{POLICY} with `algorithm: rloo`."),
        ("reinforce", f"{POLICY} with `algorithm: reinforce`."),
        ("grpo", f"{POLICY} with `algorithm: grpo`."),
        ("ppo", f"{POLICY} with `algorithm: ppo`."),
        ("dpo", "Here that is `kind: preference_optimization` with `loss: dpo`."),
        ("KTO", "Here that is `kind: preference_optimization` with `loss: kto`."),
        ("eval", "Here that is `kind: evaluation`."),
        ("instruction_tunin", "Did you mean 'instruction_tuning'?"),
        ("pony", ""),
    ],
)
def test_the_hint_and_the_refusal(tmp_path, name, hint):
    (tmp_path / "w.yaml").write_text(WORKFLOW.format(name))
    with pytest.raises(ConfigError) as caught:
        loading.load(tmp_path / "w.yaml")
    (line,) = str(caught.value).splitlines()
    known = f"Known: {', '.join(registry.FOLDERS)}"
    assert line.startswith(f"{tmp_path}/w.yaml:5:11: unknown kind {name!r}.{' ' if hint else ''}{hint}")
    assert line.endswith(known)


def test_no_name_means_two_kinds_or_one_that_there_is():
    names = [name for config in registry.KINDS.values() for name in config.elsewhere]
    assert len(set(names)) == len(names) and not set(names) & set(registry.KINDS)
