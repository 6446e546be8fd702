"""Operations and speeds against values by hand."""

import numpy as np
import pytest

from gemma_keras.config import GemmaConfig
from gemma_keras.program_shapes import counting_shapes, meet_shape, shapes_met
from pipelines.measures.model_flops import (
    ADAPTER_TRAINING,
    FORWARD,
    TRAINING,
    keys_of_answers,
    keys_of_batch,
    model_flops,
    model_flops_utilization,
)
from pipelines.measures.throughput import SAMPLING, Throughput

pytestmark = pytest.mark.no_backend

SMALL = GemmaConfig(
    vocabulary_size=10, num_layers=2, num_query_heads=2, num_key_value_heads=1, head_dim=4, hidden_dim=8,
    intermediate_dim=16, sliding_window=2, local_layers=(True, False),
)  # fmt: skip


def test_operations_by_hand():
    """A block has 8 * 4 * (2 + 2) weights for queries and output, 8 * 4 * 2 for keys and values, 3 * 8 * 16 in the
    feed-forward: 576. Three tokens see 1 + 2 + 3 keys in the global layer and 1 + 2 + 2 in the local one; two of them
    need the 10 * 8 weights of the head."""
    keys = np.array([1, 2, 3])
    weights, seen = 2 * 576 * 3 + 80 * 2, 8 * (6 + 5)
    assert model_flops(SMALL, keys, 2, FORWARD) == 2 * weights + 4 * seen
    assert model_flops(SMALL, keys, 2, TRAINING) == 6 * weights + 12 * seen
    assert model_flops(SMALL, keys, 2, ADAPTER_TRAINING, 100) == 4 * weights + 12 * seen + 6 * 100 * 3


def test_a_long_row_of_gemma_2b_is_the_papers_formula():
    """6 N + 12 L H Q T a token, N with the head, and half the attention's square; norms are 0.01 % of N."""
    config, tokens = GemmaConfig.from_name("gemma_2b"), 4096
    found = model_flops(config, np.arange(1, tokens + 1), tokens, TRAINING)
    paper = tokens * (6 * config.parameter_count + 12 * 18 * 8 * 256 * tokens / 2)
    assert found == pytest.approx(paper, rel=1e-3)
    assert model_flops_utilization(found, seconds=2.0, peak=found) == 0.5


def test_keys_of_padded_and_of_packed_rows():
    is_real = np.array([[True, True, True, False], [True, False, False, False]])
    assert keys_of_batch({"padding_mask": is_real}).tolist() == [1, 2, 3, 1]
    positions = np.array([[0, 1, 0, 0], [0, 0, 0, 0]])  # two sequences in the first row
    assert keys_of_batch({"padding_mask": is_real, "positions": positions}).tolist() == [1, 2, 1, 1]


def test_answers_to_one_prompt_share_its_prefill_and_nothing_follows_the_last_token():
    keys = keys_of_answers(np.array([3, 2]), np.array([2, 1, 3, 1]))
    assert sorted(keys.tolist()) == sorted([1, 2, 3, 4, 1, 2, 3, 4])


def test_a_row_is_about_what_came_since_the_last_and_the_stage_leaves_out_what_compiled():
    asked = []
    throughput = Throughput(lambda dtype: asked.append(dtype) or 50.0)
    throughput.count("training", tokens=10, seconds=5.0, flops=100.0, has_compiled=True)
    assert throughput.tokens_per_second("training") is None
    assert throughput.row("training") == {"tokens_per_second": 2.0, "model_flops_utilization": 100 / (5 * 50)}
    for seconds in (1.0, 3.0):
        throughput.count("training", 8, seconds, 40.0, "bfloat16")
    assert throughput.row(SAMPLING) == {} and asked == ["float32"]
    assert throughput.row("training") == {"tokens_per_second": 4.0, "model_flops_utilization": 80 / (4 * 50)}
    assert throughput.row("training") == {} and asked[-1] == "bfloat16"
    throughput.count(SAMPLING, 6, 2.0)
    assert throughput.row(SAMPLING) == {"sampling/tokens_per_second": 3.0}
    figures = throughput.figures()
    assert 0 <= figures.pop("seconds_to_first_update") < 60
    assert figures == {
        "training": {"tokens_per_second": 4.0, "model_flops_utilization": 0.4},
        "sampling": {"tokens_per_second": 3.0},
    }


def test_the_most_shapes_of_one_program_count():
    before = shapes_met()
    with counting_shapes() as counts:
        for name, count in (("gradients", 1), ("log_probs", 1), ("log_probs", 2), ("log_probs", 1)):
            meet_shape(name, count)
    meet_shape("gradients", 2)
    assert counts == {"gradients": 1, "log_probs": 2} and shapes_met() - before == 5
