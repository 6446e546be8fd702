"""What the head adds to the peak memory of `fit`, in copies of the float32 logits; a head that stores them takes 2 to
4."""

import os
import pathlib
import subprocess
import sys

import pytest

PROBE = pathlib.Path(__file__).with_name("head_memory_probe.py")
VOCABULARY = 131_072


def peak_bytes(tokens, which, repository):
    # A process each: a process' peak never goes down again. The base is compiled too, so that the compiler's own memory
    # is in both.
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, str(PROBE), str(tokens), str(VOCABULARY), which]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return int(finished.stdout.split()[-1])


def copies_added(tokens, repository):
    """Peak with every token in the head, less the peak with a handful in it, divided by the size of all logits."""
    added = peak_bytes(tokens, "all", repository) - peak_bytes(tokens, "few", repository)
    return added / (4 * tokens * VOCABULARY)


@pytest.mark.once
def test_fit_adds_less_than_a_copy_of_the_logits(repository):
    share = copies_added(2048, repository)
    print(f"{os.environ['KERAS_BACKEND']}: {share:.3f} copies at 2,048 tokens")
    assert share < 0.7


@pytest.mark.slow
def test_the_share_falls_with_the_number_of_tokens(repository):
    small, large = copies_added(2048, repository), copies_added(4096, repository)
    print(f"{os.environ['KERAS_BACKEND']}: {small:.3f} copies at 2,048 tokens, {large:.3f} at 4,096")
    # One chunk is alive at a time whatever the number of tokens; 0.05 is what two runs of one program may differ by.
    assert large < 0.7 and large < small + 0.05
