"""What training takes as the context grows: tokens, and not their square."""

import os

import pytest

from benchmarks.context import Growth, measure, render

MOST_GIB = 5.0


def test_the_table_leaves_out_what_was_not_measured():
    text = render([Growth("jax", 8192, "none", analysis_gib=4.49), Growth("torch", 256, "block", 0.25, None, 301.4)])
    assert text.splitlines()[2:] == [
        "| jax | 8,192 | none | 4.49 |  |  |",
        "| torch | 256 | block |  | 0.25 | 301 |",
    ]


@pytest.mark.slow
def test_a_context_of_8192_tokens_fits_and_is_twice_one_of_4096():
    backend = os.environ["KERAS_BACKEND"]
    half, whole = (measure(backend, length, "block") for length in (4096, 8192))
    assert half.peak_gib < whole.peak_gib < min(MOST_GIB, 2.2 * half.peak_gib)


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="only JAX's compiler tells")
def test_the_compiler_plans_for_tokens_and_recomputed_blocks_need_a_third():
    half, whole = (measure("jax", length, "none", analyse_only=True).analysis_gib for length in (4096, 8192))
    recomputed = measure("jax", 8192, "block", analyse_only=True).analysis_gib
    assert half < whole < min(MOST_GIB, 2.2 * half) and recomputed < whole / 3
