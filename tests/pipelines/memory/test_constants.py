"""The sizes that the plan has from code which loads Keras are still its own."""

import numpy as np
import pytest

from gemma_keras import head as keras_head
from pipelines.memory import head
from pipelines.stages.reward_modeling import memory as reward_memory
from pipelines.stages.reward_modeling import pair_training


def test_constants_are_those_of_the_code():
    assert reward_memory.SAMPLING_BATCH == pair_training.SAMPLING_BATCH
    assert reward_memory.LONGEST_SAMPLE == pair_training.LONGEST_SAMPLE


@pytest.mark.parametrize(("rows", "targets", "vocabulary"), [(2, 9, 2**20), (4, 512, 2**18), (1, 300, 2**17)])
def test_chunks_are_those_of_the_head(rows, targets, vocabulary):
    hidden = np.zeros((rows, targets, 1), np.float32)
    _, _, chunk = keras_head._in_rows(hidden, np.zeros((rows, targets), np.int32), vocabulary)
    assert head.chunk_targets(rows, targets, vocabulary) == rows * chunk
