"""Times of the steps of Keras' `fit`, ours and KerasHub's alike."""

import keras


class Steps(keras.callbacks.Callback):
    """A lap of the stopwatch at each batch's end: what `fit` does before the first and after the last is no step."""

    def __init__(self, stopwatch):
        super().__init__()
        self.stopwatch = stopwatch

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.stopwatch.begin()

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # an asynchronous backend has only promised it so far
        self.stopwatch.lap()
