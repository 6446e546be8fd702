"""What a user of KerasHub calls on tokenizer, backbone and model, under KerasHub's names; values against KerasHub
itself where it is installed, else by hand."""

import inspect
import os

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer
from gemma_keras.backends import to_host
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.keras_hub_config import config_of_arguments

SIZES = {
    "vocabulary_size": 97, "num_layers": 2, "num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 16,
    "intermediate_dim": 48, "head_dim": 8,
}  # fmt: skip
IDS = np.random.default_rng(5).integers(3, 97, (2, 9)).astype(np.int32)
MASK = np.arange(9)[None] < np.array([[9], [6]])
INPUTS = {"token_ids": IDS, "padding_mask": MASK}


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(["red cat", "blue dog and sun"], 300, "gemma3")


@pytest.fixture(scope="module")
def model(tiny_configs):
    model = GemmaCausalLM(GemmaBackbone(tiny_configs["gemma2"].replace(final_logit_soft_cap=2.0), seed=2))
    # Far enough from 0 that the cap bends the logits.
    table = model.backbone.token_embedding.embeddings
    table.assign(6 * to_host(table.value))
    return model


# --- tokenizer


def test_the_tokenizer_answers_under_kerashubs_names(tokenizer, tmp_path):
    vocabulary = tokenizer.get_vocabulary()
    assert len(vocabulary) == tokenizer.vocabulary_size() == 300
    assert vocabulary[:4] == ["<pad>", "<eos>", "<bos>", "<unk>"]
    for token_id in (0, 2, 5, 290):
        assert tokenizer.id_to_token(token_id) == vocabulary[token_id]
        assert tokenizer.token_to_id(vocabulary[token_id]) == token_id
    assert tokenizer.token_to_id("<end_of_turn>") == tokenizer.end_of_turn_id
    assert tokenizer.token_to_id("no such piece") == tokenizer.unknown_token_id
    assert (tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert (tokenizer.start_token_id, tokenizer.end_token_id) == (2, 1)
    ids = tokenizer.encode("red cat")
    assert tokenizer("red cat") == tokenizer.tokenize("red cat") == ids
    assert tokenizer(["red cat", "dog"]) == [ids, tokenizer.encode("dog")]
    assert tokenizer.detokenize([2, *ids, 1]) == tokenizer.detokenize(np.array(ids)) == "red cat"
    assert tokenizer.detokenize([ids, ids[:1]]) == ["red cat", tokenizer.decode(ids[:1])]
    assert tokenizer.detokenize(keras.ops.convert_to_tensor([ids, ids])) == ["red cat"] * 2
    with pytest.raises(ValueError, match="Token ids must be from 0 to 299. Received: 300"):
        tokenizer.id_to_token(300)
    (tmp_path / "vocabulary.spm").write_bytes(tokenizer.model_proto)
    assert GemmaTokenizer(proto=str(tmp_path / "vocabulary.spm")).get_vocabulary() == vocabulary
    with pytest.raises(TypeError, match="A tokenizer needs `model_proto`"):
        GemmaTokenizer()
    again = GemmaTokenizer.from_config(tokenizer.get_config())
    assert (again.model_proto, again.family) == (tokenizer.model_proto, "gemma3")


# --- backbone


@pytest.mark.once
@pytest.mark.needs("keras_hub")
@pytest.mark.parametrize(
    "name, options",
    [
        ("GemmaBackbone", {}),
        ("GemmaBackbone", {"num_key_value_heads": 1}),
        (
            "GemmaBackbone",
            {
                "use_post_ffw_norm": True, "use_post_attention_norm": True, "attention_logit_soft_cap": 50,
                "final_logit_soft_cap": 30, "use_sliding_window_attention": True, "sliding_window_size": 4,
            },
        ),
        (
            "Gemma3Backbone",
            {
                "image_size": None, "use_post_ffw_norm": True, "use_post_attention_norm": True,
                "use_sliding_window_attention": True, "sliding_window_size": 4, "global_rope_scaling_factor": 8.0,
            },
        ),
    ],
)  # fmt: skip
def test_the_arguments_of_kerashub_make_kerashubs_model(name, options):
    import keras_hub

    theirs = getattr(keras_hub.models, name)(**SIZES | options)
    ours = GemmaBackbone(**SIZES | options)
    converted = GemmaCausalLM.from_keras_hub(theirs)
    assert ours.config == converted.config
    for variable in converted.backbone.variables:
        assert variable.path in {each.path for each in ours.variables}
    for key, variable in ours.named_variables().items():
        variable.assign(to_host(converted.backbone.named_variables()[key].value))
    found, expected = (np.asarray(to_host(each(INPUTS))) for each in (ours, theirs))
    np.testing.assert_allclose(found[MASK], expected[MASK], atol=1e-4)


@pytest.mark.once
@pytest.mark.needs("keras_hub")
@pytest.mark.parametrize("name", ["GemmaBackbone", "Gemma3Backbone"])
def test_every_argument_of_kerashub_is_known_with_its_default(name):
    import keras_hub

    parameters = inspect.signature(getattr(keras_hub.models, name).__init__).parameters.values()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    known = [each for each in parameters if each.name not in ("self", "dtype") and each.kind not in kinds]
    defaults = {each.name: each.default for each in known if each.default is not inspect.Parameter.empty}
    is_gemma3 = name == "Gemma3Backbone"
    least = {**SIZES, "use_sliding_window_attention": True}
    expected = config_of_arguments(least, is_gemma3)
    assert config_of_arguments({**defaults, **least}, is_gemma3) == expected


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"vision_encoder": object()}, CheckpointError, "only the text decoder is here"),
        ({"dropout": 0.1}, CheckpointError, "only an adapter has dropout"),
        ({"use_bidirectional_attention": True}, CheckpointError, "a decoder looks back only"),
        ({"local_rope_scaling_factor": 2.0}, CheckpointError, "no Gemma has that"),
        ({"use_post_ffw_norm": True}, CheckpointError, "both or neither"),
        ({"num_heads": 3}, TypeError, "no argument 'num_heads'. Expected vocabulary_size"),
        ({"config": GemmaConfig()}, TypeError, "Pass a GemmaConfig or KerasHub's arguments, not both"),
    ],
)
def test_arguments_of_no_gemma_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        GemmaBackbone(**SIZES | options)


