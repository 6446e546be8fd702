"""Log-probabilities of continuations: however they are laid side by side, those of each one alone."""

import dataclasses
import itertools

import numpy as np
import pytest

import gemma_keras
from gemma_keras import backends
from gemma_keras.inputs.padding import padded
from pipelines.sampling import continuation_batches
from pipelines.sampling.continuation_batches import Continuation, best_widths, plan_batches
from pipelines.sampling.continuations import ContinuationScorer
from pipelines.sampling.prefixes import common_length

VOCABULARY, WIDTH = 97, 144


def model_of(config):
    config = dataclasses.replace(
        config, vocabulary_size=VOCABULARY, sliding_window=24 if config.sliding_window else None
    )
    return gemma_keras.GemmaCausalLM(gemma_keras.GemmaBackbone(config, seed=5))


def ids(rng, length):
    return rng.integers(3, VOCABULARY, length).tolist()


def questions(rng, count=5, shots=100, choices=4):
    """Questions behind the same examples, with choices of one token and of several, two of which begin alike."""
    before = [2, *ids(rng, shots)]
    asked = []
    for item in range(count):
        context = [*before, *ids(rng, 9 + item)]
        begins = ids(rng, 3)
        ends = [ids(rng, 1), ids(rng, 5), [*begins, *ids(rng, 2)], [*begins, *ids(rng, 1)]][:choices]
        asked += [Continuation(context, end, item, "shots") for end in ends]
    return asked


def mixed(rng):
    """Questions behind a prefix and without one, contexts that differ in their middle, and one that stands alone."""
    loose = [
        Continuation([2, *ids(rng, 5 + 7 * item)], ids(rng, 1 + side), item, "loose")
        for item in range(4)
        for side in range(2)
    ]
    start, rest = ids(rng, 6), ids(rng, 4)
    blanks = [Continuation([2, *start, *ids(rng, 2), 9], rest, "blank", "loose") for _ in range(2)]
    return [*questions(rng), *loose, *blanks, Continuation([2], ids(rng, 40))]


def logits_of(model, rows, width=WIDTH):
    """Of each row alone, padded on the right to one width: float64 (n, width, v)."""
    token_ids, is_token = padded(rows, 0, width)
    return backends.to_host(model({"token_ids": token_ids, "padding_mask": is_token})).astype(np.float64)


def check(model, asked, found, tolerance=2e-4):
    """Against the logits of each continuation behind its context."""
    for number, (one, logits) in enumerate(
        zip(asked, logits_of(model, [[*c.context, *c.ids] for c in asked]), strict=True)
    ):
        logits = logits[len(one.context) - 1 :][: len(one.ids)]
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        chosen = np.take_along_axis(log_probs, np.array(one.ids)[:, None], axis=1)
        assert abs(found.log_probs[number] - chosen.sum()) < tolerance
        assert found.is_greedy[number] == (logits.argmax(axis=1) == one.ids).all()


@pytest.fixture(scope="module")
def gemma_3(tiny_configs):
    return model_of(tiny_configs["gemma3"])


def greedy_id(model, context):
    return int(logits_of(model, [context])[0, len(context) - 1].argmax())


@pytest.mark.once  # on every backend against lm-eval's `hf`, in tests/parity/test_lm_eval.py
@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_shared_beginnings_change_nothing(tiny_configs, family):
    model = model_of(tiny_configs[family])
    asked = mixed(np.random.default_rng(3))
    # The model's own answers too, so that some are greedy.
    asked += [dataclasses.replace(asked[n], ids=[greedy_id(model, asked[n].context)]) for n in (0, -3)]
    found = ContinuationScorer(model, batch_tokens=256)(asked)
    check(model, asked, found)
    assert found.is_greedy.sum() >= 2 and found.cut == 0
    batches, _ = plan_batches(asked, 256, 8192, 64)
    assert {len(batch.prefix) for batch in batches} == {0, 101}, "the questions are read behind their examples"


@pytest.mark.once
def test_a_part_computed_again_is_equal_to_the_last_bit(gemma_3):
    asked = [one for group in range(20) for one in mixed(np.random.default_rng(group))]
    scorer = ContinuationScorer(gemma_3, batch_tokens=128)
    kept = {}

    def keep(name, compute, of):
        kept[name] = compute()
        return kept[name]

    first = scorer(asked, keep)
    assert len(kept) > 3

    def forget_some(name, compute, of):
        return compute() if int(name) % 2 else kept[name]

    again = ContinuationScorer(gemma_3, batch_tokens=128)(asked, forget_some)
    assert first.log_probs.tobytes() == again.log_probs.tobytes()
    check(
        gemma_3, asked[:40], dataclasses.replace(first, log_probs=first.log_probs[:40], is_greedy=first.is_greedy[:40])
    )


@pytest.mark.once
def test_contexts_that_are_too_long_lose_their_beginning(gemma_3):
    rng = np.random.default_rng(4)
    asked = [Continuation([2, *ids(rng, 60)], ids(rng, 4), 0), Continuation([2, *ids(rng, 10)], ids(rng, 3), 1)]
    asked.append(Continuation([2, 5], ids(rng, 70), 2))
    found = ContinuationScorer(gemma_3, max_length=32)(asked)
    assert found.cut == 2
    cut = dataclasses.replace(asked[0], context=asked[0].context[-29:])
    last = Continuation(asked[2].ids[-33:-32], asked[2].ids[-32:])
    check(gemma_3, [cut, asked[1], last], found)


