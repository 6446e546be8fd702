"""What is said while there is nothing to count: at once, and every ten seconds; with a clock of our own."""

import io
import time

import pytest

from pipelines.host import activity as module
from pipelines.host.activity import Activity
from pipelines.host.progress import Progress

pytestmark = pytest.mark.no_backend


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


class HandBeat:
    """A beat that the test gives."""

    running: list = []

    def __init__(self, function):
        self.function = function
        self.running.append(self)

    def stop(self):
        self.running.remove(self)


@pytest.fixture
def beat(monkeypatch):
    for owner in ("pipelines.host.activity.Beat", "pipelines.host.progress.Beat"):
        monkeypatch.setattr(owner, HandBeat)
    HandBeat.running = []
    return lambda: [one.function() for one in HandBeat.running]


def test_a_line_at_once_and_one_every_ten_seconds(beat):
    clock, stream = Clock(), io.StringIO()
    with Activity("  sft", stream=stream, clock=clock) as activity:
        activity.say("loading jax")
        assert stream.getvalue() == "  sft: loading jax\n"
        for _ in range(25):
            clock.now += 1
            beat()
        activity.say("loading weights")
        activity.say("loading weights")
        clock.now += 9
        beat()
    assert stream.getvalue().splitlines() == [
        "  sft: loading jax",
        "  sft: loading jax, 0:10",
        "  sft: loading jax, 0:20",
        "  sft: loading weights",
    ]
    assert HandBeat.running == []


def test_a_bar_takes_the_place_and_gives_it_back(beat):
    clock, stream = Clock(), io.StringIO()
    with Activity("  sft", stream=stream, clock=clock) as activity:
        activity.say("compiling")
        with Progress(2, "  sft: training", stream=stream, clock=clock, activity=activity) as bar:
            assert len(HandBeat.running) == 1, "the activity goes on beside the bar"
            activity.say("loading weights")  # within the bar: not shown
            for _ in range(12):
                clock.now += 1
                beat()
            bar.advance()
        clock.now += 1
        activity.say("saving the model")
    assert stream.getvalue().splitlines() == [
        "  sft: compiling",
        "  sft: training: 0/2 (0%), compiling for the first steps, 0:10",
        "  sft: training: 1/2 (50%), 0.0833 steps/s, 0:12 left",
        "  sft: finishing",
        "  sft: saving the model",
    ]


def test_a_slow_step_is_no_silence(beat):
    clock, stream = Clock(), io.StringIO()
    with Progress(4, "training", stream=stream, clock=clock) as bar:
        clock.now += 1
        bar.advance()
        for _ in range(30):
            clock.now += 1
            beat()
        assert len(stream.getvalue().splitlines()) == 3


def test_quiet_shows_nothing(beat):
    for stream in (io.StringIO(), Terminal()):
        with Activity("sft", quiet=True, stream=stream) as activity:
            activity.say("loading jax")
            beat()
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_spinner_that_leaves_nothing_behind():
    clock, stream = Clock(), Terminal()
    with Activity("  sft", stream=stream, clock=clock) as activity:
        activity.say("loading jax")
        clock.now += 7
        time.sleep(0.6)
        activity.say("loading weights")
        time.sleep(0.6)
    text = stream.getvalue()
    assert "  sft: loading jax" in text and "  sft: loading jax, 0:07" in text and "  sft: loading weights" in text
    assert text.endswith("\x1b[2K") and text.count("\n") <= 1 and "None" not in text


def test_a_terminal_counts_the_time_of_the_first_step():
    clock, stream = Clock(), Terminal()
    with Progress(4, "training", stream=stream, clock=clock):
        clock.now += 8
        time.sleep(0.6)
    assert "compiling for the first steps, 0:08" in stream.getvalue()


def test_the_beat_goes_on_and_ends():
    calls = []
    beat = module.Beat(lambda: calls.append(1), seconds=0.05)
    time.sleep(0.5)
    beat.stop()
    count = len(calls)
    time.sleep(0.2)
    assert count == len(calls) and 2 <= count <= 10
