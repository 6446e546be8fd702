"""What a program finds around it, and that a sandbox that could be here is."""

import os
import sys

import pytest
from sandboxes import BUBBLEWRAP, each_sandbox

from pipelines.graders.code import sandbox
from pipelines.graders.code.grade import grade_code
from pipelines.graders.code.sandbox import SandboxError, choose

pytestmark = [pytest.mark.no_backend, pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")]


def seen(box, expression, before=""):
    """What an expression is in a sandbox."""
    source = f"import os, socket, resource\n{before}\ndef f():\n    return {expression}"
    verdict = grade_code(source, "raise RuntimeError(repr(f()))", "f", sandbox=box)
    assert verdict.reason.startswith("RuntimeError: "), verdict.reason
    return eval(verdict.reason.removeprefix("RuntimeError: "))


@each_sandbox
def test_it_works_here(box):
    """Where the tool is, a sandbox that does not start is a failure and no reason to skip."""
    assert choose(box) == box
    assert choose("auto") == ("bubblewrap" if BUBBLEWRAP else "unshare")


@each_sandbox
@pytest.mark.parametrize("name", ["pid", "net", "mnt", "user", "ipc", "uts"])
def test_its_namespaces_are_its_own(box, name):
    path = f"/proc/self/ns/{name}"
    assert seen(box, f"os.readlink({path!r})") not in ("", os.readlink(path))


@each_sandbox
def test_it_is_somebody_else_without_rights(box):
    assert seen(box, "(os.getuid(), os.getgid())") == (65534, 65534)
    # Only root may leave its other groups; to anybody else they are nobody's here.
    assert set(seen(box, "os.getgroups()")) <= (set() if os.geteuid() == 0 else {65534})
    status = seen(box, "[l for l in open('/proc/self/status').read().splitlines() if l.startswith(('Cap', 'NoNew'))]")
    lines = dict(line.split(":\t") for line in status)
    assert lines["NoNewPrivs"] == "1"
    assert {int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


@each_sandbox
def test_it_sees_python_and_nothing_of_ours(box, tmp_path):
    assert set(seen(box, "os.listdir('/')")) <= {
        "usr", "lib", "lib64", "bin", "proc", "dev", "tmp", "grader", *sys.base_prefix.split("/")[1:2],
    }  # fmt: skip
    assert not seen(box, f"os.path.exists({str(tmp_path)!r}) or os.path.exists({__file__!r})")
    assert set(seen(box, "list(os.environ)")) <= {"PATH", "LANG", "PYTHONHASHSEED", "PWD", "LC_CTYPE"}
    assert seen(box, "os.listdir('/tmp')") == []
    packages = [path for path in sandbox._packages() if os.listdir(path)]
    assert packages and not any(seen(box, f"os.path.exists({path!r}) and os.listdir({path!r})") for path in packages)
    assert seen(box, "len([p for p in os.listdir('/proc') if p.isdigit()])") <= 3


DESCRIPTORS = """
def descriptors():
    found = []
    for number in range(64):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    return found
"""


@each_sandbox
def test_it_holds_no_descriptor_but_the_two_pipes(box):
    opened = seen(box, "descriptors()", DESCRIPTORS)
    assert sum(name.startswith("pipe:") for name in opened) == 2
    assert {name for name in opened if not name.startswith("pipe:")} == {"/dev/null"}


WRITES = """
def writes(path):
    try:
        open(path, "a").close()
        return True
    except OSError:
        return False
"""


@each_sandbox
@pytest.mark.parametrize("path", ["/usr/x", "/x", "/dev/x", "/usr/bin/python3", "/proc/sys/kernel/hostname"])
def test_it_can_write_nowhere_but_in_tmp(box, path):
    assert seen(box, f"[writes('/tmp/x'), writes({path!r})]", WRITES) == [True, False]


@each_sandbox
def test_its_limits_are_set(box):
    names = ("CPU", "AS", "FSIZE", "NOFILE", "NPROC", "CORE")
    got = seen(box, f"[resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in {names}]")
    assert got == [(one, one) for one in (7, 512 << 20, 4 << 20, 64, 8, 0)]


@each_sandbox
def test_the_order_of_a_set_is_the_same_each_time(box):
    assert len({seen(box, "hash('a')") for _ in range(3)}) == 1


@each_sandbox
def test_modules_of_the_library_are_there(box):
    modules = "math, re, collections, heapq, datetime, random, hashlib, itertools, typing, statistics, decimal, bisect"
    assert seen(box, "math.floor(2.5)", f"import {modules}") == 2


def test_no_sandbox_is_said_so(monkeypatch):
    monkeypatch.setattr(sandbox, "_failure", lambda name: f"{name} is broken")
    with pytest.raises(SandboxError, match=r"bubblewrap: bubblewrap is broken; unshare: .*say `sandbox: none`"):
        choose("auto")
    with pytest.raises(SandboxError, match=r"\(unshare: unshare is broken\)"):
        choose("unshare")
    monkeypatch.setattr(sandbox, "_failure", lambda name: None if name == "unshare" else "not installed")
    assert choose("auto") == "unshare" and choose("none") == "none"


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="needs Linux. Received: darwin"):
        choose("auto")
    assert choose("none") == "none"


def test_a_sandbox_that_does_not_start_says_why_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr(sandbox, "_command", lambda *a: ["/bin/sh", "-c", "echo it is broken >&2"])
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxError, match="it is broken"):
        sandbox.Running("unshare", sandbox.Limits())
    assert set(os.listdir("/proc/self/fd")) == before


def test_none_grades_too():
    assert grade_code("def f(x): return x + 1", "assert f(1) == 2", sandbox="none").passed
    assert not grade_code("def f(x): return x", "assert f(1) == 2", sandbox="none").passed
    assert grade_code("while True: pass", "assert f(1) == 2", sandbox="none", seconds=0.5).reason == "it took too long"
