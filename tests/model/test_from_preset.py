"""`from_preset` of models, backbones and tokenizers: published names and handles, adapters with their base, KerasHub's
class names."""

import json
import shutil

import keras
import numpy as np
import pytest

import gemma_keras
from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaRewardModel, GemmaTokenizer
from gemma_keras.backends import to_host
from gemma_keras.checkpoints import resolve
from gemma_keras.checkpoints.errors import CheckpointError
from pipelines import cli
from pipelines.stages.context import StageContext

pytestmark = pytest.mark.once

TEXTS = ["red cat", "blue dog", "green moon and sun"]
IDS = np.array([[2, 5, 6, 9]])


@pytest.fixture(scope="module")
def model(tiny_configs):
    tokenizer = GemmaTokenizer.train(TEXTS, 300, "gemma2")
    config = tiny_configs["gemma2"].replace(vocabulary_size=tokenizer.vocabulary_size())
    return GemmaCausalLM(GemmaBackbone(config, seed=6), tokenizer)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    model.save_to_preset(path)
    return path


@pytest.fixture
def hub_with_model(hub_stand_in, folder):
    shutil.copytree(folder, hub_stand_in.folder, dirs_exist_ok=True)
    return hub_stand_in


def embedding(backbone):
    return to_host(backbone.named_variables()["embedding"].value)


def test_names_and_handles_open_in_python(model, hub_with_model):
    kinds = {
        "gemma2_2b_en": GemmaCausalLM,
        "hf://google/gemma-2-9b@v1": gemma_keras.Gemma3CausalLM,
        "gemma3_instruct_4b_text": gemma_keras.Gemma3Backbone,
        "shieldgemma_2b_en": GemmaRewardModel,
    }
    for name, kind in kinds.items():
        opened = kind.from_preset(name)
        backbone = getattr(opened, "backbone", opened)
        np.testing.assert_array_equal(embedding(backbone), embedding(model.backbone))
    preprocessor = gemma_keras.models.GemmaCausalLMPreprocessor.from_preset("code_gemma_2b_en", sequence_length=9)
    assert preprocessor.tokenizer.model_proto == model.tokenizer.model_proto and preprocessor.sequence_length == 9
    assert [(repository, revision) for repository, revision, _ in hub_with_model.asked] == [
        ("google/gemma-2-2b", None),
        ("google/gemma-2-9b", "v1"),
        ("google/gemma-3-4b-it", None),
        ("google/shieldgemma-2b", None),
        ("google/codegemma-2b", None),
    ]


def test_names_open_in_the_workflow(model, hub_with_model, tmp_path, capsys):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "red", "completion": "cat"}\n')
    text = "name: w\nmodel: MODEL\nstages:\n  sft:\n    kind: instruction_tuning\n    data: {path: pairs.jsonl}\n"
    for name in ("gemma2_instruct_2b_en", "hf://google/gemma-2-2b@v2", "kaggle://keras/gemma2/keras/gemma2_2b_en"):
        (tmp_path / "w.yaml").write_text(text.replace("MODEL", name))
        assert cli.main(["validate", str(tmp_path / "w.yaml")]) == 0, capsys.readouterr().err
    assert hub_with_model.asked == []
    context = StageContext("sft", tmp_path, {}, 1, "gemma2_instruct_2b_en", tmp_path)
    opened = GemmaCausalLM.from_preset(context.model_source(None))
    np.testing.assert_array_equal(embedding(opened.backbone), embedding(model.backbone))
    assert hub_with_model.repositories == ["google/gemma-2-2b-it"]


