"""The gradient through dropout where a block is recomputed in the backward pass: the same mask, as it has no random
state.

`keras.remat` over `keras.random.dropout` draws another mask in the recomputation (torch, TensorFlow) or raises (JAX).
"""

import keras
import numpy as np
import pytest
from keras import ops

from gemma_keras.backends import to_host
from gemma_keras.layers.dropout import dropout

X = np.random.default_rng(3).normal(size=(2, 8, 16))
KEYS = np.array([3, 4], np.int32)
RATE = 0.5


def block(x):
    return ops.square(dropout(ops.exp(x), RATE, KEYS, 11))


@pytest.mark.parametrize("function", [block, keras.remat(block)], ids=["kept", "recomputed"])
def test_the_gradient_is_that_of_the_mask_of_the_forward_pass(gradient, function):
    ones = np.ones(X.shape)
    mask = np.array(to_host(dropout(ops.convert_to_tensor(ones), RATE, KEYS, 11)))
    assert 0.4 < (mask > 0).mean() < 0.6
    # sum (m exp x)^2 has the derivative 2 (m exp x)^2.
    np.testing.assert_allclose(gradient(lambda x: ops.sum(function(x)), X), 2 * (mask * np.exp(X)) ** 2, rtol=1e-12)
