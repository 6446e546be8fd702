"""The memory of devices, on PyTorch."""

import torch


def peak_device_memory():
    """Most bytes that tensors ever held on one accelerator; None on a CPU, whose memory is the process'."""
    if not torch.cuda.is_available():
        return None
    return max(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