@pytest.mark.once
def test_what_is_read_by_hand():
    """A question of three choices behind a prefix of 64: two tokens of context of its own, and of each choice all but
    the last."""
    before = [2, *range(3, 66)]
    asked = [
        Continuation([*before, 70, 71 + item], choice, item, "g")
        for item in range(3)
        for choice in ([80], [81, 82], [81, 83, 84])
    ]
    (batch,), cut = plan_batches(asked, 1024, 1024, 64)
    assert cut == 0 and batch.prefix == [*before, 70] and batch.prefix_width == 96 and batch.places == 64
    arrays = batch.arrays(0)
    assert arrays["token_ids"].shape == (3, 4) and batch.tokens == 12
    assert arrays["token_ids"][0].tolist() == [71, 81, 81, 83]
    assert arrays["positions"][0].tolist() == [65, 66, 66, 67]
    assert arrays["segment_ids"][0].tolist() == [1, 1 + 2 * 65536, 1 + 3 * 65536, 1 + 3 * 65536]
    assert arrays["target_ids"][:6].tolist() == [80, 81, 82, 81, 83, 84]
    assert arrays["target_positions"][:6].tolist() == [0, 0, 1, 0, 2, 3] and not arrays["target_rows"][:6].any()
    assert arrays["key_positions"][0, 30:].tolist() == [0, 0, *range(65), 65, 66, 66, 67][-70:]
    assert arrays["key_segments"][0].tolist() == [0] * 31 + [1] * 65 + arrays["segment_ids"][0].tolist()


@pytest.mark.once
def test_prefixes_of_several_lengths(gemma_3):
    """Groups behind 70, 130 and 400 tokens, each padded to one of few widths, and one without."""
    rng = np.random.default_rng(9)
    asked = []
    for length in (70, 130, 400, 0):
        before = [2, *ids(rng, length)]
        asked += [Continuation([*before, *ids(rng, 5)], ids(rng, 2), item, length) for item in range(6)]
    batches, _ = plan_batches(asked, 256, 1024, 64)
    widths = {len(batch.prefix): batch.prefix_width for batch in batches}
    assert widths == {0: 0, 71: 128, 131: 224, 401: 416}, "a quarter, a half and all of the longest"
    assert all(batch.rows * (batch.prefix_width + batch.width) <= 4 * 256 for batch in batches)
    found = ContinuationScorer(gemma_3, batch_tokens=256)(asked)
    for number in (0, 6, 12, 18, 23):
        one = asked[number]
        (logits,) = logits_of(gemma_3, [[*one.context, *one.ids]], 448)
        logits = logits[len(one.context) - 1 :][:2]
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert found.log_probs[number] == pytest.approx(log_probs[[0, 1], one.ids].sum(), abs=2e-4)


@pytest.mark.once
def test_a_prefix_that_saves_little_is_read_again():
    few = [Continuation([2, *range(3, 40), item], [80], item, "g") for item in range(50, 60)]
    assert not any(batch.prefix for batch in plan_batches(few, 1024, 1024, 64)[0]), "shorter than 64"
    rng = np.random.default_rng(0)
    long = [Continuation([2, *range(3, 80), *ids(rng, 600)], [80], item, "g") for item in range(2)]
    assert not any(batch.prefix for batch in plan_batches(long, 1024, 1024, 64)[0]), "78 of 1,300 tokens"


@pytest.mark.once
def test_all_are_asked_once_in_few_shapes_and_within_the_tokens():
    asked = mixed(np.random.default_rng(1)) * 8
    asked = [dataclasses.replace(one, item=(n, one.item)) for n, one in enumerate(asked)]
    batches, _ = plan_batches(asked, 512, 8192, 64)
    numbers = [number for batch in batches for family in batch.families for number in family.numbers]
    assert sorted(numbers) == list(range(len(asked)))
    shapes = {(batch.rows, batch.width, batch.prefix_width) for batch in batches}
    assert len(shapes) <= 2 * continuation_batches.MOST_WIDTHS
    assert all(batch.rows * batch.width <= 512 for batch in batches if batch.rows > 1)


@pytest.mark.once
def test_widths_by_hand():
    # In 32s, the short one in 16: 9 * 128 + 16 -> 128 and 9 * 224 + 16 -> 16.
    assert best_widths([100] * 9 + [10, 200], 2) == [128, 224], "9 rows 96 too wide cost more than one row of 112"
    assert best_widths([100] + [10] * 9 + [200], 2) == [16, 224], "9 rows of 112 cost more than one of 96"
    assert best_widths([30, 60, 90], 4) == [32, 64, 96] and best_widths([7], 4) == [8]


@pytest.mark.once
def test_widths_are_the_best():
    rng = np.random.default_rng(2)
    for _ in range(20):
        lengths = (32 * rng.integers(1, 9, 12)).tolist()
        sizes = sorted(set(lengths))

        def cost(widths, lengths=lengths):
            return sum(min(width for width in widths if width >= length) for length in lengths)

        choices = [c for k in (1, 2, 3) for c in itertools.combinations(sizes, k) if c[-1] == sizes[-1]]
        assert cost(best_widths(lengths, 3)) == min(map(cost, choices))


@pytest.mark.once
def test_common_length():
    assert common_length([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert common_length([[1], [2]]) == 0 and common_length([[5, 6]]) == 2
