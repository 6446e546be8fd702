"""Whether a program passes its tests."""

import dataclasses
import time
from collections.abc import Sequence

from pipelines.graders.code.asserts import BadTests, Program, ProgramFailed, run_tests
from pipelines.graders.code.confine import Limits
from pipelines.graders.code.sandbox import Running, Sandbox, choose

AT_ONCE = 8
"""Programs that may run side by side."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a program.

    Attributes:
        passed: whether all its tests hold. reason: the first thing that failed, in a line; "" if it passed.
        seconds: that it took, with the sandbox.
    """

    passed: bool
    reason: str
    seconds: float


def grade_code(
    source: str,
    tests: str | Sequence[str],
    entry_point: str | None = None,
    helpers: str = "",
    sandbox: Sandbox = "auto",
    seconds: float = 5.0,
) -> Verdict:
    """Run a program's tests, the program in a sandbox, the tests here.

    Functions are called with plain data and give plain data: a generator, or an object of the program's own class, is a
    failure, and so is any error. What a function does to its arguments is not seen.

    Args:
        source: the program. tests: `check(candidate)` or asserts, one text or several (`asserts.run_tests`).
        entry_point: the function to be tested; None: whatever the asserts call. helpers: trusted source that the tests
            need, such as HumanEval's prompt.
        sandbox: "bubblewrap", "unshare", "auto" (the first of them that works), or "none": no protection at all.
        seconds: float > 0. Wall time for the program, loading included.

    Raises:
        SandboxError: no such sandbox here, or it did not start. BadTests: tests that are no Python or call nothing.
    """
    started = time.monotonic()
    text = tests if isinstance(tests, str) else "\n".join(tests)
    reason = ""
    with Running(choose(sandbox), Limits(seconds=seconds)) as running:
        try:
            run_tests(Program(running, source, seconds), text, entry_point, helpers)
        except ProgramFailed as error:
            reason = str(error)
        except BadTests:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:300]
    return Verdict(not reason, reason, time.monotonic() - started)
