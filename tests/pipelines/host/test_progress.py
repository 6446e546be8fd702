"""Progress on a terminal, in a file, and silent; with a clock of our own."""

import io

import pytest

from pipelines.host.progress import Progress, duration

pytestmark = pytest.mark.no_backend


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_come_seldom_and_show_rate_and_time_left():
    clock, stream = Clock(), io.StringIO()
    with Progress(100, "training", stream=stream, seconds_between_lines=10, clock=clock) as bar:
        for step in range(1, 26):
            clock.now += 1
            bar.note(loss=1 / step)
            bar.advance(work=500)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "training: 10/100 (10%), 1 steps/s, 500 tokens/s, 1:30 left, loss 0.1",
        "training: 20/100 (20%), 1 steps/s, 500 tokens/s, 1:20 left, loss 0.05",
        "training: 25/100 (25%), 1 steps/s, 500 tokens/s, 1:15 left, loss 0.04",
    ]


def test_of_many_metrics_the_telling_ones_are_shown():
    bar = Progress(2, "training", quiet=True)
    bar.note(learning_rate=0.1, loss=2.5, grad_norm=1.0, text="x")
    assert bar.figures() == "loss 2.5"
    bar = Progress(2, "training", quiet=True)
    bar.note(rows=3, kept=0.25, name="x", more=4)
    assert bar.figures() == "rows 3, kept 0.25"


def test_quiet_shows_nothing():
    for stream in (io.StringIO(), Terminal()):
        with Progress(3, "training", quiet=True, stream=stream, seconds_between_lines=0) as bar:
            bar.advance(3)
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar():
    clock, stream = Clock(), Terminal()
    with Progress(4, "training", stream=stream, clock=clock) as bar:
        clock.now += 8
        bar.advance(2)
        clock.now += 8
        bar.advance(2)
    text = stream.getvalue()
    assert "\x1b[" in text and "4/4" in text and "0.25 steps/s" in text and "0:16 taken" in text


def test_iteration_counts_by_itself_unless_the_caller_does():
    stream = io.StringIO()
    bar = Progress(3, "rolling out", stream=stream)
    assert list(bar) == [0, 1, 2] and bar.done == 3
    bar = Progress(3, "rolling out", stream=stream)
    for _ in bar:
        bar.advance(work=7)
    assert (bar.done, bar.work) == (3, 21)
    with Progress(2, "rolling out", stream=stream) as bar:
        assert list(bar) == [0, 1]
    with pytest.raises(ValueError, match="known `total`"):
        list(Progress(None, "reading", stream=stream))


def test_an_unknown_total():
    clock, stream = Clock(), io.StringIO()
    with Progress(None, "reading", unit="rows", stream=stream, clock=clock) as bar:
        clock.now += 2
        bar.advance(3000)
    assert stream.getvalue() == "reading: 3000, 1,500 rows/s, 0:02 taken\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.6, "1:00:00"), (7325, "2:02:05")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
