"""Each kind of stage, killed and stopped at random moments of its start, compiling, updates, rollouts and saves, and
gone on with in new processes each time: it ends with the bits of the run that nobody disturbed.

The runner and its stage are real processes. What was done again is printed, and how long a signal took.
"""

import dataclasses
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.host.states import how_far, partial_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.fault("SIGKILL and stop signals at random moments of each kind of stage"),
]
CHAIN = ("pretrained", "sft", "preferences", "reward", "policy", "evaluation")
MORE_KINDS = ("lora", "best", "kto", "reinforce", "grpo", "ppo", "asked", "mixed", "clean", "said", "judged")
KILLS = ("runner", "stage") * 5
STOPS = (("SIGTERM", 1), ("SIGINT", 2), ("SIGHUP", 1))
EVERY_SECONDS = 0.05
"""Between states; with what they cost, about 30 of them a second of work at most."""


class Disturbed:
    """A stage, made again under faults; first once without any, to see how long it takes.

    Args:
        run: what the stage reads is finished in it. stage: its name. seed: of the moments.
    """

    def __init__(self, run, stage: str, seed: str) -> None:
        self.run, self.stage, self.random = run, stage, random.Random(seed)
        self.partial = partial_of(run.stage(stage))
        self.lines: list[str] = []
        began = time.monotonic()
        process = self.start()
        self._wait(process, self._has_begun)
        begun = time.monotonic()
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        self.seconds, self.seconds_of_work = time.monotonic() - began, time.monotonic() - begun

    def start(self):
        return self.run.start("--quiet", "--set", f"state.every_seconds={EVERY_SECONDS}",
                              PYTHONHASHSEED=str(self.random.randrange(1000)))  # fmt: skip

    def fault(self, label: str, strike: Callable, in_work: bool) -> None:
        """Start the run and strike at a random moment; where it ended before that, start the stage over and try again.

        Args:
            strike: gets the process; returns what to say.
            in_work: not before the stage has logged or kept something, where it ever does before its end.
        """
        for attempt in itertools.count():
            shutil.rmtree(self.run.stage(self.stage), ignore_errors=True)
            process = self.start()
            moment = self._moment(process, in_work and attempt < 4, 0.7**attempt)
            if process.poll() is None:
                break
            _, error = process.communicate()
            assert process.returncode == 0, error
        before = how_far(self.partial)
        said = strike(process)
        process.communicate(timeout=60)
        after = how_far(self.partial)
        self.lines.append(f"{label} at {moment:.1f} s: {before or 'no state'} -> {after or 'none'}{said}")
        if after is not None and after.done == after.of:  # the next one shall not find the work done
            shutil.rmtree(self.partial)

    def _moment(self, process, in_work: bool, share: float) -> float:
        """Wait for it; the seconds from the start."""
        began = time.monotonic()
        if in_work:
            self._wait(process, self._has_begun)
        until = time.monotonic() + share * self.random.uniform(0, self.seconds_of_work if in_work else self.seconds)
        self._wait(process, lambda: time.monotonic() >= until)
        return time.monotonic() - began

    @staticmethod
    def _wait(process, condition: Callable[[], bool]) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.003)

    def _has_begun(self) -> bool:
        return (self.partial / "metrics.jsonl").exists() or how_far(self.partial) is not None


def kill(which: str) -> Callable:
    def strike(process) -> str:
        of_runner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(of_runner[0]) if which == "stage" and of_runner else process.pid, signal.SIGKILL)
        return ""

    return strike


def stop(name: str, times: int) -> Callable:
    def strike(process) -> str:
        number, began = getattr(signal, name), time.monotonic()
        process.send_signal(number)
        if times == 2:
            time.sleep(0.2)
            process.send_signal(number)
        process.wait(timeout=60)
        # A signal before Python can handle any ends the process by the system.
        assert process.returncode in (128 + number, -number, 0), process.returncode
        return f", exit {process.returncode} after {time.monotonic() - began:.2f} s"

    return strike


def disturb(run, stage: str, backend: str) -> int:
    """Disturb a stage of a run by all faults; returns how many these were."""
    disturbed = Disturbed(run, stage, f"{backend} {stage}")
    faults = [(f"SIGKILL of the {which}", kill(which)) for which in KILLS]
    faults += [(f"{name} {times}x", stop(name, times)) for name, times in STOPS]
    disturbed.random.shuffle(faults)
    for number, (label, strike) in enumerate(faults):
        disturbed.fault(label, strike, in_work=number % 2 == 0)
    output = run.finish("--set", f"state.every_seconds={EVERY_SECONDS}")
    ended = [line for line in output.splitlines() if "going on at" in line or "because" in line or "skipped" in line]
    print(f"\n{stage} on {backend}:", *disturbed.lines, *ended[-1:], sep="\n  ")
    return len(faults)


@pytest.mark.parametrize("stage", CHAIN)
def test_a_stage_of_the_chain(chain, make_chain, stage, backend, record_property):
    earlier = CHAIN[: CHAIN.index(stage)]
    run = make_chain(stages=len(earlier) + 1)
    for name in earlier:
        shutil.copytree(chain.stage(name), run.stage(name))
    record_property("cases", disturb(run, stage, backend))
    assert run.results([stage]) == chain.results([stage])


@pytest.mark.parametrize("stage", MORE_KINDS)
def test_a_stage_of_another_kind(more, tmp_path, stage, backend, record_property):
    run = dataclasses.replace(more, folder=tmp_path / "more")
    shutil.copytree(more.folder, run.folder)
    shutil.rmtree(run.folder / "kept", ignore_errors=True)  # answers that would not be asked for again
    record_property("cases", disturb(run, stage, backend))
    assert run.results([stage]) == more.results([stage])
