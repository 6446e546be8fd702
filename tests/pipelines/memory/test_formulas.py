"""Bytes of a model small enough to count by hand."""

import pytest

from gemma_keras.config import GemmaConfig
from gemma_keras.lora_options import LoraOptions
from pipelines.memory import activations, head, sampling, training, weights
from pipelines.memory.usage import Usage, largest

pytestmark = pytest.mark.no_backend

SMALL = GemmaConfig(
    vocabulary_size=100, num_layers=2, num_query_heads=2, num_key_value_heads=1, head_dim=4, hidden_dim=8,
    intermediate_dim=16,
)  # fmt: skip
EMBEDDING = 100 * 8
KERNELS = 2 * (8 * 8 + 8 * 4 + 8 * 4 + 8 * 8 + 3 * 8 * 16)  # of two blocks: q, k, v, o, and the feed-forward
NORMS = 5 * 8
ALL = EMBEDDING + KERNELS + NORMS


def learning(**changes):
    settings = {
        "config": SMALL, "backend": "jax", "dtype": "float32", "lora": None, "quantize": None, "remat": "none",
        "rows": 3, "width": 200, "targets": 5, "sums_up": True,
    }  # fmt: skip
    return training.Learning(**{**settings, **changes})


def test_weights_by_dtype_and_bits():
    assert weights.weight_bytes(SMALL, "float32") == weights.weight_bytes(SMALL, "mixed_bfloat16") == 4 * ALL
    assert weights.weight_bytes(SMALL, "bfloat16") == weights.frozen_bytes(SMALL, "mixed_bfloat16") == 2 * ALL
    assert weights.weight_bytes(SMALL, "bfloat16", "int8") == 2 * (EMBEDDING + NORMS) + KERNELS
    assert weights.frozen_bytes(SMALL, "mixed_bfloat16", "int8") == 4 * (EMBEDDING + NORMS) + KERNELS


def test_an_adapter_trains_inputs_and_outputs_times_the_rank():
    assert weights.trained_count(SMALL, None) == ALL
    assert weights.trained_count(SMALL, LoraOptions(3, targets=("k_proj", "down_proj"))) == 2 * 3 * ((8 + 4) + (16 + 8))


def test_an_update_of_all_weights():
    found = learning().update(frozen=7.0)
    kept = 20 * 16 + 10 * 8 + 16 * 8 + 24 * 4  # bytes a token and block: feed-forward, width, queries, keys
    working = 8 * 16 + 16 * 8 + 4 * 8
    assert found == Usage(
        "updating", weights=4 * ALL, moments=8 * ALL, gradients=4 * ALL + 4 * EMBEDDING, frozen=7.0,
        activations=600 * (2 * kept + working), logits=15 * 100 * 8,
    )  # fmt: skip
    assert found.total == sum(found.parts().values())


def test_recomputed_blocks_keep_their_input_and_one_block():
    kept = learning().update().activations
    recomputed = learning(remat="block").update().activations
    one_block = 600 * (20 * 16 + 10 * 8 + 16 * 8 + 24 * 4)
    assert kept - recomputed == one_block - 2 * 600 * 8 * 4


def test_torch_makes_gradients_when_they_are_known_unless_they_are_summed_up():
    alone = learning(backend="torch", sums_up=False).update()
    summed = learning(backend="torch").update()
    assert alone.gradients == 4 * EMBEDDING and summed.gradients == 4 * EMBEDDING + 4 * ALL
    # With few tokens the end of the backward pass decides: all gradients, and the embedding's from the input.
    few = learning(backend="torch", sums_up=False, rows=1, width=1, targets=1).update()
    assert few.gradients == 4 * ALL + 4 * EMBEDDING


def test_half_precision_casts_every_kernel_and_the_output_matrix():
    config = SMALL.replace(num_layers=4, local_layers=())
    casts = 2 * KERNELS // 2  # of one block, two bytes a number
    many, few = (learning(config=config, dtype=dtype).update() for dtype in ("mixed_bfloat16", "bfloat16"))
    assert many.activations - few.activations == 4 * casts
    assert many.logits - few.logits == 2 * EMBEDDING
    assert many.moments == 8 * config.parameter_count and few.weights == 2 * config.parameter_count


def test_an_adapter_has_its_own_gradients_and_moments_alone():
    lora = LoraOptions(2)
    count = 2 * 2 * (16 + 12 + 12 + 16 + 3 * 24)
    found = learning(lora=lora, dtype="bfloat16").update()
    assert (found.weights, found.gradients, found.moments) == (2 * ALL + 4 * count, 4 * count, 8 * count)


def test_short_rows_have_the_scores_of_all_pairs():
    short, long = (activations.block_bytes(SMALL, "torch", "float32", 64, width) for width in (512, 513))
    assert short - long == 64 * 2 * 512 * 4
    assert activations.block_bytes(SMALL, "jax", "float32", 64, 129) == activations.block_bytes(
        SMALL, "tensorflow", "float32", 64, 512
    )


@pytest.mark.parametrize(
    ("rows", "targets", "vocabulary", "expected"),
    [(2, 8, 2**20, 16), (2, 9, 2**20, 18), (4, 512, 2**18, 256), (512, 64, 2**18, 512), (1, 4096, 2**13, 1024)],
)
def test_chunks_of_the_head(rows, targets, vocabulary, expected):
    assert head.chunk_targets(rows, targets, vocabulary) == expected


def test_the_cache_of_a_rollout():
    slot = 2 * 1 * 4 * 4  # keys and values of one head of 4 numbers, 4 bytes each
    sampled = sampling.Sampled(SMALL, "torch", "float32", False, rows=12, shared=3, width=20, new_tokens=6)
    found = sampled.beside(Usage("sampling", weights=1.0))
    assert found.cache == 2 * 20 * slot * (12 + 4)  # that of 4 prompts stands while it is repeated
    assert found.weights == 1.0 and found.logits == 3 * 4 * 12 * 100
    halved = sampling.Sampled(SMALL, "torch", "float32", False, rows=64, shared=1, width=100, new_tokens=65)
    assert halved.beside(Usage("sampling")).cache == 2 * 100 * slot * 64 * 1.75


def test_the_moment_that_takes_most():
    assert largest([Usage("a", weights=1.0), Usage("b", cache=3.0), Usage("c", frozen=2.0)]).doing == "b"
