"""Hostile programs: each is scored as failed, leaves no process and nothing else, and does not slow the next."""

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_programs import PROGRAMS, STARVES
from sandboxes import each_sandbox

from pipelines.graders.code import sandbox
from pipelines.graders.code.grade import grade_code

pytestmark = [
    pytest.mark.no_backend,
    pytest.mark.fault("code graders: exits, `__eq__`, forgeries, fork bombs, files, sockets, signals"),
    pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux"),
]
RIGHT, TESTS = "def f(x): return x + 1", "assert f(3) == 4"


@pytest.fixture
def namespaces(monkeypatch):
    """The process namespaces of all sandboxes of a test, as links of /proc."""
    found = []
    opened = os.pidfd_open

    def pidfd_open(pid):
        found.append(os.readlink(f"/proc/{pid}/ns/pid"))
        return opened(pid)

    monkeypatch.setattr(sandbox.os, "pidfd_open", pidfd_open)
    return found


def processes_of(namespaces):
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.readlink(folder / "ns" / "pid") in namespaces:
                found.append((folder / "cmdline").read_text()[:100])
        except OSError:
            pass
    return found


def children():
    return {path.read_text() for path in Path("/proc/self/task").glob("*/children")}


@pytest.fixture
def server():
    """A TCP and an abstract server that hand out a number: (port, name, number, connections)."""
    number, name = secrets.randbelow(10**12) + 10**10, f"grader-{secrets.token_hex(8)}"
    tcp, local = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    local.bind(f"\0{name}")
    local.listen()
    connections = []

    def serve(listening):
        while True:
            try:
                connection, address = listening.accept()
            except OSError:
                return
            connections.append(address)
            connection.sendall(str(number).encode())
            connection.close()

    threads = [threading.Thread(target=serve, args=(listening,), daemon=True) for listening in (tcp, local)]
    for thread in threads:
        thread.start()
    yield tcp.getsockname()[1], name, number, connections
    for listening in (tcp, local):
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
    for thread in threads:  # or the next test would count them
        thread.join()


def aimed(name, server, folder):
    """A hostile program with what it aims at, the number that it must not get, and the connections to the server."""
    port, socket_name, number, connections = server
    file = folder / "expected"
    file.write_text(str(number))
    source = PROGRAMS[name]
    for word, value in (("PORT", port), ("SOCKET", socket_name), ("FILE", file), ("PARENT", os.getpid())):
        source = source.replace(word, str(value))
    return source, number, connections


@each_sandbox
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_fails_and_leaves_nothing(box, name, server, namespaces, tmp_path):
    source, number, connections = aimed(name, server, tmp_path)
    sandbox.choose(box)
    before, opened, threads = children(), os.listdir("/proc/self/fd"), threading.active_count()
    verdict = grade_code(source, f"assert f(3) == {number}, 'expected={number}'", "f", sandbox=box, seconds=1.0)
    assert not verdict.passed and verdict.reason
    assert verdict.seconds < 10
    assert len(namespaces) >= 1 and processes_of(namespaces) == []
    assert children() == before and os.listdir("/proc/self/fd") == opened and threading.active_count() == threads
    assert connections == []
    following = grade_code(RIGHT, TESTS, "f", sandbox=box)
    assert following.passed and following.seconds < 2


@pytest.mark.parametrize("name", ["the_file", "tcp", "abstract_socket"])
def test_without_a_sandbox_they_reach_what_they_aim_at(name, server, tmp_path):
    """The test of the test above: it is the sandbox that keeps them from it."""
    source, number, connections = aimed(name, server, tmp_path)
    assert grade_code(source, f"assert f(3) == {number}", "f", sandbox="none").passed
    assert len(connections) == (name != "the_file")


@each_sandbox
def test_processes_are_found_where_they_are(box, namespaces):
    """And what is left would be seen."""
    with sandbox.Running(sandbox.choose(box), sandbox.Limits()):
        assert len(processes_of(namespaces[-1:])) >= 1
    assert processes_of(namespaces) == []


@each_sandbox
def test_a_fork_bomb_does_not_fail_its_neighbours(box):
    """Of eight at once, four bombs: each has its own count of processes, and its end takes all of it along."""
    sandbox.choose(box)
    jobs = [RIGHT, STARVES["fork_bomb"], RIGHT, STARVES["fork_bomb_of_sessions"]] * 4
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda source: grade_code(source, TESTS, "f", sandbox=box, seconds=4.0), jobs))
    assert [verdict.passed for verdict in verdicts] == [True, False] * 8


FORKS = """
import os, time
def f(x):
    for count in range(100):
        try:
            if not os.fork():
                time.sleep(1000)
        except OSError:
            return count
"""


@each_sandbox
def test_each_sandbox_counts_its_own_processes(box):
    """Eight at once get as many each as one alone: five to seven, as the sandbox's own count too."""
    sandbox.choose(box)

    def count(_):
        verdict = grade_code(FORKS, "raise ValueError(f(3))", "f", sandbox=box, seconds=10)
        return int(verdict.reason.removeprefix("ValueError: "))

    (alone,) = map(count, "1")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(count, range(8))) == {alone}
    assert 5 <= alone <= 7


@each_sandbox
def test_a_grader_that_is_killed_takes_its_program_along(box, namespaces, tmp_path):
    program = (
        "import os, sys\nfrom pipelines.graders.code import sandbox\nopened = os.pidfd_open\n"
        "def pidfd_open(pid):\n    print(os.readlink(f'/proc/{pid}/ns/pid'), flush=True)\n    return opened(pid)\n"
        f"sandbox.choose({box!r})\nsandbox.os.pidfd_open = pidfd_open\n"
        "from pipelines.graders.code.grade import grade_code\n"
        f"grade_code('import os, time\\nos.fork()\\ntime.sleep(60)', 'f()', 'f', sandbox={box!r}, seconds=1000)\n"
    )
    grader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    namespace = grader.stdout.readline().strip()
    assert namespace.startswith("pid:")
    deadline = time.monotonic() + 20
    while len(processes_of([namespace])) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of([namespace])
    grader.kill()
    grader.wait()
    grader.stdout.close()
    while processes_of([namespace]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of([namespace]) == []
