"""Published names: which repository each stands for, that KerasHub's list is covered, and what is said of the rest."""

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys

import huggingface_hub
import pytest

from gemma_keras.checkpoints import hub, keras_hub, resolve
from gemma_keras.checkpoints.errors import CheckpointError
from gemma_keras.checkpoints.hub_names import HUB_IDS, hub_id
from gemma_keras.config import GemmaConfig, size_name
from gemma_keras.text.tokenizer import GemmaTokenizer

pytestmark = pytest.mark.no_backend

# By hand, as other programs name the repositories; none was asked whether it exists.
EXPECTED = {
    "gemma_2b_en": "google/gemma-2b",
    "gemma_instruct_7b_en": "google/gemma-7b-it",
    "gemma_1.1_instruct_2b_en": "google/gemma-1.1-2b-it",
    "code_gemma_1.1_2b_en": "google/codegemma-1.1-2b",
    "code_gemma_1.1_instruct_7b_en": "google/codegemma-1.1-7b-it",
    "gemma2_2b_en": "google/gemma-2-2b",
    "gemma2_instruct_27b_en": "google/gemma-2-27b-it",
    "shieldgemma_9b_en": "google/shieldgemma-9b",
    "c2s_scale_gemma_2_27b_en": "vandijklab/C2S-Scale-Gemma-2-27B",
    "gemma3_270m": "google/gemma-3-270m",
    "gemma3_instruct_1b": "google/gemma-3-1b-it",
    "gemma3_4b_text": "google/gemma-3-4b-pt",
    "gemma3_instruct_27b": "google/gemma-3-27b-it",
    "medgemma_1.5_instruct_4b": "google/medgemma-1.5-4b-it",
    "medgemma_instruct_27b": "google/medgemma-27b-it",
    "medgemma_instruct_27b_text": "google/medgemma-27b-text-it",
    "function_gemma_instruct_270m": "google/functiongemma-270m-it",
    "translategemma_12b_it": "google/translategemma-12b-it",
}
# VaultGemma has an architecture of its own; the others give vectors.
REFUSED = {"vault_gemma_1b_en", "embedding_gemma3_300m", "harrier_embedding_oss_270m"}


def keras_hub_presets():
    """KerasHub's tables of Gemma and Gemma 3 presets, as plain data: its code is not run."""
    models = pathlib.Path(importlib.util.find_spec("keras_hub").submodule_search_locations[0], "src/models")
    found = {}
    for file in (models / "gemma/gemma_presets.py", models / "gemma3/gemma3_presets.py"):
        (table,) = [node.value for node in ast.parse(file.read_text()).body if isinstance(node, ast.Assign)]
        found |= ast.literal_eval(table)
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_the_repository_of_a_name(name):
    assert hub.hub_source(name) == hub.HubSource(name, EXPECTED[name])


@pytest.mark.needs("keras_hub")
def test_every_text_preset_of_keras_hub_has_its_repository_and_size():
    presets = keras_hub_presets()
    assert len(presets) >= 50
    for name, about in presets.items():
        if name in REFUSED:
            with pytest.raises(CheckpointError, match=f"^{re.escape(name)}: .*open this one with keras_hub"):
                hub.hub_source(name)
            continue
        repository = hub.hub_source(name).repository
        (size,) = re.findall(r"_(\d+[bm])(?:_|$)", name)
        assert f"-{size}" in repository.lower(), name
        is_tuned = "instruct" in name or name.endswith("_it")
        if not name.startswith(("shieldgemma", "c2s")):
            assert repository.removesuffix("-it") != repository if is_tuned else not repository.endswith("-it"), name
        # KerasHub counts the vision tower of 417 million weights where there is one.
        beyond = about["metadata"]["params"] - GemmaConfig.from_name(name).parameter_count
        assert beyond == 0 or 4.1e8 < beyond < 4.3e8, (name, beyond)
        assert beyond == 0 or "text-only" not in about["metadata"]["description"], name


