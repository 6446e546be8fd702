"""Start a program in a sandbox, and end it together with all that it started.

1. Where `bwrap` is installed it builds the sandbox, else `launch.py` does with the kernel's own `unshare`. Either way:
   namespaces of its own for processes, network, mounts, users and IPC; /usr and Python read-only and nothing else of
   the disk; a user that owns nothing; limits (`confine.py`).
2. It ends by killing process 1 of its namespace, through a descriptor of that process, and waiting for it: with it the
   kernel kills all others. Killing the outer process alone would leave them running. Where this process is killed,
   process 1 sees its pipe close, and ends.
3. As root, each sandbox has a user number of its own: the limit on processes does not bind root, and a number that
   several share would count the others' processes.
"""

import dataclasses
import functools
import json
import os
import platform
import secrets
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal

from pipelines.graders.code.confine import NOBODY, Limits

Sandbox = Literal["auto", "bubblewrap", "unshare", "none"]
START_SECONDS = 30.0
"""What a sandbox may take to start, on a machine that is busy."""
_FOLDER = str(Path(__file__).parent)
_INSIDE = "/grader"
_START = """import json, sys, types
for name in ("pipelines", "pipelines.graders", "pipelines.graders.code"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [sys.argv[1]] if name.endswith(".code") else []
from pipelines.graders.code.{} import main
main(json.loads(sys.argv[2]))
"""
"""Starts a module of this folder without what its packages import."""


class SandboxError(RuntimeError):
    """There is no sandbox here, or it did not start: not the program's doing."""


def choose(sandbox: Sandbox) -> Literal["bubblewrap", "unshare", "none"]:
    """What `auto` is here; the others as they are, if they work.

    Raises:
        SandboxError: it does not work here. Says why, and what to do.
    """
    if sandbox == "none":
        return "none"
    if sys.platform != "linux":
        raise SandboxError(
            f"Programs are run in a sandbox, which needs Linux. Received: {sys.platform}. Grade on Linux, or, where "
            "you trust every program that the model may write, say `sandbox: none`."
        )
    asked = [name for name in ("bubblewrap", "unshare") if sandbox in ("auto", name)]
    why = {name: _failure(name) for name in asked}
    for name in asked:
        if why[name] is None:
            return name  # type: ignore[return-value]
    said = "; ".join(f"{name}: {reason}" for name, reason in why.items())
    raise SandboxError(
        f"No sandbox to run a model's programs in ({said}). Install bubblewrap or allow user namespaces, or, where you "
        "trust every program that the model may write, say `sandbox: none`."
    )


class Running:
    """A program's process, with lines to and from it; a context that leaves no process behind.

    Args:
        sandbox: of `choose`. limits: what the program may take.

    Raises:
        SandboxError: it did not start.
    """

    def __init__(self, sandbox: Literal["bubblewrap", "unshare", "none"], limits: Limits) -> None:
        self._init: int | None = None
        self._read = b""
        read_info, write_info = os.pipe()
        os.set_blocking(read_info, False)
        try:
            command = _command(sandbox, limits, write_info)
            self._outer = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
                cwd="/",
                pass_fds=() if sandbox == "none" else (write_info,),
                start_new_session=True,
            )
            os.close(write_info)
            write_info = -1
            os.set_blocking(_number(self._outer.stdin), False)
            try:
                self._start(sandbox, read_info)
            except BaseException:
                self.close()
                raise
        finally:
            os.close(read_info)
            if write_info >= 0:
                os.close(write_info)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _start(self, sandbox: str, info: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        if sandbox != "none":
            said = b""
            while b"}" not in said:
                piece = _read_some(info, deadline)
                said += piece
                if not piece:
                    raise SandboxError(self._complaint("it ended before it started"))
            self._init = os.pidfd_open(json.loads(said)["child-pid"])
            if self._outer.poll() is not None:  # the number may be another's by now
                os.close(self._init)
                self._init = None
                raise SandboxError(self._complaint("it ended while it started"))
        line = self.receive(deadline, 1000)
        if line is None or json.loads(line) != {"ready": True}:
            raise SandboxError(self._complaint("the process in it did not get ready"))

    def send(self, line: bytes, deadline: float) -> bool:
        """Hand a line over; False where nobody took it in time (`time.monotonic`)."""
        number = _number(self._outer.stdin)
        while line:
            if not _wait(number, select.POLLOUT, deadline):
                return False
            try:
                line = line[os.write(number, line) :]
            except OSError:
                return False
        return True

    def receive(self, deadline: float, most: int) -> bytes | None:
        """The next line; None where there is none in time, or none of at most so many bytes."""
        while b"\n" not in self._read:
            if len(self._read) > most:
                return None
            piece = _read_some(_number(self._outer.stdout), deadline)
            if not piece:
                return None
            self._read += piece
        line, self._read = self._read.split(b"\n", 1)
        return line if len(line) <= most else None

    def close(self) -> None:
        """Kill what runs, all of it, and wait until it is gone."""
        if self._init is not None:
            try:
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            except ProcessLookupError:
                pass  # ended by itself
            _wait(
                self._init, select.POLLIN, time.monotonic() + START_SECONDS
            )  # readable once the whole namespace is gone
            os.close(self._init)
            self._init = None
        elif self._outer.poll() is None:
            try:
                os.killpg(self._outer.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self._outer.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._outer.kill()
            self._outer.wait()
        for pipe in (self._outer.stdin, self._outer.stdout, self._outer.stderr):
            if pipe is not None:
                pipe.close()

    def _complaint(self, otherwise: str) -> str:
        self._outer.kill()
        said = b""
        if self._outer.stderr is not None:
            os.set_blocking(self._outer.stderr.fileno(), False)
            said = _read_some(self._outer.stderr.fileno(), time.monotonic() + 1.0)
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else otherwise


@functools.cache
def _failure(sandbox: Literal["bubblewrap", "unshare"]) -> str | None:
    """Why a sandbox does not work here; None if it does."""
    if sandbox == "bubblewrap" and shutil.which("bwrap") is None:
        return "not installed"
    if os.geteuid() != 0 and _kernel_version() < (5, 14):
        return f"needs Linux 5.14, or root, to count processes by sandbox; this is {platform.release()}"
    try:
        Running(sandbox, Limits()).close()
    except (SandboxError, OSError) as error:
        return str(error)
    return None


def _kernel_version() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])


