"""A limit on the time of other people's code: what it interrupts, and that it leaves nothing behind."""

import re
import signal
import threading
import time

import pytest

from pipelines.host.time_limit import TimeIsUp, time_limit

pytestmark = [pytest.mark.no_backend, pytest.mark.timeout(60, method="thread")]


def sleep():
    time.sleep(20)


def spin():
    while True:
        pass


def spin_and_swallow():
    """What `except Exception` cannot swallow."""
    while True:
        try:
            spin()
        except Exception:
            return


def backtrack():
    re.search(r"(a+)+$", "a" * 40 + "b")


@pytest.mark.parametrize("work", [sleep, spin, spin_and_swallow, backtrack])
def test_what_takes_too_long_is_interrupted(work):
    started = time.monotonic()
    with pytest.raises(TimeIsUp), time_limit(0.1):
        work()
    assert 0.1 <= time.monotonic() - started < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_bare_except_is_asked_again():
    rounds = []

    def deaf():
        while len(rounds) < 5:
            try:
                spin()
            except BaseException:
                if rounds:
                    raise
                rounds.append(1)

    with pytest.raises(TimeIsUp), time_limit(0.1):
        deaf()
    assert rounds == [1]


def test_in_time_nothing_happens_and_the_handler_is_the_old_one():
    heard = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with time_limit(5):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.3  # somebody's around us
        while not heard:
            time.sleep(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert heard == [signal.SIGALRM]


def test_other_errors_pass_and_disarm():
    with pytest.raises(KeyError), time_limit(0.1):
        raise KeyError("x")
    time.sleep(0.15)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_other_threads_have_no_limit():
    done = []

    def work():
        with time_limit(0.05):
            time.sleep(0.2)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
