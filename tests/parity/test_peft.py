"""Adapters written here, opened by `peft` over transformers' model, and the other way round; merged folders opened by
transformers."""

import json
import pathlib

import keras
import numpy as np
import pytest

from gemma_keras import GemmaCausalLM, GemmaRewardModel

pytestmark = pytest.mark.once

ORACLE = pathlib.Path(__file__).parent / "transformers_oracle"
NAMES = ("gemma1_mqa", "gemma2", "gemma3")
IDS = np.random.default_rng(7).integers(5, 60, (2, 9)).astype(np.int32)
INPUTS = {"token_ids": IDS, "padding_mask": np.ones(IDS.shape, bool)}


def ours_with_adapter(name, kind=GemmaCausalLM, **options):
    model = kind.from_preset(ORACLE / name)
    model.enable_lora(**options)
    rng = np.random.default_rng(1)
    for projection in model.backbone.projections().values():
        if projection.active is not None:
            projection.active.b.assign(rng.normal(0, 0.05, projection.active.b.shape).astype(np.float32))
    return model


def theirs(folder, kind="AutoModelForCausalLM", **options):
    import transformers

    return (
        getattr(transformers, kind)
        .from_pretrained(folder, attn_implementation="eager", dtype="float32", **options)
        .eval()
    )


def their_logits(model):
    import torch

    with torch.no_grad():
        return model(torch.tensor(IDS).long(), attention_mask=torch.ones(IDS.shape, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_peft_opens_our_adapter_and_transformers_our_merged_folder(name, tmp_path):
    peft = pytest.importorskip("peft")

    options = {"rank": 3, "alpha": 7, "dropout": 0.1, "rank_stabilized": name == "gemma2"}
    if name == "gemma3":
        options["target_layer_names"] = ["q_proj", "v_proj"]
    model = ours_with_adapter(name, **options)
    expected = np.array(keras.ops.convert_to_numpy(model(INPUTS)))
    model.save_adapter(tmp_path / "adapter", base=str(ORACLE / name))
    adapted = peft.PeftModel.from_pretrained(theirs(ORACLE / name), tmp_path / "adapter").eval()
    np.testing.assert_allclose(their_logits(adapted), expected, atol=1e-4, rtol=0)
    model.save_to_preset(tmp_path / "merged")
    np.testing.assert_allclose(their_logits(theirs(tmp_path / "merged")), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_we_open_pefts_adapter(name, tmp_path):
    peft = pytest.importorskip("peft")
    import torch

    torch.manual_seed(2)
    where = (
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]}
        if name == "gemma2"
        else {"target_modules": "all-linear"}
    )
    options = peft.LoraConfig(
        r=4, lora_alpha=6, use_rslora=name == "gemma3", init_lora_weights=False, task_type="CAUSAL_LM", **where
    )
    adapted = peft.get_peft_model(theirs(ORACLE / name), options).eval()
    adapted.save_pretrained(tmp_path)
    model = GemmaCausalLM.from_preset(ORACLE / name)
    model.load_adapter(tmp_path)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(INPUTS)), their_logits(adapted), atol=1e-4, rtol=0)
    # What we write again holds the same tensors under the same names.
    model.save_adapter(tmp_path / "again")
    from safetensors.numpy import load_file

    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, tmp_path / "again"))
    assert set(first) == set(second)
    for key, values in first.items():
        np.testing.assert_array_equal(second[key], values, err_msg=key)


def test_a_reward_models_adapter_carries_its_head(tmp_path):
    peft = pytest.importorskip("peft")

    model = ours_with_adapter("gemma3", GemmaRewardModel, rank=2)
    model.score.kernel.assign(np.random.default_rng(3).normal(size=model.score.kernel.shape).astype(np.float32))
    scores = np.array(keras.ops.convert_to_numpy(model(INPUTS)))
    model.save_adapter(tmp_path, base="base")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    base = theirs(ORACLE / "gemma3", "AutoModelForSequenceClassification", num_labels=1)
    base.config.pad_token_id = 0
    adapted = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    np.testing.assert_allclose(their_logits(adapted)[:, 0], scores, atol=1e-4, rtol=0)


def test_we_open_pefts_reward_adapter(tmp_path):
    """It names two heads to save, "classifier" and "score", whichever the model has."""
    peft = pytest.importorskip("peft")
    import torch

    torch.manual_seed(4)
    base = theirs(ORACLE / "gemma3", "AutoModelForSequenceClassification", num_labels=1)
    base.config.pad_token_id = 0
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(r=3, init_lora_weights=False, target_modules="all-linear", task_type="SEQ_CLS")
    ).eval()
    adapted.save_pretrained(tmp_path)
    model = GemmaRewardModel.from_preset(ORACLE / "gemma3")
    model.load_adapter(tmp_path)
    scores = keras.ops.convert_to_numpy(model(INPUTS))
    np.testing.assert_allclose(scores, their_logits(adapted)[:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "`use_dora` changes what LoRA computes"),
        ({"peft_type": "IA3"}, "expected `peft_type` LORA"),
        ({"modules_to_save": ["embed_tokens"]}, "may name the reward head"),
        ({"r": 5}, "expected floats of shape"),
        ({"lora_alpha": "x"}, "`lora_alpha` must be a number"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' has changed the base model's weights"),
        ({"init_lora_weights": "olora"}, "'olora' has changed the base model's weights"),
    ],
)
def test_other_kinds_of_adapters_are_refused(change, message, tmp_path):
    from gemma_keras.checkpoints.errors import CheckpointError

    model = ours_with_adapter("gemma1_mqa", rank=2)
    model.save_adapter(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        GemmaCausalLM.from_preset(ORACLE / "gemma1_mqa").load_adapter(tmp_path)
