"""Breaks the code on purpose, one fault at a time, and asks whether its module's own quick tests notice.

    python tests/mutation [--workers 2] [--only TEXT ...] [--list] [--results FILE]

Exit status: 0 good; 1 too few are noticed, or too many are argued away; 2 a list does not fit the source, or the tests
fail without a fault.

Written here because no library does all of this: mutmut and cosmic-ray draw their own mutants, know no list by name and
no argument for an equivalent one, and choose tests by coverage or not at all.
"""

import argparse
import hashlib
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import forks
import mutants
import results
from forks import Job, Outcome
from mutants import Mutant

HERE = pathlib.Path(__file__).resolve().parent
PASSED, FAILED = 0, 1  # of pytest
ROOM = (4.0, 30.0)  # a mutant may take so many times as long as the tests without a fault, and so many seconds more


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the results do not hold yet, and print the table."""
    options = _parser().parse_args(arguments)
    try:
        found = mutants.read(options.root, options.lists)
    except mutants.StaleError as error:
        print(error, file=sys.stderr)
        return 2
    chosen = [mutant for mutant in found if not options.only or any(text in str(mutant) for text in options.only)]
    if options.formulas:
        chosen = [mutant for mutant in chosen if mutant.is_formula]
    if options.list:
        print(
            "\n".join(
                f"{mutant}{'  equivalent: ' + mutant.equivalent if mutant.equivalent else ''}" for mutant in chosen
            )
        )
        return 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        store = results.Results(options.results)
        limits = _limits(chosen, store, options.root, pathlib.Path(folder, "before"), options.workers)
        if limits is None:
            return 2
        verdicts = _verdicts(chosen, limits, store, options.root, pathlib.Path(folder, "after"), options.workers)
    print("\n".join(["", *results.table(chosen, verdicts), ""]))
    for mutant in chosen:
        if (verdict := verdicts.get(mutant.identifier)) in (results.SURVIVED, results.UNJUDGED):
            print(f"{verdict}: {mutant}")
    complaints = results.complaints(chosen, verdicts)
    print("\n".join([*complaints, f"{time.monotonic() - started:.0f} s"]))
    return 1 if complaints else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="tests at a time, a core each")
    parser.add_argument("--only", action="append", default=[], help="of a file, operator, digest or text; repeatable")
    parser.add_argument("--formulas", action="store_true", help="only those of the formulas")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--results", type=pathlib.Path, default=HERE.parents[1] / ".cache/mutants.jsonl")
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parents[1], help="of the source tree")
    parser.add_argument("--lists", type=pathlib.Path, default=HERE, help="folder of the three lists")
    return parser


def _limits(
    chosen: Sequence[Mutant], store: results.Results, root: pathlib.Path, folder: pathlib.Path, workers: int
) -> dict[str, float] | None:
    """Seconds that the tests of each file take without a fault; None, with a word about it, where some fail."""
    sources = hashlib.sha256()
    for package in forks.OURS:
        for path in sorted((root / package).rglob("*.py")):
            sources.update(str(path.relative_to(root)).encode() + path.read_bytes())
    tests = {
        file: _tests_of(chosen, file) for file in sorted({mutant.file for mutant in chosen if not mutant.equivalent})
    }
    keys = {file: results.key_of(root, "", part, (sources.hexdigest(),)) for file, part in tests.items()}
    limits = {file: row["seconds"] for file, key in keys.items() if (row := store.get(key)) is not None}
    jobs = [Job(file, "", "", part, 1200.0) for file, part in tests.items() if file not in limits]
    good = True
    for outcome in forks.run_all(root, folder, jobs, workers):
        if outcome.status != PASSED or not outcome.passed:
            print(f"{outcome.name}: its tests fail without a fault ({outcome.status})\n{outcome.log}", file=sys.stderr)
            good = False
            continue
        print(f"{outcome.seconds:6.1f} s  {outcome.passed} tests of {outcome.name}", flush=True)
        limits[outcome.name] = outcome.seconds
        store.add(keys[outcome.name], file=outcome.name, verdict="passed", seconds=outcome.seconds)
    return limits if good else None


def _tests_of(chosen: Sequence[Mutant], file: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(test for mutant in chosen if mutant.file == file for test in mutant.tests))


def _verdicts(
    chosen: Sequence[Mutant],
    limits: dict[str, float],
    store: results.Results,
    root: pathlib.Path,
    folder: pathlib.Path,
    workers: int,
) -> dict[str, str]:
    """identifier -> verdict, of those that are not argued to be equivalent; one that is not judged is not kept."""
    run = {mutant.identifier: mutant for mutant in chosen if not mutant.equivalent}
    keys = {name: results.key_of(root, mutant.text, mutant.tests) for name, mutant in run.items()}
    verdicts = {name: row["verdict"] for name, key in keys.items() if (row := store.get(key)) is not None}
    jobs = [
        Job(name, mutant.file, mutant.text, mutant.tests, ROOM[0] * limits[mutant.file] + ROOM[1])
        for name, mutant in run.items()
        if name not in verdicts
    ]
    print(
        f"{len(jobs)} mutants to run, {len(verdicts)} known, {len(chosen) - len(run)} argued to be equivalent",
        flush=True,
    )
    for number, outcome in enumerate(forks.run_all(root, folder, jobs, workers), start=1):
        verdicts[outcome.name] = _verdict(outcome)
        if verdicts[outcome.name] == results.UNJUDGED:
            print(f"status {outcome.status}, which says nothing about a test\n{outcome.log}", file=sys.stderr)
        else:
            row = {"seconds": outcome.seconds, "by": outcome.failed, "verdict": verdicts[outcome.name]}
            store.add(keys[outcome.name], mutant=str(run[outcome.name]), **row)
        print(
            f"[{number}/{len(jobs)}] {outcome.seconds:6.1f} s  {verdicts[outcome.name]:<8} {run[outcome.name]}",
            flush=True,
        )
    return verdicts


def _verdict(outcome: Outcome) -> str:
    """Killed is what a test noticed, not what could not be imported, crashed or hung."""
    if outcome.status == forks.TIME_IS_UP:
        return results.TIMEOUT
    if outcome.status == FAILED and outcome.failed:
        return results.KILLED
    return results.SURVIVED if outcome.status == PASSED and outcome.passed else results.UNJUDGED


if __name__ == "__main__":
    sys.exit(main())
