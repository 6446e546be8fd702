"""Each file of real stages, damaged: it is named; and a stage whose weights are damaged is made again with equal bits,
and no other."""

import pytest
from damage import DAMAGES, damage

from pipelines.run import results

pytestmark = [pytest.mark.once, pytest.mark.fault("damage: bit flip, cut, deletion of each file")]


def test_each_file_of_each_stage(chain, chain_copy, record_property):
    cases = 0
    for stage in chain.json("summary.json")["stages"]:
        folder = chain_copy.stage(stage)
        assert results.damage(folder, with_digests=True) is None
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != results.FILES_FILE):
            content = path.read_bytes()
            for how in DAMAGES if content else ("deleted",):
                damage(path, how)
                found = results.damage(folder, with_digests=True)
                assert found is not None and found.startswith(path.relative_to(folder).as_posix()), f"{path}: {how}"
                path.write_bytes(content)
                cases += 1
        assert results.damage(folder, with_digests=True) is None
    assert cases > 100
    record_property("cases", cases)


@pytest.mark.slow
def test_a_stage_with_damaged_weights_is_made_again_alone(chain, chain_copy):
    damage(chain_copy.stage("sft") / "model/model.safetensors", "a bit in the middle")
    output = chain_copy.finish("--in-process", "--verify")
    damaged = "because stages/sft: model/model.safetensors has other contents than were written"
    assert output.count("because") == 1 and damaged in output
    assert chain_copy.results() == chain.results()
