"""The memory of devices, on TensorFlow."""

import tensorflow as tf


def peak_device_memory():
    """Most bytes that tensors ever held on one accelerator; None on a CPU, whose memory is the process'."""
    count = len(tf.config.list_logical_devices("GPU"))
    peaks = (tf.config.experimental.get_memory_info(f"GPU:{device}")["peak"] for device in range(count))
    return max(peaks, default=None)
