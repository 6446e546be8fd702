"""Calling a sublayer without Keras' bookkeeping where that would cost more than the arithmetic."""

from keras import ops

from gemma_keras import backends


def direct_call(layer, *args, **kwargs):
    """`layer(*args, **kwargs)`, on an eager backend without the checks of `keras.Layer.__call__`.

    JAX and TensorFlow trace a layer once; torch would pay some 100 µs of checks and conversions a sublayer and token,
    in decoding as much as the products. To be used inside a layer's `call` on its own sublayers alone: the outer call
    has cast the inputs and opened the scope that casts the variables.
    """
    if not backends.IS_EAGER:
        return layer(*args, **kwargs)
    return (layer.call if layer.quantization_mode is None else layer.quantized_call)(*args, **kwargs)


def project(projection, x, dropout_keys=None):
    """`projection(x)` in the dtype of x, also where a policy map gives the projection another one."""
    y = direct_call(projection, x, dropout_keys=dropout_keys)
    return y if y.dtype == x.dtype else ops.cast(y, x.dtype)


def call_model(model, inputs, **kwargs):
    """`model(inputs, **kwargs)` of tensors that are as the model wants them, outside of every layer.

    On an eager backend without the checks, where the model computes in the dtype of its variables: only a mixed one
    needs the scope that casts them.
    """
    is_mixed = model.compute_dtype != model.variable_dtype
    return model(inputs, **kwargs) if is_mixed else direct_call(model, inputs, **kwargs)
