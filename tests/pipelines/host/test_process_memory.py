"""The memory that a stage reports is its own."""

import subprocess
import sys

import numpy as np
import pytest

from pipelines.host.process_memory import peak_memory_gib

pytestmark = pytest.mark.no_backend


def test_a_peak_is_remembered_after_the_memory_is_given_back():
    before = peak_memory_gib()
    ballast = np.ones(int(before * 2**30) // 8 + 2**24)  # more than was ever held, by 128 MiB and what is held now
    held = peak_memory_gib()
    del ballast
    # The kernel counts pages a processor at a time: the mark may waver by a few hundred KiB.
    assert held > before + 0.12 and abs(peak_memory_gib() - held) < 0.002


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a program's peak starts anew")
def test_a_process_is_not_charged_with_the_one_that_started_it():
    # Half a GiB here; getrusage would report at least as much for a child that only prints.
    ballast = np.ones(2**26)
    code = "from pipelines.host.process_memory import peak_memory_gib; print(peak_memory_gib())"
    child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert ballast.nbytes == 2**29 and 0.005 < child < 0.2
