"""The same weights through KerasHub, both ways, objects and presets."""

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaTokenizer, Sampler, samplers
from gemma_keras.checkpoints import keras_hub as hub
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.config import GemmaConfig, every_nth_global

pytestmark = pytest.mark.needs("keras_hub")

SIZES = {
    "vocabulary_size": 97, "num_layers": 3, "num_query_heads": 4, "num_key_value_heads": 1, "head_dim": 8,
    "hidden_dim": 16, "intermediate_dim": 24,
}  # fmt: skip
POST_NORMS = {"use_post_norms": True, "sliding_window": 4}
CONFIGS = {
    "gemma_one_kv_head": GemmaConfig(**SIZES),
    "gemma_multi_head": GemmaConfig(**{**SIZES, "num_key_value_heads": 4}),
    # KerasHub's other scale: width / heads, as in Gemma 2 27B.
    "gemma2": GemmaConfig(
        **{**SIZES, "num_key_value_heads": 2, "hidden_dim": 48}, **POST_NORMS, family="gemma2", query_scale=12**-0.5,
        attention_logit_soft_cap=50.0, final_logit_soft_cap=30.0, local_layers=every_nth_global(3, 2),
    ),
    "gemma3": GemmaConfig(
        **{**SIZES, "num_layers": 7, "num_key_value_heads": 2}, **POST_NORMS, family="gemma3", use_query_key_norm=True,
        rope_theta=1e6,
        local_rope_theta=1e4, rope_scale=8.0, local_layers=every_nth_global(7, 6), context_length=131_072,
    ),
}  # fmt: skip
IDS = np.random.default_rng(7).integers(5, 97, (2, 9)).astype(np.int32)
INPUTS = {"token_ids": IDS, "padding_mask": np.ones(IDS.shape, bool)}


def logits(model):
    return np.array(keras.ops.convert_to_numpy(model(INPUTS)))


def weights_of(model):
    return {name: np.array(keras.ops.convert_to_numpy(v.value)) for name, v in model.backbone.named_variables().items()}


def shaken(model):
    """Norm scales away from zero, so that a norm in the wrong place shows."""
    rng = np.random.default_rng(1)
    for name, variable in model.backbone.named_variables().items():
        if name.endswith("_norm"):
            variable.assign(rng.normal(0, 0.3, variable.shape).astype(np.float32))
    return model


@pytest.mark.parametrize("name", list(CONFIGS))
def test_logits_and_weights_go_both_ways(name):
    ours = shaken(GemmaCausalLM(GemmaBackbone(CONFIGS[name], seed=5)))
    theirs = ours.to_keras_hub()
    np.testing.assert_allclose(logits(theirs), logits(ours), atol=1e-4, rtol=0)
    again = GemmaCausalLM.from_keras_hub(theirs)
    assert again.config == ours.config
    expected = weights_of(ours)
    for key, values in weights_of(again).items():
        np.testing.assert_array_equal(values, expected[key], err_msg=key)


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_presets_go_both_ways(name, tmp_path):
    tokenizer = GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, CONFIGS[name].family)
    config = CONFIGS[name].replace(vocabulary_size=tokenizer.vocabulary_size())
    ours = shaken(GemmaCausalLM(GemmaBackbone(config, seed=5), tokenizer))
    if name == "gemma3":
        # KerasHub's Gemma 3 tokenizer wants pieces for images, which this one has not.
        with pytest.warns(UserWarning, match="its model goes without one"):
            theirs = ours.to_keras_hub()
        assert theirs.preprocessor is None
        theirs.backbone.save_to_preset(str(tmp_path / "preset"))
    else:
        ours.to_keras_hub().save_to_preset(str(tmp_path / "preset"))
    again = GemmaCausalLM.from_preset(tmp_path / "preset")
    assert again.config == ours.config
    if name == "gemma2":
        assert again.tokenizer.encode("red dog") == tokenizer.encode("red dog")
    expected = weights_of(ours)
    for key, values in weights_of(again).items():
        np.testing.assert_array_equal(values, expected[key], err_msg=key)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "gemma_multi_head" else pytest.mark.slow) for name in CONFIGS]
)
def test_a_merged_adapter_goes_both_ways_bit_for_bit(name):
    ours = shaken(GemmaCausalLM(GemmaBackbone(CONFIGS[name], seed=5)))
    ours.enable_lora(rank=2)
    rng = np.random.default_rng(2)
    for projection in ours.backbone.projections().values():
        projection.active.b.assign(rng.normal(0, 0.1, projection.active.b.shape).astype(np.float32))
    base = weights_of(ours)
    ours.merge_adapter()
    merged = weights_of(ours)
    assert all((merged[key] != base[key]).any() for key in merged if key.endswith("_proj"))
    again = weights_of(GemmaCausalLM.from_keras_hub(ours.to_keras_hub()))
    for key, values in merged.items():
        np.testing.assert_array_equal(again[key], values, err_msg=key)


