"""The recipe for a backend operation, followed: the native one of the backend under test equals the reference."""

import pytest
from recipe import Recipe

PROGRAM = """
import numpy as np
from gemma_keras import backends
from gemma_keras.backends import reference
from keras import ops

gate, up = (np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32) for seed in (0, 1))
by_hand = gate / (1 + np.exp(-gate)) * up
for operation in (backends.gated_silu, reference.gated_silu):
    found = backends.to_host(operation(ops.convert_to_tensor(gate), ops.convert_to_tensor(up)))
    np.testing.assert_allclose(found, by_hand, atol=1e-6)
assert backends.gated_silu is not reference.gated_silu
"""


def test_each_native_operation_equals_the_reference(tmp_path):
    recipe = Recipe("A backend operation", tmp_path)
    names = ("reference", "jax/__init__", "tensorflow/__init__", "torch/__init__", "__init__")
    assert recipe.changed == [f"gemma_keras/backends/{name}.py" for name in names]
    done = recipe.python("-c", PROGRAM)
    assert done.returncode == 0, done.stderr


@pytest.mark.no_backend
def test_the_operation_of_the_recipe_is_not_yet_there():
    """Else the recipe would show what is done already."""
    from recipe import ROOT

    assert "def gated_silu" not in (ROOT / "gemma_keras/backends/reference.py").read_text()
