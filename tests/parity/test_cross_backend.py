"""From one and the same folder every backend trains and samples alike: held to what torch did, see
`make_cross_backend_oracle.py`."""

import numpy as np
import pytest
from make_cross_backend_oracle import FOLDER, UPDATES, first_rollout, tuning_losses


@pytest.fixture(scope="module")
def oracle():
    """What torch did."""
    with np.load(FOLDER / "torch.npz") as file:
        return dict(file)


def test_tuning_losses_agree_at_every_update(oracle, tmp_path):
    losses = tuning_losses(FOLDER / "pretrained", tmp_path)
    assert losses.shape == oracle["losses"].shape == (UPDATES,)
    assert losses[-5:].mean() < losses[0] - 0.5, "nothing was learned"
    np.testing.assert_allclose(losses, oracle["losses"], rtol=0, atol=1e-3)


def test_first_rollouts_agree_in_99_of_100_tokens(oracle):
    token_ids, response_mask = first_rollout(FOLDER / "tuned")
    either = response_mask | oracle["response_mask"]
    equal = (token_ids == oracle["token_ids"]) & (response_mask == oracle["response_mask"])
    assert either.sum() > 500 and len(np.unique(token_ids[response_mask])) > 30, "too little was sampled to compare"
    assert np.mean(equal[either]) >= 0.99
