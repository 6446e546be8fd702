"""Every kind of stage and of algorithm, killed in its middle and gone on with in a new process: all bits are those of
the run that nobody killed."""

import dataclasses
import shutil

import numpy as np
import pytest

CACHE_VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "TF_XLA_FLAGS")
pytestmark = [pytest.mark.slow, pytest.mark.fault("a stage killed in its middle ends with equal bits")]
MORE = {
    "lora": "2", "mixed": "4", "best": "2", "kto": "2 6", "reinforce": "2", "grpo": "2", "ppo": "2", "asked": "2 4",
    "clean": "2", "said": "2", "judged": "2 4 6",
}  # fmt: skip
"""Stage of `more_kinds.yaml` to where it is killed: among its parts, or after an update that no state holds."""


@pytest.mark.parametrize("place", ["pretrained:4", "sft:4", "preferences:1", "reward:2", "policy:2", "evaluation:2"])
def test_a_stage_of_the_chain_ends_as_if_it_had_not_been_killed(chain, chain_copy, place):
    names = list(chain.json("summary.json")["stages"])
    stage = place.partition(":")[0]
    for name in names[names.index(stage) :]:
        shutil.rmtree(chain_copy.stage(name))
    chain_copy.interrupt(place, PYTHONHASHSEED="1")
    assert "going on at " in chain_copy.finish("--in-process", PYTHONHASHSEED="2")
    assert chain_copy.results() == chain.results()


@pytest.mark.parametrize(("stage", "places"), MORE.items())
def test_a_stage_of_another_kind_too(more, tmp_path, stage, places):
    run = dataclasses.replace(more, folder=tmp_path / "more")
    shutil.copytree(more.folder, run.folder)
    shutil.rmtree(run.stage(stage))
    shutil.rmtree(run.folder / "kept", ignore_errors=True)  # answers that would not be asked for again
    for place in places.split():
        run.interrupt(f"{stage}:{place}", PYTHONHASHSEED=place)
    assert "going on at " in run.finish("--in-process")
    assert run.results(MORE) == more.results(MORE)


def test_what_is_compiled_anew_has_the_same_bits(chain, make_chain, tmp_path, backend):
    """Goes on with the compiled programs of the first process, with all there can be, with noise and with none."""
    if backend == "torch":
        pytest.skip("PyTorch compiles nothing")
    programs = tmp_path / "cache"
    own = {name: value for name, value in chain.environment.items() if name not in CACHE_VARIABLES}
    first = dataclasses.replace(make_chain(stages=2), environment={**own, "GEMMA_KERAS_CACHE": str(programs)})
    shutil.copytree(chain.stage("pretrained"), first.stage("pretrained"))
    first.interrupt("sft:4")
    for cache in ("as it was left", "full", "noise", "empty"):
        run = dataclasses.replace(first, folder=tmp_path / cache)
        shutil.copytree(first.folder, run.folder)
        files = [path for path in programs.rglob("*") if path.is_file()]
        assert files
        if cache == "noise":
            for path in files:
                path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))
        if cache == "empty":
            shutil.rmtree(programs)
        assert "going on at " in run.finish()
        assert run.results(["sft"]) == chain.results(["sft"]), cache
