"""The few hot operations that each backend implements natively, behind one signature.

The files beside this one are the only ones in the library that import JAX, TensorFlow or PyTorch. `reference.py` holds the same operations
in plain `keras.ops`; the tests compare every native one with it.

    attention(queries, keys, values, visible, soft_cap)            mixed values of all heads
    update_cache(cache, new, index)                                 write (b, t, k, h) at slot `index`
    chunked_logsumexp(hidden, matrix, soft_cap, temperature, chunk) logsumexp and entropy without the (b, t, v) logits
    compile_forward(function, models)                               function(*arrays) without gradients
    compile_gradients(function, model)                              function(*arrays) -> (loss, aux), and its gradients
    compile_update(optimizer, model)                                clipped, guarded optimizer step
    add_gradients(a, b)                                             elementwise sum of two gradient lists
    to_host(tensor)                                                 numpy array
"""

import keras

if keras.backend.backend() == "jax":
    from gemma_keras.backends.jax import (
        add_gradients,
        attention,
        chunked_logsumexp,
        compile_forward,
        compile_gradients,
        compile_update,
        to_host,
        update_cache,
    )
elif keras.backend.backend() == "tensorflow":
    from gemma_keras.backends.tensorflow import (
        add_gradients,
        attention,
        chunked_logsumexp,
        compile_forward,
        compile_gradients,
        compile_update,
        to_host,
        update_cache,
    )
elif keras.backend.backend() == "torch":
    from gemma_keras.backends.torch import (
        add_gradients,
        attention,
        chunked_logsumexp,
        compile_forward,
        compile_gradients,
        compile_update,
        to_host,
        update_cache,
    )
else:
    raise ImportError(f"gemma_keras runs on the Keras backends jax, tensorflow and torch. Received: {keras.backend.backend()!r}")

__all__ = [
    "add_gradients",
    "attention",
    "chunked_logsumexp",
    "compile_forward",
    "compile_gradients",
    "compile_update",
    "to_host",
    "update_cache",
]