def test_each_name_with_a_repository_has_a_size():
    assert [name for name in HUB_IDS if size_name(name) is None] == []
    assert hub_id("someone's") is None


@pytest.mark.parametrize(
    ("name", "repository", "revision", "file"),
    [
        ("google/gemma-2b", "google/gemma-2b", None, None),
        ("hf://google/gemma-2b", "google/gemma-2b", None, None),
        ("google/gemma-2b@refs/pr/7", "google/gemma-2b", "refs/pr/7", None),
        ("hf://google/gemma-2b@0ff1ce", "google/gemma-2b", "0ff1ce", None),
        ("gemma_2b_en@v1.1", "google/gemma-2b", "v1.1", None),
        ("a/b@main/q4/x.gguf", "a/b", "main", "q4/x.gguf"),
        ("hf://a/b/x.gguf", "a/b", None, "x.gguf"),
    ],
)
def test_handles_and_revisions(name, repository, revision, file):
    assert hub.hub_source(name) == hub.HubSource(name, repository, revision, file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gemma2_2b_eng", "no published name such as gemma2_2b, and not a hub id.*Did you mean 'gemma2_2b'"),
        ("hf://gemma2_2b", "no such folder or file"),
        ("a/b@", "no such folder or file"),
        ("a/b/c", "no such folder or file"),
        ("gemma4_instruct_2b", "Gemma 4 is another architecture"),
        ("kaggle://keras/vaultgemma/keras/vault_gemma_1b_en", "VaultGemma is an architecture of its own"),
    ],
)
def test_names_that_lead_nowhere(name, message):
    with pytest.raises(CheckpointError, match=message):
        resolve.check_name(name)


def test_without_keras_hub_a_handle_names_the_same_weights_on_the_hub(monkeypatch):
    monkeypatch.setattr(keras_hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        CheckpointError, match=r"pip install 'keras-hub>=[0-9.]+', or name google/gemma-2b on the Hugging Face"
    ):
        resolve.check_name("kaggle://keras/gemma/keras/gemma_2b_en")
    with pytest.raises(ModuleNotFoundError, match="is opened by KerasHub"):
        keras_hub.open_preset("kaggle://someone/else")


def test_what_is_fetched(hub_stand_in):
    assert resolve.resolve("gemma2_2b_en@v2") == hub_stand_in.folder
    with pytest.raises(CheckpointError, match="no tokenizer there"):
        resolve.open_tokenizer("hf://google/gemma-2b")
    with pytest.raises(CheckpointError, match="no model there"):
        resolve.open_model("gemma_2b", with_weights=False)
    of_weights, of_tokenizer, of_sizes = hub_stand_in.asked
    assert of_weights == ("google/gemma-2-2b", "v2", hub.MODEL_FILES_OF_HUB)
    assert of_tokenizer == ("google/gemma-2b", None, hub.TOKENIZER_FILES)
    assert of_sizes == ("google/gemma-2b", None, hub.TOKENIZER_FILES)
    assert not [pattern for pattern in hub.TOKENIZER_FILES if "safetensors" in pattern or "*" in pattern]


@pytest.mark.parametrize(
    ("name", "beginning", "revision"),
    [
        ("gemma2_2b_en", "gemma2_2b_en means google/gemma-2-2b on the hub: ", "main"),
        ("google/no-such-gemma@v9", "google/no-such-gemma@v9 means google/no-such-gemma on the hub: ", "v9"),
        ("google/no-such-gemma", "google/no-such-gemma: no such folder here", "main"),
    ],
)
def test_without_a_network_the_error_names_repository_revision_and_remedy(name, beginning, revision):
    with pytest.raises(CheckpointError) as caught:
        resolve.open_model(name)
    message = str(caught.value)
    assert message.startswith(beginning) and "not in the hub's cache" in message
    repository = hub.hub_source(name).repository
    assert f"revision {revision}" in message
    assert f"hf download {repository} --revision {revision} --local-dir FOLDER" in message


