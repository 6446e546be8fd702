"""What Keras has to be told to export a model, and to compile one again that it read from a file."""

import warnings
from typing import Any

import keras

_INPUTS = {"token_ids": "int32", "padding_mask": "bool"}


def export_options(format: str, input_signature: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `keras.Model.export` after the path.

    Args:
        format: Keras' name of it. input_signature: the user's, or None for free sizes. options: the user's others.

    Raises:
        ValueError: a format that the backend cannot write, or free sizes where it knows none.
    """
    backend = keras.backend.backend()
    if backend == "torch" and format == "tf_saved_model":
        raise ValueError(
            "Keras cannot write a SavedModel of this model on torch. Export it with KERAS_BACKEND=jax or tensorflow, "
            "or pass format='torch' with an input_signature of fixed shapes"
        )
    if input_signature is None and format == "torch":
        raise ValueError(
            "PyTorch's export needs fixed shapes. Pass input_signature=[{'token_ids': keras.InputSpec(shape=(b, t), "
            "dtype='int32'), 'padding_mask': keras.InputSpec(shape=(b, t), dtype='bool')}] with numbers for b and t"
        )
    if input_signature is None:
        specs = {name: keras.InputSpec(dtype=dtype, shape=(None, None), name=name) for name, dtype in _INPUTS.items()}
        input_signature = [specs]
        if backend == "jax" and format == "tf_saved_model":
            # Keras would give each input a length of its own, and the two could not meet.
            shapes = [dict.fromkeys(_INPUTS, "(b, t)")]
            own = {"jax2tf_kwargs": {"native_serialization": True, "polymorphic_shapes": shapes}}
            options = {**own, **options}
    return {"format": format, "input_signature": input_signature, **options}


def compile_again(model: Any, config: dict[str, Any], **options: Any) -> None:
    """Compile a model as its file says, and give its optimizer the variables that the file has values for. Keras leaves
    that to a model with a `compile` of its own.

    Args:
        config: of `get_compile_config`. options: what `model.compile` takes beside, not serialized.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a loss was warned of when it was chosen
        model.compile(**keras.saving.deserialize_keras_object(config), **options)
    if model.optimizer is not None:
        model.optimizer.build(model.trainable_variables)