def _command(sandbox: str, limits: Limits, info: int) -> list[str]:
    python = os.path.realpath(sys.executable)
    user = _spare_user() if sandbox != "none" and os.geteuid() == 0 else None
    settings: dict[str, Any] = {
        "limits": dataclasses.asdict(limits),
        "isolated": sandbox != "none",
        "renames": sandbox == "unshare" or (sandbox == "bubblewrap" and os.geteuid() == 0),
        "user": user,
    }
    # -P, -s, -S: nothing of ours or of site-packages is to be found; -B: nothing is written. Not -I, which ignores
    # PYTHONHASHSEED: a program whose result depends on the order of a set is to get the same verdict each time.
    start = [python, "-P", "-s", "-S", "-B", "-c"]
    if sandbox == "none":
        return [*start, _START.format("worker"), _FOLDER, json.dumps(settings)]
    roots, links = _read_only()
    hidden = [path for path in _packages() if any(path.startswith(root + "/") for root in roots)]
    if sandbox == "unshare":
        settings |= {"info": info, "read_only": roots, "hidden": hidden, "links": links}
        return [*start, _START.format("launch"), _FOLDER, json.dumps(settings)]
    command = [
        shutil.which("bwrap") or "bwrap",
        "--info-fd",
        str(info),
        "--die-with-parent",
        "--unshare-pid",
        "--as-pid-1",
    ]
    command += ["--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if user is None:
        command += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    else:
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    command += ["--perms", "1777", "--size", str(limits.files), "--tmpfs", "/tmp"]
    for path in roots:
        for parent in reversed(Path(path).parents[:-1]):
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind", path, path]
    for path, target in links:
        command += ["--symlink", target, path]
    for path in hidden:
        command += ["--size", "4096", "--tmpfs", path]
    command += ["--ro-bind", _FOLDER, _INSIDE, "--dev", "/dev", "--proc", "/proc", "--chdir", "/tmp"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*command, "--", *start, _START.format("worker"), _INSIDE, json.dumps(settings)]


def _read_only() -> tuple[list[str], list[tuple[str, str]]]:
    """The folders that Python and its libraries lie in, and links to be made: (path, target)."""
    roots, links = ["/usr"], []
    for path in ("/lib", "/lib64", "/bin"):
        if os.path.islink(path):
            links.append((path, os.readlink(path)))
        elif os.path.isdir(path):
            roots.append(path)
    base = os.path.realpath(sys.base_prefix)
    if not base.startswith("/usr"):
        roots.append(base)
    return roots, links


def _packages() -> list[str]:
    """Folders of installed packages, which may hold tests."""
    base = os.path.realpath(sys.base_prefix)
    found = {sysconfig.get_path(name, vars={"base": base, "platbase": base}) for name in ("purelib", "platlib")}
    return sorted(path for path in found if os.path.isdir(path))


def _spare_user() -> int | None:
    """A user number of the machine that is nobody's, drawn anew; None where there is none but ours."""
    spare: Sequence[tuple[int, int]] = [_mapped("uid_map"), _mapped("gid_map")]
    first, last = max(start for start, _ in spare), min(end for _, end in spare)
    first = max(first, (first + last) // 2)  # real users have low numbers
    return first + secrets.randbelow(last - first) if last - first > 1000 else None


def _mapped(file: str) -> tuple[int, int]:
    """The longest range of numbers in this user namespace, as its first and the one past its last."""
    lines = Path("/proc/self", file).read_text().splitlines()
    start, length = max(((int(line.split()[0]), int(line.split()[2])) for line in lines), key=lambda one: one[1])
    return start, start + length


def _number(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise SandboxError("a pipe to the sandbox is missing")
    return pipe.fileno()


def _read_some(descriptor: int, deadline: float) -> bytes:
    """What there is to read by then; nothing at the end, or where nothing came in time."""
    return os.read(descriptor, 1 << 16) if _wait(descriptor, select.POLLIN, deadline) else b""


def _wait(descriptor: int, event: int, deadline: float) -> bool:
    """Whether a descriptor is ready by then. By poll: select knows no descriptor above 1,023."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
