"""Sampling against hand-computed cumulative sums and exact frequencies."""

import numpy as np
import pytest
from keras import ops

from gemma_keras import Sampler, backends, samplers
from gemma_keras.backends import compile_forward, reference_sampling, to_host
from gemma_keras.backends.reference_sampling import inverse_transform
from gemma_keras.random import generator, uniforms
from gemma_keras.sampling import sample

GRID = ((np.arange(1000) + 0.5) / 1000).astype(np.float32)


def frequencies(logits, sampler):
    """Share of each token over a uniform grid of draws: the exact distribution up to 1e-3."""
    drawn, _ = draw(np.tile(np.float32(logits), (1000, 1)), GRID, sampler)
    return np.bincount(drawn, minlength=len(logits)) / 1000


def draw(logits, points, sampler):
    """Tokens and their log-probabilities on the host."""
    return [to_host(x) for x in sample(ops.convert_to_tensor(logits), ops.convert_to_tensor(points), sampler)]


def softmax(logits):
    weights = np.exp(np.float64(logits) - np.max(logits))
    return weights / weights.sum()


LOGITS = [1.0, 3.0, -2.0, 2.0, 0.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax_at_the_temperature(temperature):
    np.testing.assert_allclose(
        frequencies(LOGITS, Sampler(temperature)), softmax(np.array(LOGITS) / temperature), atol=2e-3
    )


def test_temperature_zero_takes_the_maximum():
    assert frequencies(LOGITS, Sampler(0.0))[1] == 1.0


def test_top_k_keeps_the_k_largest():
    kept = softmax([1.0, 3.0, -np.inf, 2.0, -np.inf])
    np.testing.assert_allclose(frequencies(LOGITS, Sampler(top_k=3)), kept, atol=2e-3)


@pytest.mark.parametrize("top_p, kept", [(0.5, [1]), (0.7, [1, 3]), (0.94, [0, 1, 3]), (1.0, [0, 1, 2, 3, 4])])
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, kept):
    # Cumulative probabilities of the sorted tokens: 0.641 (token 1), 0.877 (3), 0.964 (0), 0.996 (4), 1.
    expected = softmax([x if i in kept else -np.inf for i, x in enumerate(LOGITS)])
    np.testing.assert_allclose(frequencies(LOGITS, Sampler(top_p=top_p)), expected, atol=2e-3)


def test_large_vocabulary_agrees_with_float64_sums():
    weights = generator(0, "w").random((64, 5000), dtype=np.float32)
    weights[:, 100:3000] = 0
    draws = generator(0, "u").random(64, dtype=np.float32)
    drawn = to_host(inverse_transform(ops.convert_to_tensor(weights), ops.convert_to_tensor(draws)))
    ends = np.cumsum(weights.astype(np.float64), -1)
    expected = (ends <= (draws.astype(np.float64) * ends[:, -1])[:, None]).sum(-1)
    assert (drawn == expected).mean() >= 0.98
    assert np.abs(drawn - expected).max() <= 2901


def test_extreme_draws_land_on_tokens_of_positive_weight():
    weights = np.zeros((3, 1300), np.float32)
    weights[:, [5, 700, 1200]] = [0.1, 0.2, 0.7]
    draws = np.array([0.0, np.nextafter(np.float32(1), np.float32(0)), 0.15], np.float32)
    drawn = to_host(inverse_transform(ops.convert_to_tensor(weights), ops.convert_to_tensor(draws)))
    assert drawn.tolist() == [5, 1200, 700]


ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))


def test_a_draw_beyond_the_sum_of_its_block_takes_a_token_of_positive_weight():
    """The running sum of a block may end below the block's total, and the largest uniform then lies behind all its
    tokens: those cut off at its end, or behind the vocabulary, must not be drawn."""
    weights = generator(0, "edge").random((2000, 700), dtype=np.float32)
    weights[:, 300:] = 0
    drawn = to_host(inverse_transform(ops.convert_to_tensor(weights), ops.convert_to_tensor(np.full(2000, ALMOST_ONE))))
    assert drawn.min() >= 250 and drawn.max() < 300


def kept_by(logits, sampler):
    """bool (b, v), what a sampler may draw, by a sort in float64."""
    probs = np.exp(logits.astype(np.float64) / sampler.temperature)
    probs /= probs.sum(axis=-1, keepdims=True)
    order = np.sort(probs, axis=-1)[:, ::-1]
    least = np.zeros((len(logits), 1))
    if sampler.top_k is not None:
        least = order[:, sampler.top_k - 1 : sampler.top_k]
        probs = np.where(probs >= least, probs, 0)
        probs /= probs.sum(axis=-1, keepdims=True)
        order = np.sort(probs, axis=-1)[:, ::-1]
        least = order[:, sampler.top_k - 1 : sampler.top_k]
    if sampler.top_p is not None:
        # As many as are needed: the first whose predecessors hold less than top_p.
        needed = (np.cumsum(order, axis=-1) - order < sampler.top_p - 1e-6).sum(axis=-1)
        least = np.maximum(least, np.take_along_axis(order, needed[:, None] - 1, axis=-1))
    return probs >= np.maximum(least, 1e-300)


