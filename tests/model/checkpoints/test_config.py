"""`config.json` in the dialects of transformers 4 and 5: read, written, and opened by the installed transformers."""

import json

import pytest

from gemma_keras.checkpoints import hugging_face_reader, hugging_face_writer
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.hugging_face_config import config_from_dict, config_to_dict
from gemma_keras.config import PUBLISHED_SIZES, GemmaConfig

pytestmark = pytest.mark.no_backend

# What the published repositories hold, written by version 4, without keys that play no part here.
VERSION_4 = {
    "gemma_2b": {
        "architectures": ["GemmaForCausalLM"], "attention_bias": False, "bos_token_id": 2, "eos_token_id": 1,
        "head_dim": 256, "hidden_act": "gelu", "hidden_activation": None, "hidden_size": 2048,
        "intermediate_size": 16384, "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 10000.0, "torch_dtype": "bfloat16", "vocab_size": 256000,
    },
    "gemma2_27b": {
        "architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 50.0, "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 128,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608,
        "intermediate_size": 36864, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 32,
        "num_hidden_layers": 46, "num_key_value_heads": 16, "pad_token_id": 0, "query_pre_attn_scalar": 144,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "float32",
        "vocab_size": 256000,
    },
    "gemma3_1b": {
        "architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": None, "bos_token_id": 2,
        "eos_token_id": [1, 106], "final_logit_softcapping": None, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
        "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16", "vocab_size": 262144,
    },
    "gemma3_270m": {
        "_sliding_window_pattern": 6, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 640,
        "intermediate_size": 2048, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
        "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10000.0, "rope_scaling": None, "rope_theta": 1000000.0, "sliding_window": 512,
        "torch_dtype": "bfloat16", "use_bidirectional_attention": False, "vocab_size": 262144,
    },
    "gemma3_12b": {
        "architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106], "image_token_index": 262144,
        "model_type": "gemma3", "torch_dtype": "bfloat16",
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
        "text_config": {
            "hidden_size": 3840, "intermediate_size": 15360, "model_type": "gemma3_text", "num_attention_heads": 16,
            "num_hidden_layers": 48, "num_key_value_heads": 8, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    },
    "gemma3_4b": {
        "model_type": "gemma3", "torch_dtype": "bfloat16",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("size", VERSION_4)
def test_version_4_files_are_the_published_sizes(size):
    assert config_from_dict(VERSION_4[size]) == PUBLISHED_SIZES[size]


@pytest.mark.parametrize("size", PUBLISHED_SIZES)
def test_what_is_written_is_read_back(size):
    config = PUBLISHED_SIZES[size]
    table = json.loads(json.dumps(config_to_dict(config, "bfloat16")))
    assert config_from_dict(table) == config
    # Each version's keys alone say the same model.
    version_4 = {key: value for key, value in table.items() if key not in ("rope_parameters", "layer_types", "dtype")}
    assert config_from_dict(version_4) == config
    only_4 = ("rope_theta", "rope_local_base_freq", "rope_scaling", "sliding_window_pattern", "torch_dtype")
    version_5 = {key: value for key, value in table.items() if key not in only_4}
    assert config_from_dict(version_5) == config


@pytest.mark.parametrize("size", PUBLISHED_SIZES)
def test_transformers_opens_what_is_written_and_we_read_what_it_writes(size, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = PUBLISHED_SIZES[size]
    hugging_face_writer.write_config(tmp_path, config, "bfloat16")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.num_labels == 2 and str(theirs.dtype).endswith("bfloat16")
    assert (theirs.hidden_size, theirs.num_key_value_heads) == (config.hidden_dim, config.num_key_value_heads)
    rope = theirs.rope_parameters
    if config.family == "gemma3":
        assert rope["full_attention"]["rope_theta"] == 1e6 and rope["sliding_attention"]["rope_theta"] == 1e4
        assert rope["full_attention"].get("factor", 1.0) == config.rope_scale
        assert rope["sliding_attention"]["rope_type"] == "default"
    else:
        assert rope["rope_theta"] == 1e4 and rope["rope_type"] == "default"
    if config.family != "gemma":
        assert [kind == "sliding_attention" for kind in theirs.layer_types] == list(config.local_layers)
        assert theirs.query_pre_attn_scalar**-0.5 == config.query_scale
        assert theirs.final_logit_softcapping == config.final_logit_soft_cap
    again = tmp_path / "again"
    theirs.save_pretrained(again)
    assert hugging_face_reader.read_config(again) == config
    stops = transformers.GenerationConfig.from_pretrained(tmp_path).eos_token_id
    assert stops == ([1, 106] if config.family == "gemma3" else [1, 107])


def test_padded_vocabularies_are_the_tokenizers():
    assert config_from_dict({**VERSION_4["gemma_2b"], "vocab_size": 256_128}).vocabulary_size == 256_000


def test_a_pattern_that_no_number_says_keeps_its_layer_types():
    local = (True, False, False, True)
    config = PUBLISHED_SIZES["gemma3_1b"].replace(num_layers=4, local_layers=local)
    table = config_to_dict(config, "float32")
    assert "sliding_window_pattern" not in table
    assert config_from_dict(table) == config


def test_a_reward_models_file_has_one_label_and_its_statistics(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = PUBLISHED_SIZES["gemma3_270m"]
    hugging_face_writer.write_config(tmp_path, config, "float32", reward={"reward_mean": -0.25, "reward_std": 1.5})
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.num_labels == 1 and theirs.pad_token_id == 0
    assert theirs.architectures == ["Gemma3TextForSequenceClassification"]
    assert hugging_face_reader.read_reward(tmp_path) == {"reward_mean": -0.25, "reward_std": 1.5}
    assert not (tmp_path / "generation_config.json").exists()


def test_stop_ids_of_another_tokenizer(tmp_path):
    hugging_face_writer.write_config(tmp_path, PUBLISHED_SIZES["gemma_2b"], "float32", stop_token_ids=(5, 1))
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [1, 5]
    assert hugging_face_reader.read_dtype(tmp_path) == "float32" and hugging_face_reader.read_reward(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "`model_type` must be one of gemma, gemma2, gemma3_text, gemma3. Received: 'llama'"),
        ({"model_type": None}, "`model_type` must be one of"),
        ({"use_bidirectional_attention": True}, "`use_bidirectional_attention` must be false"),
        ({"attention_bias": True}, "`attention_bias` must be false"),
        ({"tie_word_embeddings": False}, "`tie_word_embeddings` must be true"),
        ({"hidden_activation": "relu"}, "`hidden_activation` must be one of"),
        ({"hidden_activation": "gelu"}, "`hidden_activation` must be one of"),
        ({"hidden_size": "1152"}, "`hidden_size` must be an integer"),
        ({"hidden_size": True}, "`hidden_size` must be an integer"),
        ({"vocab_size": 10**30}, "`vocab_size` must be an integer"),
        ({"num_hidden_layers": 10**9, "layer_types": None}, "`num_hidden_layers` must be at most 1000"),
        ({"num_key_value_heads": 3}, "must divide `num_query_heads`"),
        ({"layer_types": ["full_attention"]}, "`layer_types` needs 26 entries"),
        ({"layer_types": ["chunked_attention"] * 26}, "`layer_types` needs 26 entries"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "`rope_type` must be default or linear"),
        ({"rope_scaling": {"rope_type": "linear"}}, "`factor` of the rotary scaling must be a number > 0"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rotary scaling of sliding layers",
        ),
        ({"rope_parameters": [1]}, "`rope_parameters` must be an object"),
        ({"query_pre_attn_scalar": 0}, "`query_pre_attn_scalar` must be a number > 0"),
        ({"rms_norm_eps": float("nan")}, "`rms_norm_eps` must be a number > 0"),
    ],
)
def test_what_no_gemma_has_is_refused(change, message):
    with pytest.raises(CheckpointError, match=r"^folder/config.json: ") as error:
        config_from_dict({**VERSION_4["gemma3_1b"], **change}, "folder/config.json")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"use_post_norms": True}, "use_post_norms"),
        ({"final_logit_soft_cap": 30.0}, "final_logit_soft_cap"),
        ({"query_scale": 0.1}, "query_scale"),
        ({"local_rope_theta": 5.0}, "local_rope_theta"),
        ({"sliding_window": 8, "local_layers": (True,) * 18}, "local_layers"),
    ],
)
def test_a_model_that_hugging_face_lacks_is_not_written(changes, name):
    with pytest.raises(CheckpointError, match=f"Hugging Face's gemma has no such model: {name}="):
        config_to_dict(PUBLISHED_SIZES["gemma_2b"].replace(**changes), "float32")


def test_a_query_scale_that_no_integer_gives_is_not_written():
    with pytest.raises(CheckpointError, match="cannot hold query_scale"):
        config_to_dict(PUBLISHED_SIZES["gemma2_2b"].replace(query_scale=0.3), "float32")


def test_defaults_of_a_bare_file_are_the_classes_defaults():
    assert config_from_dict({"model_type": "gemma"}) == PUBLISHED_SIZES["gemma_7b"]
    assert config_from_dict({"model_type": "gemma2"}) == PUBLISHED_SIZES["gemma2_2b"]
    assert isinstance(config_from_dict({"model_type": "gemma3_text"}), GemmaConfig)