def test_an_unknown_revision_is_told(monkeypatch):
    def refuse(*_, **__):
        response = type("Response", (), {"headers": {}, "status_code": 404, "request": None})()
        raise huggingface_hub.errors.RevisionNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="a/b@v3 means a/b on the hub: it has no revision 'v3'"):
        resolve.resolve("a/b@v3")


def test_a_keras_hub_preset_on_the_hub_is_left_to_keras_hub(hub_stand_in, monkeypatch):
    (hub_stand_in.folder / "config.json").write_text('{"registered_name": "keras_hub>GemmaBackbone"}')
    opened = []
    monkeypatch.setattr(keras_hub, "open_preset", lambda preset: opened.append(preset) or (None, None))
    monkeypatch.setattr(keras_hub, "stored_model", lambda backbone, proto, with_weights: "opened")
    assert resolve.open_parts("someone/gemma") == "opened"
    assert resolve.open_parts("hf://keras/gemma_2b_en") == "opened"
    assert resolve.open_parts("kaggle://keras/gemma/keras/gemma_2b_en/3") == "opened"
    assert opened == ["hf://someone/gemma", "hf://keras/gemma_2b_en", "kaggle://keras/gemma/keras/gemma_2b_en/3"]
    assert hub_stand_in.repositories == ["someone/gemma"]


def test_a_keras_hub_preset_at_a_revision_is_fetched_here(hub_stand_in, monkeypatch):
    """KerasHub takes no revision, and would read the newest one."""
    folder = hub_stand_in.folder
    (folder / "config.json").write_text('{"registered_name": "keras_hub>GemmaBackbone"}')
    opened = []
    monkeypatch.setattr(keras_hub, "open_preset", lambda preset: opened.append(preset) or (None, None))
    monkeypatch.setattr(keras_hub, "stored_model", lambda backbone, proto, with_weights: "opened")

    def download(repository, *, revision=None, allow_patterns=None):
        if "model.weights.*" in allow_patterns:
            (folder / "model.weights.h5").touch()
        return hub_stand_in.snapshot_download(repository, revision=revision, allow_patterns=allow_patterns)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve.open_parts("someone/gemma@v1") == "opened" and opened == [folder]
    assert [revision for _, revision, _ in hub_stand_in.asked] == ["v1", "v1"]
    assert {*keras_hub.PRESET_FILES, "assets/*"} == set(hub_stand_in.asked[1][2])


def test_tokenizers_from_every_source_load_no_keras(hub_stand_in, tmp_path):
    tokenizer = GemmaTokenizer.train(["red cat", "blue dog", "green moon and sun"], 300, "gemma3")
    tokenizer.save(tmp_path / "alone")
    tokenizer.save(hub_stand_in.folder)
    preset = tmp_path / "preset"
    (preset / "assets/tokenizer").mkdir(parents=True)
    (preset / "assets/tokenizer/vocabulary.spm").write_bytes(tokenizer.model_proto)
    for name in ("config.json", "model.weights.h5"):
        (preset / name).write_text("{}")
    for source in (tmp_path / "alone", preset, "gemma3_instruct_1b", "hf://someone/gemma"):
        assert GemmaTokenizer.from_preset(source).model_proto == tokenizer.model_proto
    assert hub_stand_in.repositories == ["google/gemma-3-1b-it", "someone/gemma"]
    program = (
        "import sys, gemma_keras\nfrom gemma_keras.tokenizers import Gemma3Tokenizer\n"
        f"assert Gemma3Tokenizer is gemma_keras.Gemma3Tokenizer is gemma_keras.GemmaTokenizer\n"
        f"print(Gemma3Tokenizer.from_preset({str(preset)!r}).encode('red cat'), 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tokenizer.encode('red cat')} False"


def test_a_place_without_a_tokenizer_says_what_is_wanted(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer there; expected tokenizer.model or tokenizer.json"):
        GemmaTokenizer.from_preset(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        GemmaTokenizer.from_preset(tmp_path)
