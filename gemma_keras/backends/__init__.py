"""The few hot operations that each backend implements natively, behind one signature.

The packages beside this file, one a backend, are the only ones in the library that import JAX, TensorFlow or PyTorch.
`reference.py` holds the same operations in plain `keras.ops`, `reference_sampling.py` the draw of a token; the tests
compare every native one with it.

    linear(x, kernel)                                               product with a weight matrix
    decoding_weights(steps)                                         context in which `linear` and `output_logits` may
                                                                    prepare constant weights once
    reshape(x, shape)                                               of the heads, without Keras' checks where eager
    rms_norm(x, scale, epsilon)                                     Gemma's norm
    rotate(x, cos, sin)                                             rotary embedding of all heads
    gated_gelu(gate, x)                                             `gelu(gate) * x`
    attention(queries, keys, values, visible, soft_cap)            mixed values of all heads
    causal_attention(queries, keys, values, tokens, soft_cap)      the same of a row's tokens to each other, without (b,
                                                                    t, t) scores or mask
    is_plain(segments)                                              whether the order of tokens alone says who sees whom
    update_cache(cache, new, index)                                 write (b, t, k, h) at slot `index`
    output_logits(hidden, matrix)                                   float32 product with the output embedding
    chunked_log_probs(hidden, matrix, target_ids, soft_cap,         log-probabilities of targets and entropy without the
                      temperature, chunk)                           (b, t, v) logits
    draw_tokens(logits, uniforms, temperature,                      one token a row, and its log-probability
                top_k, top_p)
    remat(function)                                                 function(x) that the backward pass computes again
    weighted_log_prob(hidden, matrix, target_ids, weights,          their sum times known weights, whose gradients come
                      soft_cap, temperature, chunk)                 from the same logits, and themselves
    compile_forward(function, models, name)                         function(*arrays) without gradients
    compile_gradients(function, model, name)                        function(*arrays) -> (loss, aux), and its gradients,
                                                                    added to those of earlier calls
    zero_gradients(model)                                           what these sums start from
    compile_update(optimizer, model)                                clipped, guarded optimizer step
    fast_updates(optimizer)                                         context in which Keras' `fit` updates fast
    while_loop(goes_on, body, state)                                state after so many steps
    to_host(tensor)                                                 numpy array
    fit_arguments(arguments)                                        what Keras' `fit` gets
    peak_device_memory()                                            most bytes held on one accelerator, None on a CPU
    DENSE_TOKENS                                                    rows up to this length are faster with a mask
    IS_EAGER                                                        False where code is traced once and then runs
    compiled
"""

import importlib
import weakref

import keras
import numpy as np

from gemma_keras import limits
from gemma_keras.program_shapes import meet_shape

if keras.backend.backend() not in ("jax", "tensorflow", "torch"):
    raise ImportError(
        f"gemma_keras runs on the Keras backends jax, tensorflow and torch. Received: {keras.backend.backend()!r}"
    )
_native = importlib.import_module(f"gemma_keras.backends.{keras.backend.backend()}")

DENSE_TOKENS = limits.DENSE_TOKENS[keras.backend.backend()]
IS_EAGER = _native.IS_EAGER
linear = _native.linear
decoding_weights = _native.decoding_weights
reshape = _native.reshape
rms_norm = _native.rms_norm
rotate = _native.rotate
gated_gelu = _native.gated_gelu
attention = _native.attention
causal_attention = _native.causal_attention
is_plain = _native.is_plain
remat = _native.remat
update_cache = _native.update_cache
output_logits = _native.output_logits
chunked_log_probs = _native.chunked_log_probs
draw_tokens = _native.draw_tokens
weighted_log_prob = _native.weighted_log_prob


def compile_forward(function, models, name="forward"):
    """`function(*arrays)` compiled, without gradients; reads the present values of the models' variables and knows
    their adapters.

    Args:
        function: from arrays to a structure of arrays. models: all whose variables it reads.
        name: under which its shapes are counted, see `gemma_keras/program_shapes.py`.
    """
    programs = {}
    # Programs are kept in tables keyed by their model, which they must not keep alive.
    references = [weakref.ref(model) for model in models]

    def run(*arrays):
        alive = [reference() for reference in references]
        # Which adapter is active is part of the program, not a value: another one, or none, is another program.
        state = tuple(getattr(model, "adapter_state", None) for model in alive)
        if state not in programs:
            programs[state] = _counted(_native.compile_forward(function, alive), name)
        return programs[state](*arrays)

    return run


def compile_gradients(function, model, name="gradients"):
    """Gradients of `function(*arrays) -> (loss, aux)`: a callable (*arrays, sums=None) → (loss, aux, gradients).

    Args:
        model: whose trainable variables they are of. name: under which its shapes are counted.

    gradients: list in the order of `model.trainable_variables`, added to `sums` where given, which are used up.
    """
    return _counted(_native.compile_gradients(function, model), name)


zero_gradients = _native.zero_gradients
compile_update = _native.compile_update
fast_updates = _native.fast_updates
to_host = _native.to_host
while_loop = _native.while_loop
fit_arguments = _native.fit_arguments
peak_device_memory = _native.peak_device_memory


def _counted(run, name):
    """`run` as it is; the shapes that it is called with are counted."""
    seen = set()

    def counted(*arrays, **options):
        # An option says which program it is by being there; its own shapes follow from the model.
        given = tuple(option for option, value in options.items() if value is not None)
        shapes = (given, *(tuple(np.shape(leaf)) for leaf in keras.tree.flatten(arrays)))
        if shapes not in seen:
            seen.add(shapes)
            meet_shape(name, len(seen))
        return run(*arrays, **options)

    return counted