def test_our_adapter_is_in_their_kernels_and_theirs_in_ours():
    ours = GemmaCausalLM(GemmaBackbone(CONFIGS["gemma3"], seed=5))
    ours.enable_lora(rank=2)
    rng = np.random.default_rng(2)
    for projection in ours.backbone.projections().values():
        projection.active.b.assign(rng.normal(0, 0.1, projection.active.b.shape).astype(np.float32))
    adapted = logits(ours)
    np.testing.assert_allclose(logits(ours.to_keras_hub()), adapted, atol=1e-4, rtol=0)

    theirs = GemmaCausalLM(GemmaBackbone(CONFIGS["gemma_multi_head"], seed=5)).to_keras_hub()
    base = logits(theirs)
    theirs.backbone.enable_lora(2)
    for layer in theirs.backbone._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            layer.lora_kernel_b.assign(rng.normal(0, 0.1, layer.lora_kernel_b.shape).astype(np.float32))
    assert np.abs(logits(theirs) - base).max() > 1e-2
    np.testing.assert_allclose(logits(GemmaCausalLM.from_keras_hub(theirs)), logits(theirs), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gemma2", {"query_scale": 0.2}, "KerasHub's gemma2 has no such model: query_scale=0.2"),
        ("gemma3", {"local_layers": (False,) * 6 + (True,)}, "local_layers"),
        ("gemma3", {"local_rope_theta": 3e4}, "local_rope_theta"),
        ("gemma3", {"local_layers": (), "rope_theta": 1e4}, "rope_theta=10000.0"),
        ("gemma_one_kv_head", {"rope_theta": 3e4, "local_rope_theta": 3e4}, "rope_theta"),
    ],
)
def test_what_keras_hub_does_not_have_is_refused(name, change, message):
    with pytest.raises(CheckpointError, match=message):
        hub.build(CONFIGS[name].replace(**change))


@pytest.mark.parametrize("name", ["GreedySampler", "RandomSampler", "TopKSampler", "TopPSampler"])
def test_samplers_have_keras_hubs_arguments_and_defaults(name):
    import keras_hub

    theirs, ours = getattr(keras_hub.samplers, name), getattr(samplers, name)
    assert Sampler.from_name(theirs()) == ours()
    options = {"temperature": 0.5} | ({} if name == "GreedySampler" else {"seed": 3})
    options |= {"TopKSampler": {"k": 7}, "TopPSampler": {"k": 8, "p": 0.4}}.get(name, {})
    assert Sampler.from_name(theirs(**options)) == ours(**options)


def test_searches_of_keras_hub_are_refused():
    import keras_hub

    for search in (keras_hub.samplers.BeamSampler(), keras_hub.samplers.ContrastiveSampler()):
        with pytest.raises(ValueError, match="search here. Use"):
            Sampler.from_name(search)


def test_other_models_are_refused():
    with pytest.raises(CheckpointError, match="Expected KerasHub's Gemma"):
        GemmaCausalLM.from_keras_hub(keras.Sequential([keras.layers.Dense(1)]))
