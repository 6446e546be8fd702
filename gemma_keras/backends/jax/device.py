"""The memory of devices, on JAX."""

import jax


def peak_device_memory():
    """Most bytes that arrays and programs ever held on one accelerator; None on a CPU, whose memory is the process'."""
    # A CPU device has no statistics.
    peaks = [stats["peak_bytes_in_use"] for stats in (one.memory_stats() for one in jax.local_devices()) if stats]
    return max(peaks, default=None)
