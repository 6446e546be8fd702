"""Models that several comparisons start from."""

import pytest
from policy_fixture import world_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Of a policy and a reference that differ, and that end some of their responses."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: world_model(folder / name, seed=seed, scale=4.0, stop_scale=5.0) / "model"
        for name, seed in (("policy", 3), ("reference", 4))
    }
