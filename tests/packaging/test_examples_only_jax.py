"""The examples where JAX is the only backend and nothing is set, as `pip install gemma-keras[jax]` leaves a machine."""

import pytest

pytestmark = pytest.mark.no_backend


@pytest.fixture(scope="module")
def only_jax(make_environment):
    """An environment with JAX and no other backend."""
    return make_environment("jax")


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("finetune_with_fit", "parameters on jax"),
        ("switch_backend", "largest difference: 0.0e+00"),  # with one backend there is nothing to differ from
        ("train_reward_model", "parameters on jax"),
        ("policy_optimization", "parameters on jax"),
    ],
)
def test_example_runs(name, sign, only_jax, repository, tmp_path):
    script = repository / "examples" / f"{name}.py"
    done = only_jax.run(
        "python", str(script), cwd=tmp_path, timeout=240, PYTHONPATH=str(repository), HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert sign in done.stdout
