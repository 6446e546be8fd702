"""A disk that is full, over its quota, read-only or broken from the n-th write on: exit code 74 and one line; each
finished stage is the old or the new one whole; and the same command goes on where there is room again, to what an
unbroken run leaves.
"""

import errno
import itertools
import os
import shutil
import subprocess

import pytest
from failing_disk import ERRORS, run_on_failing_disk
from stand_in_runs import MANY_STATES, SCENARIOS, Place

from pipelines import cli

pytestmark = [pytest.mark.no_backend, pytest.mark.filterwarnings("ignore:.*fork.*")]
ROW = "disk: ENOSPC, EIO, EROFS, EDQUOT at every write"
NEVER = -1
NAMES = ("a fresh run", "a stage in place of a finished one", "a run that fills a cache", "a kept result taken back")
FOURTH_WRITES = [pytest.param(name, 4, marks=[pytest.mark.slow, pytest.mark.fault(ROW)]) for name in NAMES]


@pytest.mark.parametrize(("name", "step"), [*FOURTH_WRITES, (NAMES[1], 140)])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_disk_that_fails_at_a_write(tmp_path, stand_ins, record_property, name, error, step):
    """At each write one of the four."""
    before = Place(tmp_path / "before", SCENARIOS[name])
    unbroken = before.copy(tmp_path / "unbroken")
    old = before.finished()
    unbroken.run()
    new, expected = unbroken.finished(), unbroken.contents()
    survived = set()
    for n in itertools.count(ERRORS.index(error) * step // 4, step):
        place = before.copy(tmp_path / "broken")
        code, lines, failed = run_on_failing_disk(lambda: cli.main(place.command(MANY_STATES)), n, error, tmp_path)  # noqa: B023
        if not failed:
            break
        for stage, found in place.finished().items():
            assert found in (old.get(stage), new[stage]), f"write {n}, {failed}: {stage}"
        if code == 0:
            survived.add(failed[0])
            assert place.finished() == new
        else:
            assert code == 74 and len(lines) == 1, f"write {n}, {failed}: {code}, {lines}"
            assert "cannot write (" in lines[0] or "no room" in lines[0]
        place.run()
        assert place.contents() == expected, f"write {n}, {failed}"
        assert place.finished() == new, f"write {n}"
        shutil.rmtree(place.folder)
    record_property("cases", n // step)
    assert code == 0 and place.contents() == expected
    assert survived <= {"link failed", "mkdir failed"}  # copied then; of a folder that was there


@pytest.fixture(params=["pages", "inodes"])
def small_disk(tmp_path, request):
    """A file system of its own, and a function that leaves so many free pages, or inodes, of it; None leaves all."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=400", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")

    def leave(free: int | None) -> None:
        ballast = folder / "ballast"
        shutil.rmtree(ballast, ignore_errors=True)
        if free is None:
            return
        ballast.mkdir()
        if request.param == "pages":
            there = os.statvfs(folder)
            (ballast / "file").write_bytes(b"0" * (there.f_bavail - free) * there.f_bsize)
        else:
            for number in range(os.statvfs(folder).f_favail - free):
                (ballast / str(number)).touch()

    yield folder, leave
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.fault(ROW)
def test_a_real_disk_without_room(tmp_path, stand_ins, small_disk, record_property):
    """With none at all, a page more, and so on until there is enough."""
    folder, leave = small_disk
    before = Place(tmp_path / "before", SCENARIOS["a stage in place of a finished one"])
    unbroken = before.copy(tmp_path / "unbroken")
    unbroken.run()
    sides = before.finished().items() | unbroken.finished().items()
    for free in itertools.count():
        place = before.copy(folder / str(free))
        leave(free)
        code, lines, _ = run_on_failing_disk(lambda: cli.main(place.command(MANY_STATES)), NEVER, errno.EIO, tmp_path)  # noqa: B023
        if code == 0:
            break
        assert code == 74 and len(lines) == 1, f"{free} free: {code}, {lines}"
        assert "cannot write (No space left on device)" in lines[0] or "no room" in lines[0]
        assert place.finished().items() <= sides
        leave(None)
        place.run()
        assert place.contents() == unbroken.contents()
        shutil.rmtree(place.folder)
    assert place.contents() == unbroken.contents()
    record_property("cases", free)
    assert free > 5
