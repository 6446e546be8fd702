"""Keras' `fit` on arrays, on TensorFlow: tf.data without its autotune."""

import tensorflow as tf
from keras.src.trainers.data_adapters import array_data_adapter


class UntunedArrays(array_data_adapter.ArrayDataAdapter):
    """Keras' batches of arrays, in Keras' order, which nothing tunes meanwhile.

    tf.data's autotune sleeps twice as long each time, and whoever drops the iterator waits until it wakes: an epoch
    could end up to twice as late as its last batch. Slicing arrays leaves nothing to tune.
    """

    def get_tf_dataset(self):
        options = tf.data.Options()
        options.autotune.enabled = False
        return super().get_tf_dataset().with_options(options)


def fit_arguments(arguments):
    """The arguments of Keras' `fit`, arrays wrapped as `UntunedArrays`; anything else as it is.

    Args:
        arguments: dict with at least `x`, `y`, `batch_size` and `validation_data`.
    """
    if arguments.get("validation_split"):
        return arguments  # Keras splits arrays alone
    ready, batch_size = dict(arguments), arguments["batch_size"]
    data = tuple(arguments.get(name) for name in ("x", "y", "sample_weight"))
    if array_data_adapter.can_convert_arrays(data):
        options = {"shuffle": arguments.get("shuffle", True), "class_weight": ready.pop("class_weight", None)}
        train = UntunedArrays(*data, batch_size=batch_size, steps=arguments.get("steps_per_epoch"), **options)
        ready |= {"x": train, "y": None, "sample_weight": None}
    held_out = arguments["validation_data"]
    if isinstance(held_out, (tuple, list)) and array_data_adapter.can_convert_arrays(tuple(held_out)):
        batch_size = arguments.get("validation_batch_size") or batch_size
        steps = arguments.get("validation_steps")
        ready["validation_data"] = UntunedArrays(*held_out, batch_size=batch_size, steps=steps)
    return ready
