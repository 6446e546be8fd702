"""The shapes in the types of the formulas are checked in tests, and cost nothing where jaxtyping is not installed."""

import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
from keras import ops

from gemma_keras import losses
from pipelines.algorithms import advantages, kl, policy_losses


def floats(*shape):
    return ops.convert_to_tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def bools(*shape):
    return ops.convert_to_tensor(np.ones(shape, bool))


MISTAKES = {
    "an axis too many": lambda: losses.next_token_loss(floats(2, 3, 4), bools(2, 3, 4)),
    "axes swapped": lambda: losses.next_token_loss(floats(2, 3), bools(3, 2)),
    "a mask of numbers": lambda: losses.next_token_loss(floats(2, 3), floats(2, 3)),
    "a reward a token": lambda: policy_losses.reinforce_loss(floats(2, 3), floats(2, 3), bools(2, 3)),
    "responses without their prompts": lambda: advantages.leave_one_out(floats(6)),
    "another vocabulary": lambda: kl.exact_token_kl(floats(2, 3, 5), floats(2, 3, 6)),
    "pairs of another number": lambda: losses.bradley_terry_loss(floats(3), floats(4)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_shapes_are_refused(mistake):
    with pytest.raises(jaxtyping.TypeCheckError):
        MISTAKES[mistake]()


def test_right_shapes_are_taken_from_the_host_too():
    assert float(losses.next_token_loss(floats(2, 3), np.ones((2, 3), bool), target_count=1)) != 0
    found, value = advantages.moving_average(floats(2, 3), 0.5)
    assert tuple(found.shape) == (2, 3) and float(value) != 0


@pytest.mark.no_backend
def test_without_jaxtyping_they_say_what_they_say_and_do_nothing():
    code = (
        "import sys; sys.modules['jaxtyping'] = None\n"
        "from gemma_keras import shapes\n"
        "print(shapes.Float[shapes.Array, 'b t'], shapes.Scalar)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "typing.Any"
