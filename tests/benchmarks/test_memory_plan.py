"""What `plan --memory` says, against the peaks of real stages."""

import os

import pytest

from benchmarks.memory_plan import SIZES, WORKFLOW, Compared, compare, render

MOST_OFF = 0.15


def test_the_table_shows_the_ratio():
    text = render([Compared("jax", "small", "sft", 0.9, 1.2)])
    assert text.splitlines()[2:] == ["| jax | small | sft | 0.90 | 1.20 | 0.75 |"]
    assert len(SIZES) == 4 and "remat" not in WORKFLOW


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "tensorflow", reason="planned as JAX is, and not measured yet")
def test_the_plan_lies_within_15_percent_of_the_peak():
    found = compare(os.environ["KERAS_BACKEND"], ["small"])
    print(render(found))
    assert {one.stage for one in found} == {"sft", "policy"}
    assert all(abs(one.ratio - 1) <= MOST_OFF for one in found)