def test_names_open_in_the_commands(folder, hub_with_model, tmp_path, capsys, monkeypatch):
    assert cli.main(["convert", "gemma2_2b_en", str(tmp_path / "converted")]) == 0
    assert (tmp_path / "converted/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    options = ["--max-new-tokens", "2", "--temperature", "0"]
    assert cli.main(["generate", "gemma2_instruct_9b_en", "--prompt", "red", *options]) == 0
    lines = iter(["red", ""])
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    assert cli.main(["chat", "hf://google/gemma-2b@v7", *options]) == 0
    *_, generated, said = capsys.readouterr().out.splitlines()
    assert generated == said
    repositories = [(repository, revision) for repository, revision, _ in hub_with_model.asked]
    assert repositories == [("google/gemma-2-2b", None), ("google/gemma-2-9b-it", None), ("google/gemma-2b", "v7")]


def test_a_size_alone_fetches_nothing(hub_stand_in, monkeypatch, tiny_configs):
    monkeypatch.setitem(gemma_keras.config.PUBLISHED_SIZES, "gemma2_2b", tiny_configs["gemma2"])
    one, same, other = (
        GemmaBackbone.from_preset("gemma2_2b_en", load_weights=False, seed=seed, dtype="float32") for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(embedding(one), embedding(same))
    assert (embedding(one) != embedding(other)).any() and hub_stand_in.asked == []


def test_without_weights_only_small_files_are_fetched(model, hub_with_model):
    (hub_with_model.folder / "model.safetensors").unlink()
    assert GemmaCausalLM.from_preset("someone/gemma", load_weights=False).config == model.config
    ((_, _, patterns),) = hub_with_model.asked
    assert not [pattern for pattern in patterns if "safetensors" in pattern]


def test_keras_hubs_names_are_the_one_implementation(model):
    from gemma_keras import models

    backbone = model.backbone

    for stem in ("", "Gemma", "Gemma3"):
        assert getattr(models, f"{stem}CausalLM") is GemmaCausalLM
        assert getattr(models, f"{stem}CausalLMPreprocessor") is type(GemmaCausalLM(backbone).preprocessor)
        assert getattr(models, f"{stem}Backbone") is GemmaBackbone
        assert getattr(models, f"{stem}Tokenizer") is GemmaTokenizer
        assert getattr(gemma_keras.tokenizers, f"{stem}Tokenizer") is GemmaTokenizer
    assert gemma_keras.models is models and gemma_keras.Gemma3Tokenizer is GemmaTokenizer


def test_a_model_without_its_preprocessor_takes_ids_and_gets_it_back(model):
    task, preprocessor = GemmaCausalLM(model.backbone, model.tokenizer), model.preprocessor
    ids = preprocessor.generate_preprocess(["red cat"], sequence_length=8)
    task.preprocessor = None
    assert task.tokenizer is None
    found = task.generate(ids, stop_token_ids=None, sampler="greedy")
    count = ids["padding_mask"].sum()
    np.testing.assert_array_equal(found["token_ids"][:, :count], ids["token_ids"][:, :count])
    assert found["token_ids"].shape == (1, 8)
    with pytest.raises(ValueError, match="no tokenizer"):
        task.generate("red cat")
    task.preprocessor = preprocessor
    assert task.tokenizer is model.tokenizer and task.preprocessor is preprocessor


def test_objects_of_keras_come_back_as_they_were(model):
    assert not GemmaCausalLM(model.backbone).compiled
    for thing in (GemmaCausalLM(model.backbone, model.tokenizer), model.preprocessor, model.tokenizer):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(thing))
        assert type(again) is type(thing) and again.get_config() == thing.get_config()
        assert not getattr(again, "compiled", False)


# --- adapters


@pytest.fixture(scope="module")
def adapted(folder, tmp_path_factory):
    """A model with an adapter that changes it, saved beside its base: (logits, place of `base/` and `adapter/`)."""
    place = tmp_path_factory.mktemp("adapted")
    shutil.copytree(folder, place / "base")
    model = GemmaCausalLM.from_preset(place / "base")
    model.enable_lora(rank=2, alpha=6.0, target_layer_names=["q_proj", "down_proj"])
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    model.save_adapter(place / "adapter", base="../base")
    return to_host(model({"token_ids": IDS})), place


def test_an_adapter_opens_with_its_base_active_and_trainable(adapted):
    logits, place = adapted
    opened = GemmaCausalLM.from_preset(place / "adapter")
    assert opened.active_adapter == "default" and opened.tokenizer is not None
    np.testing.assert_allclose(to_host(opened({"token_ids": IDS})), logits, atol=1e-6)
    assert len(opened.trainable_variables) == 2 * 2 * opened.config.num_layers
    with opened.adapters_off():
        plain = to_host(opened({"token_ids": IDS}))
    base = GemmaCausalLM.from_preset(place / "base")
    np.testing.assert_allclose(plain, to_host(base({"token_ids": IDS})), atol=1e-6)
    assert np.abs(plain - logits).max() > 0.05
    assert GemmaBackbone.from_preset(place / "adapter").active_adapter == "default"
    assert GemmaCausalLM.from_preset(place / "adapter", load_weights=False).active_adapter is None


def test_the_sum_of_adapter_and_base_is_what_is_converted(adapted, tmp_path):
    logits, place = adapted
    assert cli.main(["convert", str(place / "adapter"), str(tmp_path / "sum")]) == 0
    merged = GemmaCausalLM.from_preset(tmp_path / "sum")
    assert merged.active_adapter is None
    np.testing.assert_allclose(to_host(merged({"token_ids": IDS})), logits, atol=1e-5)
    # By hand, for one kernel, rounded once.
    stored = resolve.open_model(place / "adapter", "bfloat16").weights.read("layers.1.q_proj")
    model = GemmaCausalLM.from_preset(place / "adapter")
    path = model.backbone.projections()["layers.1.q_proj"]
    a, b = (to_host(part.value).astype(np.float64) for part in (path.active.a, path.active.b))
    expected = to_host(path.kernel).astype(np.float64) + 6.0 / 2 * a @ b
    assert stored.dtype.name == "bfloat16"
    np.testing.assert_allclose(stored.astype(np.float64), expected, rtol=2**-8)


def test_the_commands_open_an_adapter(adapted, capsys):
    _, place = adapted
    options = ["--max-new-tokens", "2", "--temperature", "0"]
    assert cli.main(["generate", str(place / "adapter"), "--prompt", "red", *options]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_base_is_looked_up_beside_the_adapter_then_as_given_then_on_the_hub(
    adapted, hub_with_model, tmp_path, monkeypatch
):
    _, place = adapted
    shutil.copytree(place / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_config.json"
    table = json.loads(file.read_text())

    def opened(base, **more):
        file.write_text(json.dumps(table | {"base_model_name_or_path": base} | more))
        return GemmaCausalLM.from_preset(tmp_path / "adapter")

    shutil.copytree(place / "base", tmp_path / "elsewhere/base")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for base in ("base", str(place / "base")):
        assert opened(base).active_adapter == "default"
    assert hub_with_model.asked == []
    opened("google/gemma-2-2b", revision="v5")
    assert {(repository, revision) for repository, revision, _ in hub_with_model.asked} == {("google/gemma-2-2b", "v5")}
    for base, message in [
        (None, "adapter_config.json: `base_model_name_or_path` names no base model. Received: None"),
        ("nowhere/at/all", "adapter_config.json: the base model that `base_model_name_or_path` names: nowhere/at/all"),
        (".", "is no plain base model. Open that model, and give it this adapter with load_adapter"),
        ("kaggle://keras/gemma2/keras/gemma2_2b_en", "is no plain base model"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            opened(base)


def test_a_reward_model_s_adapter_opens_with_its_head(folder, tmp_path):
    model = GemmaRewardModel.from_preset(folder, seed=3)
    model.enable_lora(rank=1)
    model.score.kernel.assign(np.arange(1, model.config.hidden_dim + 1, dtype=np.float32)[:, None])
    model.save_adapter(tmp_path / "adapter", base=str(folder))
    opened = GemmaRewardModel.from_preset(tmp_path / "adapter", seed=4)
    assert opened.active_adapter == "default"
    np.testing.assert_allclose(to_host(opened({"token_ids": IDS})), to_host(model({"token_ids": IDS})), rtol=1e-5)
    merged = resolve.open_model(tmp_path / "adapter")
    assert merged.reward == {"reward_mean": 0.0, "reward_std": 1.0} and merged.adapter is None
    np.testing.assert_array_equal(merged.weights.read("score")[:, 0], np.arange(1, model.config.hidden_dim + 1))


def test_a_workflow_wants_the_sum(adapted, tmp_path, capsys):
    _, place = adapted
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "red", "completion": "cat"}\n')
    adapter = place / "adapter"
    stage = "  sft:\n    kind: instruction_tuning\n    data: {path: pairs.jsonl}\n"
    for number, text in enumerate(
        (f"name: w\nmodel: {adapter}\nstages:\n{stage}", f"name: w\nstages:\n{stage}    from: {adapter}\n")
    ):
        (tmp_path / "w.yaml").write_text(text)
        assert cli.main(["validate", str(tmp_path / "w.yaml")]) == 2
        said = capsys.readouterr().err
        place_of = ("w.yaml:2:8: ", "w.yaml:6:11: ")[number]
        assert (
            place_of in said and f"is an adapter; add it to its base model first: gemma-keras convert {adapter}" in said
        )
