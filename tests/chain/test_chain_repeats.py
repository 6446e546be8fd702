"""A run repeats exactly: in another folder, in other processes, and after its runner was killed."""

import signal
import time

import pytest


def kill_when(run, found, *options, **variables):
    """Start the run, and kill its runner (SIGKILL) as soon as `found()`."""
    process = run.start(*options, **variables)
    give_up = time.monotonic() + 240
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def all_stages(slow_ones):
    return pytest.param(slow_ones, marks=pytest.mark.slow, id="all stages")


@pytest.mark.parametrize("stages", [pytest.param(3, id="three stages"), all_stages(6)])
def test_a_killed_run_in_a_fresh_folder_ends_like_the_uninterrupted_one(chain, make_chain, stages):
    """Real processes for each stage, other hash seeds, killed once a stage is finished and once in the middle of
    one."""
    names = list(chain.json("summary.json")["stages"])[:stages]
    run = make_chain(stages)
    kill_when(run, (run.folder / "stages/pretrained").exists, PYTHONHASHSEED="1")
    assert (run.folder / "stages/pretrained/final.json").is_file() and not (run.folder / "stages/sft").exists()
    kill_when(run, lambda: any((run.folder / "stages/.sft.partial").glob("metrics.jsonl")), PYTHONHASHSEED="2")
    output = run.finish(PYTHONHASHSEED="3")
    assert output.count("finished before, skipped") in (1, 2)
    expected = chain.results(names)
    assert sum(place.endswith("model.safetensors") for place in expected) == {3: 2, 6: 4}[stages]
    assert run.results(names) == expected


@pytest.mark.slow
def test_other_seeds_give_other_weights(chain, make_chain):
    run = make_chain(2)
    run.workflow.write_text(run.workflow.read_text().replace("seed: 17", "seed: 18"))
    run.finish("--in-process", "--quiet")
    ours, theirs = run.results(["pretrained", "sft"]), chain.results(["pretrained", "sft"])
    same = {place for place in ours if ours[place] == theirs[place]}
    assert not any(place.endswith((".safetensors", "stage.json", "metrics.jsonl")) for place in same)
