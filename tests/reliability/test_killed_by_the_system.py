"""A runner and its stages' processes, killed by `strace` at the n-th call of a kind that one of them makes: the next
run ends as one that nobody killed. The kernel takes the signal at the call itself, with nothing of Python in between.
"""

import shutil

import pytest
from runner_processes import Run

pytestmark = [
    pytest.mark.no_backend,
    pytest.mark.slow,
    pytest.mark.fault("SIGKILL at every call of the runner and of a state"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
CALLS = {
    "mkdir": (1, 2, 3, 5), "rename,renameat2": (1, 2, 3, 6), "fsync": (1, 2, 5, 7, 11, 16, 22, 28),
    "unlink,unlinkat,rmdir": (1, 3, 9), "pwrite64": (1,), "ftruncate": (1, 2),
}  # fmt: skip
STATES = ("--set", "state.every_seconds=1e-9", "--quiet")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Digests of a run without faults."""
    run = Run(tmp_path_factory.mktemp("uninterrupted"), *STATES)
    assert run.finish().returncode == 0
    return run.models()


@pytest.mark.parametrize(("call", "n"), [(call, n) for call, numbers in CALLS.items() for n in numbers])
def test_a_process_killed_at_a_call(tmp_path, uninterrupted, call, n):
    """A killed stage is said by its runner, a killed runner says nothing."""
    run = Run(tmp_path, *STATES)
    traced = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}")
    killed = run.finish(through=(*traced, "-e", f"inject={call}:signal=SIGKILL:when={n}"))
    assert killed.returncode == -9 or (killed.returncode == 70 and "was killed (signal 9)" in killed.error)
    last = run.finish()
    assert last.returncode == 0, last.error
    assert run.models() == uninterrupted
    assert run.left_overs() == []
    assert not list(run.out.glob(".*.tmp"))
