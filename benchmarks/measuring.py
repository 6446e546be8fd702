"""A case on one backend: its libraries asked in turns, their samples collected."""

import contextlib
import dataclasses
import importlib.util
import statistics
import tempfile

from benchmarks.case import Case, engine
from benchmarks.processes import DoesNotFit, Worker, WorkerFailed

EMPTY_CACHE, FILLED_CACHE = "empty cache", "filled cache"
_OPTIONAL = {"llama_cpp": "llama_cpp"}


@dataclasses.dataclass
class Measurement:
    """What one library did in one case on one backend.

    Attributes:
        library: with its variant. part: of the case, where it has several: the last, smaller batch; one of the caches.
        seconds: of each step, over all samples. first_call: seconds until the very first step's end, compilation
            included.
        memory_gib: largest resident memory of the library's process. error: why there is no figure, else None; it may
            be that it `does_not_fit`.
    """

    case: str
    backend: str
    library: str
    part: str = ""
    first_call: float | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)
    memory_gib: float | None = None
    parameters: int | None = None
    error: str | None = None
    does_not_fit: bool = False

    @property
    def best(self) -> float | None:
        """Seconds of the fastest step, None where nothing was measured."""
        return min(self.seconds, default=None)

    @property
    def quartiles(self) -> tuple[float, float, float] | None:
        """First quartile, median and third quartile of the seconds a step."""
        if not self.seconds:
            return None
        if len(self.seconds) == 1:
            return (self.seconds[0],) * 3
        return tuple(statistics.quantiles(self.seconds, n=4, method="inclusive"))


def measure(
    case: Case, backend: str, samples: int, tiny: bool = False, timeout: float = 600.0, say=print
) -> list[Measurement]:
    """Measure ours and its peers on one backend, in turns: A B A B. Where the case limits memory, one after the other:
    together they might not fit.

    Args:
        case, backend: what to measure.
        samples: of each library, after its first call; fewer where the case says so.
        tiny: small sizes.
        timeout: seconds for one build or sample.
        say: called with a line of progress.

    Returns:
        One measurement a library and part, ours first. A library that fails is left out of the further turns and
        carries its error.
    """
    samples = min(samples, case.most_samples or samples)
    libraries = [name for name in case.libraries[backend] if _is_here(name)]
    results = [Measurement(case.name, backend, library) for library in libraries]
    if case.kind == "first_call":
        return [part for result in results for part in _first_calls(case, result, samples, tiny, timeout, say)]
    for group in [[each] for each in results] if case.memory_limit_gib else [results]:
        _in_turns(case, group, samples, tiny, timeout, say)
    return results + [_split_off_odd(case, result) for result in results if case.odd_rows and not result.error]


def _is_here(library: str) -> bool:
    """What builds from source may be absent; anything else must be there."""
    package = _OPTIONAL.get(engine(library))
    return package is None or importlib.util.find_spec(package) is not None


def _in_turns(case, results, samples, tiny, timeout, say):
    with contextlib.ExitStack() as stack:
        workers = {}
        for result in results:
            with _reported(result):
                worker = Worker(case, result.backend, result.library, tiny, timeout)
                stack.callback(worker.close)
                workers[result.library], result.parameters = worker, worker.facts["parameters"]
        for turn in range(samples + 1):
            for result in results:
                if result.error is None:
                    with _reported(result):
                        _take(workers[result.library], result, is_first=turn == 0)
                    say(_progress(result, "first call" if turn == 0 else f"{turn}/{samples}"))


def _take(worker, result, is_first):
    answer = worker.sample()
    result.memory_gib = answer["memory_gib"]
    if is_first:
        result.first_call = answer["until_first"]
    else:
        result.seconds += answer["seconds"]


def _split_off_odd(case, result):
    """The last of each sample's steps, which was smaller, as a measurement of its own."""
    steps = case.steps + 1
    odd = dataclasses.replace(result, part="last, smaller batch", seconds=result.seconds[case.steps :: steps])
    result.seconds = [each for place, each in enumerate(result.seconds) if place % steps < case.steps]
    return odd


def _first_calls(case, result, samples, tiny, timeout, say):
    """Twice the same in new processes: the second finds what the first has compiled, where anything is kept."""
    parts = [dataclasses.replace(result, part=part, seconds=[]) for part in (EMPTY_CACHE, FILLED_CACHE)]
    for turn in range(samples):
        with tempfile.TemporaryDirectory() as cache:
            for part in parts:
                if any(each.error for each in parts):
                    break
                with _reported(part):
                    worker = Worker(case, part.backend, part.library, tiny, timeout, cache)
                    with contextlib.closing(worker):
                        answer = worker.sample()
                    part.seconds.append(answer["until_first"])
                    part.memory_gib, part.parameters = answer["memory_gib"], worker.facts["parameters"]
                say(_progress(part, f"{part.part} {turn + 1}/{samples}"))
    return parts


@contextlib.contextmanager
def _reported(result):
    try:
        yield
    except WorkerFailed as error:
        result.error, result.does_not_fit = str(error), isinstance(error, DoesNotFit)


def _progress(result, what):
    last = result.error or f"{result.seconds[-1] if result.seconds else result.first_call:.3f} s"
    return f"{result.case} {result.backend} {result.library} {what}: {last}"