@pytest.mark.parametrize(
    "sampler",
    [Sampler(0.8, top_k=1), Sampler(0.8, top_k=7), Sampler(1.5, top_p=0.6), Sampler(1.0, top_k=40, top_p=0.9)],
)
def test_every_draw_is_of_the_kept_set_and_has_its_probability_in_the_whole(sampler):
    """At the ends of the unit interval too, over three blocks of which the last is not full; log-probabilities are of
    the distribution before the cut."""
    logits = 3 * generator(0, "kept").standard_normal((400, 1300), dtype=np.float32)
    points = generator(1, "kept").random(400, dtype=np.float32)
    points[:100], points[100:200] = ALMOST_ONE, 0
    drawn, log_probs = draw(logits, points, sampler)
    kept = kept_by(logits, sampler)
    assert kept[np.arange(400), drawn].all()
    assert sampler.top_k == 1 or len(set(drawn.tolist())) > 100
    scaled = logits.astype(np.float64) / sampler.temperature
    whole = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(log_probs, whole[np.arange(400), drawn], atol=1e-5)


def drawn_by(function, logits, points, sampler):
    """Tokens and log-probabilities of a form of the draw, compiled as in the decode loop."""
    arguments = (sampler.temperature, sampler.top_k, sampler.top_p)
    run = compile_forward(lambda *arrays: function(*arrays, *arguments), [])
    return [to_host(x) for x in run(logits, points)]


def with_ties(logits):
    """Rounded as bfloat16 rounds, towards zero."""
    return (logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


SAMPLERS = [
    Sampler(0.0), Sampler(0.7), Sampler(top_k=7), Sampler(top_k=30), Sampler(top_p=0.9),
    Sampler(1.5, top_k=600, top_p=0.6),
]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_the_native_draw_is_that_of_the_reference(sampler):
    """At vocabularies up to 8,192: seeds give the answers that they gave. One token; blocks of which the last is not
    full; ties; tokens that are ruled out."""
    for vocabulary in (1, 8191):
        logits = 3 * generator(vocabulary, "plain").standard_normal((24, vocabulary), dtype=np.float32)
        logits[:12] = with_ties(logits[:12])
        logits[12:20, : vocabulary // 2] = -np.inf
        points = generator(2, "points").random(24, dtype=np.float32)
        points[:4], points[4:8] = ALMOST_ONE, 0
        found, expected = (drawn_by(of.draw_tokens, logits, points, sampler) for of in (backends, reference_sampling))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], atol=2e-6)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_draws_from_a_large_vocabulary_against_a_sort(sampler):
    """20,001 tokens, no multiple of a block: each draw is the token whose part of the running sum of the set that a
    sort keeps, in float64, holds the uniform number; ties, and tokens that are ruled out."""
    size, vocabulary = 60, 20_001
    logits = 3 * generator(0, "large").standard_normal((size, vocabulary), dtype=np.float32)
    logits[:20] = with_ties(logits[:20])
    logits[20:40, generator(1, "large").random(vocabulary) < 0.9] = -np.inf
    logits[50:] = 0.1 * logits[50:]
    points = generator(2, "large").random(size, dtype=np.float32)
    points[:5], points[20:25], points[40:45] = ALMOST_ONE, 0, ALMOST_ONE
    drawn, log_probs = drawn_by(backends.draw_tokens, logits, points, sampler)
    rows = np.arange(size)
    scaled = logits.astype(np.float64) / (sampler.temperature or 1.0)
    whole = scaled - scaled.max(axis=-1, keepdims=True)
    whole -= np.log(np.exp(whole).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(log_probs, whole[rows, drawn], atol=1e-5)
    if sampler.temperature == 0:
        np.testing.assert_array_equal(drawn, logits.argmax(axis=-1))
        return
    kept = kept_by(logits, sampler)
    assert kept[rows, drawn].all()
    shares = np.where(kept, np.exp(whole), 0)
    shares /= shares.sum(axis=-1, keepdims=True)
    ends = np.cumsum(shares, axis=-1)[rows, drawn]
    starts = ends - shares[rows, drawn]
    assert (starts <= points + 2e-6).all() and (points <= ends + 2e-6).all()


@pytest.mark.parametrize("top_p, needed", [(1e-9, 1), (0.5, 2), (0.999, 4)])
def test_top_p_of_a_large_vocabulary_of_equal_and_of_few_weights(top_p, needed):
    """By hand: of equal tokens none is more likely than another, and all are kept; of four with 0.4, 0.3, 0.2, 0.1 as
    many as are needed."""
    points = ((np.arange(200) + 0.5) / 200).astype(np.float32)
    logits = np.zeros((400, 9000), np.float32)
    logits[200:] = -np.inf
    logits[200:, [8000, 10, 600, 8999]] = np.log(np.float32([0.4, 0.3, 0.2, 0.1]))
    drawn, log_probs = drawn_by(backends.draw_tokens, logits, np.tile(points, 2), Sampler(top_p=top_p))
    assert np.abs(drawn[:200] - 9000 * points).max() <= 1
    assert log_probs[:200] == pytest.approx(-np.log(9000), abs=1e-5)
    ranked, shares = [8000, 10, 600, 8999][:needed], np.array([0.4, 0.3, 0.2, 0.1][:needed])
    assert set(drawn[200:]) == set(ranked)
    found = np.array([(drawn[200:] == token).mean() for token in ranked])
    np.testing.assert_allclose(found, shares / shares.sum(), atol=6e-3)


def test_greedy_takes_the_first_of_equal_logits():
    for vocabulary in (700, 20_001):
        logits = np.full((3, vocabulary), -5, np.float32)
        logits[0, [400, 600, 699]] = logits[1, [vocabulary - 2, vocabulary - 1]] = 2
        drawn, _ = drawn_by(backends.draw_tokens, logits, np.zeros(3, np.float32), Sampler(0.0))
        assert drawn.tolist() == [400, vocabulary - 2, 0]


def test_greedy_log_probabilities_are_those_at_temperature_one():
    (drawn,), (log_prob,) = draw(np.float32([LOGITS]), np.zeros(1, np.float32), Sampler(0.0))
    assert drawn == 1 and log_prob == pytest.approx(np.log(softmax(LOGITS)[1]), abs=1e-6)


def test_a_uniform_has_24_bits():
    """What the docstring of `sampling.py` says of a draw's resolution."""
    found = uniforms(3, "bits", shape=10_000).astype(np.float64) * 2**24
    assert (found == np.round(found)).all() and (found % 2 == 1).any() and found.max() < 2**24


@pytest.mark.parametrize(
    "arguments", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"temperature": float("nan")}]
)
def test_values_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        Sampler(**arguments)


