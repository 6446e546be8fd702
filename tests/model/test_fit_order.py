"""`fit` on arrays sees the batches that Keras' own `fit` sees, in the same order; on TensorFlow nothing tunes them
meanwhile."""

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, backends

SIZES = {
    "vocabulary_size": 300, "num_layers": 1, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "hidden_dim": 16, "intermediate_dim": 32,
}  # fmt: skip
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data feeds TensorFlow alone")


def losses(**options):
    """Of two epochs over five shuffled rows, two at a time: three batches, the last smaller."""
    random = np.random.default_rng(0)
    ids = random.integers(8, 300, (7, 6))
    data = {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool), "is_target": random.random(ids.shape) < 0.7}
    rows, held_out = ({name: array[part] for name, array in data.items()} for part in (slice(5), slice(5, 7)))
    keras.utils.set_random_seed(5)
    model = GemmaCausalLM(GemmaBackbone(GemmaConfig(**SIZES), seed=3))
    model.compile(keras.optimizers.SGD(0.1))
    return model.fit(rows, batch_size=2, epochs=2, verbose=0, validation_data=held_out, **options).history


@on_tensorflow
@pytest.mark.parametrize("options", [{}, {"steps_per_epoch": 1, "validation_steps": 1}], ids=["all", "steps"])
def test_losses_are_those_of_kerass_own_batches(options, monkeypatch):
    ours = losses(**options)
    monkeypatch.setattr(backends, "fit_arguments", lambda arguments: arguments)
    assert ours == losses(**options)


@on_tensorflow
def test_batches_weights_and_order_are_kerass():
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

    x, y = np.arange(7), np.array([0, 1, 1, 0, 1, 0, 1])

    def batches(wrapped):
        keras.utils.set_random_seed(5)
        arguments = {"x": x, "y": y, "batch_size": 3, "shuffle": True, "class_weight": {0: 0.5, 1: 2.0}}
        if wrapped:
            ready = backends.fit_arguments({**arguments, "validation_data": (x[:2], y[:2])})
            assert ready["y"] is None and "class_weight" not in ready
            assert [ready[name].get_tf_dataset().options().autotune.enabled for name in ("x", "validation_data")] == [
                False,
                False,
            ]
            assert ready["x"].num_batches == 3 and ready["validation_data"].num_batches == 1
            dataset = ready["x"].get_tf_dataset()
        else:
            dataset = ArrayDataAdapter(**arguments).get_tf_dataset()
        return [[part.numpy().tolist() for part in batch] for _ in range(2) for batch in dataset]

    found = batches(wrapped=True)
    assert found == batches(wrapped=False)
    assert [len(batch[0]) for batch in found] == [3, 3, 1] * 2 and found[0][0] != [0, 1, 2]
    for numbers, targets, weights in found:
        assert targets == y[numbers].tolist() and weights == [2.0 if target else 0.5 for target in targets]


def test_what_holds_no_arrays_goes_on_as_it_is():
    arguments = {"x": iter([]), "y": None, "batch_size": 2, "validation_data": None}
    assert backends.fit_arguments(arguments) == arguments
    arguments = {"x": np.zeros(4), "y": None, "batch_size": 2, "validation_data": None, "validation_split": 0.5}
    assert backends.fit_arguments(arguments) is arguments
