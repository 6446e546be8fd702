"""Run the tests of a program here, with its functions called in the sandbox.

The tests are the data set's and trusted; the program is not, and is not here. What a call gives is plain data
(`literals.py`), so that no test compares with an object of the program's. A test that catches errors does not catch the
program's: they are no `Exception`.
"""

import ast
import builtins
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from pipelines.graders.code.literals import MAX_BYTES, from_text, to_text
from pipelines.graders.code.sandbox import Running


class ProgramFailed(BaseException):
    """The program raised, ended, took too long or gave no plain data: it has failed, whatever its tests would say."""


class BadTests(ValueError):
    """The tests are no Python, or do not call the program: not the program's doing."""


class Program:
    """A program in a sandbox, loaded.

    Args:
        running: the sandbox. source: of the program. seconds: for loading it and all calls.

    Raises:
        ProgramFailed: it could not be loaded.
    """

    def __init__(self, running: Running, source: str, seconds: float) -> None:
        self._running = running
        self._deadline = time.monotonic() + seconds
        self.calls = 0
        self._failure: str | None = None
        self._ask({"source": source})

    def call(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What the program's function `name` gives, as plain data.

        Raises:
            ProgramFailed: it gave none, now or before.
            NotPlain: the arguments are no plain data.
        """
        self.calls += 1
        return self._ask({"name": name, "arguments": to_text((list(args), kwargs))})

    def _ask(self, request: dict[str, Any]) -> Any:
        if self._failure is None:
            try:
                return self._answer(request)
            except ProgramFailed as error:
                self._failure = str(error)
        raise ProgramFailed(self._failure)

    def _answer(self, request: dict[str, Any]) -> Any:
        # A number that cannot be foreseen: a line that was written before it was asked for is no answer.
        asked = secrets.token_hex(16)
        sent = self._running.send(json.dumps({"id": asked, **request}).encode() + b"\n", self._deadline)
        line = self._running.receive(self._deadline, 2 * MAX_BYTES) if sent else None
        if line is None:
            late = time.monotonic() >= self._deadline
            raise ProgramFailed("it took too long" if late else "it ended, or wrote what is no answer")
        try:
            reply = json.loads(line)
            if not isinstance(reply, dict) or reply.get("id") != asked:
                raise ProgramFailed("it wrote an answer to what was not asked")
            if not isinstance(reply.get("value"), str):
                raise ProgramFailed(f"it raised {str(reply.get('raised'))[:300]}")
            return from_text(reply["value"])
        except (ValueError, RecursionError) as error:  # NotPlain is one
            raise ProgramFailed(f"it wrote what is no answer: {error}"[:300]) from error


def run_tests(program: Program, tests: str, entry_point: str | None, helpers: str = "") -> None:
    """Run tests; returns where all hold.

    Args:
        program: loaded. tests: source that defines `check(candidate)`, as HumanEval's, or asserts, as MBPP's.
        entry_point: the function to be tested; None: `names_under_test`.
        helpers: source of functions that the tests use, in which the entry point may stand too: HumanEval's prompt.

    Raises:
        ProgramFailed: as `Program.call`. BadTests: the tests do not call the program, or are no Python.
        Exception: a test does not hold.
    """
    # The optimizer of `python -O` would drop each assert, and pass every program.
    try:
        code = [compile(text, name, "exec", optimize=0) for text, name in ((helpers, "helpers"), (tests, "tests"))]
    except (SyntaxError, ValueError) as error:
        raise BadTests(f"The tests are no Python: {error}") from error
    has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in ast.parse(tests).body)
    if has_check and entry_point is None:
        raise BadTests("Tests that define `check(candidate)` need the name of the function: give `entry_point`.")
    names = {entry_point} if entry_point is not None else names_under_test(f"{helpers}\n{tests}")
    proxies = {name: _proxy(program, name) for name in names if name is not None}
    namespace: dict[str, Any] = {"__name__": "tests"}
    exec(code[0], namespace)  # noqa: S102
    namespace |= proxies
    exec(code[1], namespace)  # noqa: S102
    if has_check:
        namespace["check"](namespace[entry_point or ""])
    if not program.calls:
        raise BadTests(f"The tests do not call the program ({', '.join(map(str, names))}).")


def names_under_test(source: str) -> set[str]:
    """The names that tests read and nothing defines; without one, the first that an assert calls.

    MBPP has tests such as `assert sum(10, 15) == 6`, of a function that is called as one of Python's. What the program
    defines has no say: it could define `sorted`, too.
    """
    tree = ast.parse(source)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
    unknown = {node.id for node in names} - defined - set(dir(builtins))
    calls = [node.func for check in tree.body if isinstance(check, ast.Assert) for node in ast.walk(check)
             if isinstance(node, ast.Call)]  # fmt: skip
    return unknown or {call.id for call in calls[:1] if isinstance(call, ast.Name)}


def _proxy(program: Program, name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return program.call(name, args, kwargs)

    call.__name__ = name
    return call
