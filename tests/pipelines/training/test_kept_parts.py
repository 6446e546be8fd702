"""Finished work in parts, taken from disk by a later stage that asks for the same."""

import numpy as np
import pytest

from pipelines.host.parts import compute_now
from pipelines.training.kept_parts import KeptParts

pytestmark = pytest.mark.once

IDENTITY = {"code": "c", "versions": {"keras": "3"}}


def work(folder, asked, calls, identity=IDENTITY, parts=3, until=None):
    """The parts of some work, of which `calls` hears which are computed; `until` so many."""
    keep = KeptParts(folder, identity, {}).around(compute_now, asked)
    found = []
    for number in range(parts)[:until]:

        def compute(number=number):
            calls.append(number)
            return {"values": np.arange(3.0) + number, "flags": np.array([True, False])}

        found.append({name: np.array(array) for name, array in keep(str(number), compute, parts).items()})
    return found


def test_whole_work_is_computed_once(tmp_path):
    calls = []
    first = work(tmp_path / "kept", {"asked": [1, 2]}, calls)
    again = work(tmp_path / "kept", {"asked": [1, 2]}, calls)
    assert calls == [0, 1, 2]
    for one, other in zip(first, again, strict=True):
        assert one.keys() == other.keys()
        assert all(
            one[name].tobytes() == other[name].tobytes() and one[name].dtype == other[name].dtype for name in one
        )


@pytest.mark.parametrize("change", [{"asked": [1, 3]}, {"asked": [1, 2], "dtype": "bfloat16"}])
def test_other_work_is_computed(tmp_path, change):
    calls = []
    work(tmp_path, {"asked": [1, 2]}, calls)
    work(tmp_path, change, calls)
    work(tmp_path, {"asked": [1, 2]}, calls, {**IDENTITY, "code": "d"})
    assert calls == [0, 1, 2] * 3


def test_part_of_the_work_is_not_kept(tmp_path):
    calls = []
    work(tmp_path, "a", calls, until=2)
    assert not list(tmp_path.iterdir())
    work(tmp_path, "a", calls)
    assert calls == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "missing"])
def test_what_is_damaged_is_computed_again_and_mended(tmp_path, damage):
    calls = []
    first = work(tmp_path, "a", calls)
    (place,) = tmp_path.iterdir()
    arrays, manifest = place / "arrays.safetensors", place / "manifest.json"
    content = arrays.read_bytes()
    if damage == "flip":
        arrays.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        arrays.write_bytes(content[:-4])
    elif damage == "manifest":
        manifest.write_text("{}")
    else:
        arrays.unlink()
    second = work(tmp_path, "a", calls)
    assert calls == [0, 1, 2, 0, 1, 2] and second[0]["values"].tobytes() == first[0]["values"].tobytes()
    work(tmp_path, "a", calls)
    assert len(calls) == 6