def test_a_missing_size_is_named():
    with pytest.raises(TypeError, match="'num_layers' is missing"):
        GemmaBackbone(vocabulary_size=97)


def test_blocks_are_found_by_kerashubs_names_and_embeddings_work_both_ways(model):
    backbone = model.backbone
    assert [block.name for block in backbone.transformer_layers] == [f"decoder_block_{i}" for i in range(3)]
    assert backbone.get_layer("decoder_block_1") is backbone.transformer_layers[1]
    embedding = backbone.get_layer("token_embedding")
    rows = np.asarray(to_host(embedding(IDS)))
    np.testing.assert_array_equal(rows, to_host(embedding.embeddings.value)[IDS])
    hidden = np.asarray(to_host(backbone(INPUTS)), np.float64)
    raw = hidden @ np.asarray(to_host(embedding.embeddings.value), np.float64).T
    logits = to_host(embedding(hidden.astype(np.float32), reverse=True))
    np.testing.assert_allclose(logits, 2 * np.tanh(raw / 2), atol=1e-4)
    np.testing.assert_allclose(logits, to_host(model(INPUTS)), atol=1e-5)


def test_ids_may_come_as_floats(model):
    floats = {**INPUTS, "token_ids": IDS.astype(np.float32)}
    np.testing.assert_array_equal(to_host(model(floats)), to_host(model(INPUTS)))


