"""Saves that are killed where a process cannot be forked, JAX and TensorFlow: old or new, at calls from the first to
the last. What stands there at every call is in test_killed_saves.py; files are written alike on all backends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import killed_save
import pytest

from gemma_keras import GemmaCausalLM
from gemma_keras.backends import to_host

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault("SIGKILL before every call of a save"),
    pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "torch", reason="forked, at every call, in test_killed_saves.py"),
]
PROGRAM = Path(killed_save.__file__)
STRIDES = {"model": 9, "adapter": 5}
"""Calls from one kill to the next: about eight of each."""


def arrays(model) -> dict[str, bytes]:
    return {variable.path: to_host(variable.value).tobytes() for variable in model.variables}


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_a_killed_save_leaves_the_old_or_the_new(tmp_path, repository, kind, record_property):
    folder, outcomes, count = tmp_path / "tuned", [], 0
    make = killed_save.model_of if kind == "model" else killed_save.with_adapter
    old, new = arrays(make(1)), arrays(make(2))
    assert old != new
    while True:
        killed_save.saver(kind, 1)(folder)
        done = subprocess.run(
            [sys.executable, PROGRAM, kind, folder, str(count * STRIDES[kind])], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": f"{repository}:{PROGRAM.parent}"},
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if kind == "model":
            found = arrays(GemmaCausalLM.from_preset(folder))
        else:
            model = killed_save.model_of(1)
            model.load_adapter(folder)
            found = arrays(model)
        if done.returncode == 0:
            break
        outcomes.append(["old", "new"][[list(old.values()), list(new.values())].index(list(found.values()))])
        count += 1
    assert list(found.values()) == list(new.values())
    assert outcomes == sorted(outcomes, reverse=True) and outcomes[0] == "old" and count >= 5
    record_property("cases", count)