def test_keras_hubs_sampler_classes_are_functions_to_a_sampler():
    assert samplers.GreedySampler() == Sampler.from_name("greedy") == Sampler(0.0)
    assert samplers.RandomSampler(seed=3, temperature=0.7) == Sampler(0.7, seed=3)
    assert samplers.TopKSampler() == Sampler.from_name("top_k") == Sampler(top_k=5)
    assert samplers.TopKSampler(7, 1, temperature=2.0) == Sampler(2.0, top_k=7, seed=1)
    assert samplers.TopPSampler() == Sampler(top_p=0.1)
    assert samplers.TopPSampler(0.5, 40, 2) == Sampler(top_k=40, top_p=0.5, seed=2)
    with pytest.raises(ValueError, match="`temperature` must be >= 0"):
        samplers.GreedySampler(temperature=-1.0)


def keras_hub_s(name, base=object, module="keras_hub.src.samplers.some_sampler", **attributes):
    """An object as KerasHub's of that class looks, without KerasHub."""
    return type(name, (base,), {"__module__": module, **attributes})()


def test_keras_hubs_sampler_objects_are_taken():
    top_k = keras_hub_s("TopKSampler", k=9, seed=4, temperature=0.5)
    assert Sampler.from_name(top_k) == Sampler(0.5, top_k=9, seed=4)
    top_p = keras_hub_s("TopPSampler", p=0.3, k=None, seed=None, temperature=1.0)
    assert Sampler.from_name(top_p) == Sampler(top_p=0.3)
    assert Sampler.from_name(keras_hub_s("GreedySampler", temperature=0.6)) == Sampler(0.0)
    assert Sampler.from_name(keras_hub_s("RandomSampler", seed=1, temperature=2.0)) == Sampler(2.0, seed=1)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("beam", "'beam': there is no beam search here. Use 'greedy'; or draw several answers"),
        (keras_hub_s("BeamSampler"), "'beam': there is no beam search here"),
        ("contrastive", "no contrastive search here. Use 'top_p' or 'top_k'"),
        (keras_hub_s("ContrastiveSampler"), "no contrastive search here"),
        ("speculative", "no drafting model here"),
        ("nucleus", "one of \\['greedy', 'random', 'top_k', 'top_p'\\].*Received: sampler='nucleus'"),
        (keras_hub_s("TopKSampler", module="mine", k=5), "no class made from it"),
        (keras_hub_s("Mine", type(keras_hub_s("TopKSampler", k=5)), "mine"), "no class made from it"),
        (3, "Received: sampler=3"),
    ],
)
def test_other_samplers_are_refused_with_what_to_use(sampler, message):
    with pytest.raises(ValueError, match=message):
        Sampler.from_name(sampler)