def test_a_policy_map_is_kept(tiny_configs):
    config = tiny_configs["gemma"]
    policies = keras.dtype_policies.DTypePolicyMap("mixed_bfloat16")
    policies["layers_1/q_proj"] = keras.dtype_policies.DTypePolicy("float32")
    backbone = GemmaBackbone(config, dtype=policies, seed=2)
    again = GemmaBackbone.from_config(backbone.get_config())
    for each in (backbone, again):
        projections = each.projections()
        assert projections["layers.1.q_proj"].compute_dtype == "float32"
        assert projections["layers.0.q_proj"].compute_dtype == "bfloat16"
    np.testing.assert_array_equal(
        to_host(again(INPUTS)), to_host(GemmaBackbone.from_config(again.get_config())(INPUTS))
    )


# --- score


def test_score_under_kerashubs_signature_gives_logits_and_losses(model):
    logits = np.asarray(to_host(model.score(IDS, padding_mask=MASK)), np.float64)
    np.testing.assert_allclose(logits, to_host(model(INPUTS)), atol=1e-6)
    targets = np.roll(IDS, -1, axis=1)
    losses = to_host(model.score(token_ids=IDS, padding_mask=MASK, scoring_mode="loss", target_ids=targets))
    expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    with pytest.raises(ValueError, match="`scoring_mode` must be 'logits' or 'loss'. Received: scoring_mode='other'"):
        model.score(IDS, scoring_mode="other")
    with pytest.raises(ValueError, match="scoring_mode='loss' needs `target_ids`"):
        model.score(IDS, scoring_mode="loss")


def test_an_intercept_sees_embeddings_and_every_block_and_changes_what_follows(model):
    seen = {}

    def watch(x, index):
        seen[index] = np.asarray(to_host(x))
        return x

    plain = to_host(model.score(IDS, padding_mask=MASK, layer_intercept_fn=watch))
    assert list(seen) == [-1, 0, 1, 2]
    np.testing.assert_array_equal(seen[-1], to_host(model.backbone.token_embedding(IDS)))
    final = to_host(model.backbone.final_norm(seen[2]))
    np.testing.assert_allclose(to_host(model.backbone.token_embedding(final, reverse=True)), plain, atol=1e-5)
    changed = {
        at: to_host(
            model.score(IDS, padding_mask=MASK, layer_intercept_fn=lambda x, i, at=at: x * 1.5 if i == at else x)
        )
        for at in (-1, 1)
    }
    for logits in changed.values():
        assert np.abs(logits - plain)[MASK].max() > 1e-2


# --- adapter files


def randomised(model, seed=1, **options):
    model.enable_lora(**options)
    rng = np.random.default_rng(seed)
    for projection in model.backbone.projections().values():
        if projection.active is not None:
            projection.active.b.assign(rng.normal(0, 0.3, projection.active.b.shape).astype(np.float32))
    return model


@pytest.mark.once
def test_an_adapter_goes_through_one_file(tiny_configs, tmp_path):
    config = tiny_configs["gemma"]
    first = randomised(GemmaCausalLM(GemmaBackbone(config, seed=2)), rank=2, alpha=6, target_layer_names=["q_proj"])
    expected = to_host(first(INPUTS))
    first.backbone.save_lora_weights(tmp_path / "adapter.safetensors")
    # As in KerasHub's guides with the same adapter enabled before, and without it.
    for options in ({"rank": 2, "alpha": 6, "target_layer_names": ["q_proj"]}, None):
        other = GemmaCausalLM(GemmaBackbone(config, seed=2))
        if options:
            other.enable_lora(**options)
        other.backbone.load_lora_weights(tmp_path / "adapter.safetensors")
        np.testing.assert_array_equal(to_host(other(INPUTS)), expected)
        assert other.active_adapter == "default" and len(other.trainable_variables) == 2 * config.num_layers
    wrong = GemmaCausalLM(GemmaBackbone(config, seed=2))
    wrong.enable_lora(rank=4)
    with pytest.raises(ValueError, match="its adapter differs from 'default', which the model has"):
        wrong.backbone.load_lora_weights(tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match="must end in .safetensors; KerasHub's .lora.h5 is read, not written"):
        first.backbone.save_lora_weights(tmp_path / "adapter.lora.h5")
    first.save_adapter(tmp_path / "folder")
    with pytest.raises(CheckpointError, match="its header holds no adapter_config.*load_adapter"):
        wrong.backbone.load_lora_weights(tmp_path / "folder" / "adapter_model.safetensors")


@pytest.mark.once
@pytest.mark.needs("keras_hub")
@pytest.mark.parametrize("family", ["gemma", "gemma3"])
def test_an_adapter_file_of_kerashub_gives_kerashubs_logits(tiny_configs, tmp_path, family):
    config = tiny_configs[family].replace(num_key_value_heads=2, query_scale=8**-0.5)
    if family == "gemma3":
        config = config.replace(local_layers=(True,) * 3, local_rope_theta=1e4, rope_theta=1e6)
    model = GemmaCausalLM(GemmaBackbone(config, seed=2))
    theirs = model.to_keras_hub()
    theirs.backbone.enable_lora(rank=3)
    rng = np.random.default_rng(4)
    for variable in theirs.trainable_variables:
        if "lora_kernel_b" in variable.path:
            variable.assign(rng.normal(0, 0.3, variable.shape).astype(np.float32))
    theirs.backbone.save_lora_weights(str(tmp_path / "theirs.lora.h5"))
    expected = np.asarray(to_host(theirs(INPUTS)))
    model.backbone.load_lora_weights(tmp_path / "theirs.lora.h5")
    assert model.adapters["default"].rank == 3 * config.num_query_heads
    np.testing.assert_allclose(np.asarray(to_host(model(INPUTS)))[MASK], expected[MASK], atol=1e-4)
    smaller = GemmaBackbone(config.replace(hidden_dim=24, query_scale=8**-0.5))
    with pytest.raises(CheckpointError, match="KerasHub cannot read it as an adapter of this model"):
        smaller.load_lora_weights(tmp_path / "theirs.lora.h5")


# --- devices


@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="Keras distributes on jax alone")
def test_the_layout_splits_every_matrix_and_changes_no_number(tiny_configs):
    config = tiny_configs["gemma"].replace(vocabulary_size=98, num_key_value_heads=2)
    expected = np.asarray(to_host(GemmaCausalLM(GemmaBackbone(config, seed=2))(INPUTS)))
    mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], keras.distribution.list_devices())
    layout = GemmaBackbone.get_layout_map(mesh)
    with keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch").scope():
        model = GemmaCausalLM(GemmaBackbone(config, seed=2))
        model.enable_lora(rank=2)
        split = {v.path for v in model.variables if "model" in tuple(v.value.sharding.spec)}
        whole = {v.path for v in model.variables} - split
        found = np.asarray(to_host(model(INPUTS)))
    np.testing.assert_allclose(found[MASK], expected[MASK], atol=1e-5)
    # A block has seven kernels, and of each adapter the side that is as wide as the split one.
    assert len(split) == 1 + 2 * 7 * config.num_layers
    assert {"layers_2/o_proj/kernel", "layers_0/down_proj/lora_a_default", "layers_1/q_proj/lora_b_default"} < split
    kinds = {"/".join(path.split("/")[-2:]) for path in whole if "norm" not in path}
    wide_in, wide_out = ("o_proj", "down_proj"), ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    assert kinds == {f"{n}/lora_b_default" for n in wide_in} | {f"{n}/lora_a_default" for n in wide_out}


def test_a_mesh_without_the_axes_is_refused():
    with pytest.raises(ValueError, match="`device_mesh` must be a keras.distribution.DeviceMesh"):
        GemmaBackbone.get_layout_map("mesh")
    devices = np.array(["cpu:0"])
    mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "other"], devices)
    with pytest.raises(ValueError, match="The mesh has no axis 'model'. Its axes: batch, other"):
        GemmaBackbone.get_layout_map(mesh)
    assert len(GemmaBackbone.get_layout_map(mesh, model_parallel_dim_name="other")) == 5
