"""A chat template that came with a source is handed on to the byte, whichever way the model goes."""

import json
import shutil

import pytest
import transformers
from stage_fixture import make_context, sentences, stage_config, write_jsonl

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines import cli
from pipelines.stages.instruction_tuning import run as instruction_tuning

BODY = "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' }}{{ message['content'] }}\t{% endfor %}"
TEMPLATES = {
    "plain": BODY,
    "newlines at its ends": f"\n\n{BODY}\n\n",
    "no newline at its end": BODY + "  ",
    "line ends of Windows": BODY.replace("}{%", "}\r\n{%") + "\r\n",
    "lone carriage return": BODY.replace("}{%", "}\r{%"),
    "other letters": BODY + '{# café, 字, U+2028 \u2028, a quote " and a backslash \\n #}',
}


SIZES = {
    "num_layers": 1, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_dim": 16,
    "intermediate_dim": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return GemmaTokenizer.train(sentences(50), 300, "gemma")


@pytest.fixture(scope="module")
def made(tokenizer, tmp_path_factory):
    """A tiny model's folder with a template of ours."""
    folder = tmp_path_factory.mktemp("made")
    GemmaCausalLM(GemmaBackbone(GemmaConfig(vocabulary_size=300, **SIZES), seed=3), tokenizer).save_to_preset(folder)
    return folder


def put(folder, template, in_file):
    """Put a template where a source keeps it: a file of its own, or `tokenizer_config.json`."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    if in_file:
        (folder / "chat_template.jinja").write_bytes(template.encode())
    else:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def stored(folder):
    """Where a folder has a template: {place: text}, read without the library."""
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    found = {"config": config["chat_template"]} if "chat_template" in config else {}
    if (folder / "chat_template.jinja").exists():
        found["file"] = (folder / "chat_template.jinja").read_bytes().decode()
    return found


def as_stored(template, in_file):
    """What `stored` should give of a folder of ours."""
    return {"config": template, **({"file": template} if in_file else {})}


@pytest.fixture
def source(made, tmp_path, request):
    """A copy of the folder, with the template and in the place that the test's parameters name."""
    name, in_file = request.param
    folder = shutil.copytree(made, tmp_path / "source")
    put(folder, TEMPLATES[name], in_file)
    return folder, TEMPLATES[name], in_file


ONE_EACH = pytest.mark.parametrize(
    "source", [("line ends of Windows", True), ("newlines at its ends", False)], indirect=True, ids=["file", "config"]
)


@pytest.mark.no_backend
@pytest.mark.parametrize("in_file", [True, False], ids=["file", "config"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_tokenizer_from_folder_to_folder(tokenizer, template, in_file, tmp_path):
    """What transformers sees in the copy is what it sees in the source."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    tokenizer.save(source)
    put(source, template, in_file)
    again = GemmaTokenizer.from_folder(source)
    assert again.chat_template == template
    again.save(copy)
    assert stored(copy) == as_stored(template, in_file)
    theirs = [transformers.AutoTokenizer.from_pretrained(folder).chat_template for folder in (source, copy)]
    assert theirs[0] == theirs[1]
    if not in_file:
        assert theirs[1] == template


@pytest.mark.no_backend
def test_a_template_file_of_another_tokenizer_does_not_stay(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("another")
    tokenizer.save(tmp_path)
    assert stored(tmp_path) == {"config": tokenizer.chat_template}


@pytest.mark.once
@ONE_EACH
def test_model_from_folder_to_folder_over_another(source, made, tmp_path):
    """A template file of the model that stood in the folder before does not outlive it."""
    folder, template, in_file = source
    target = tmp_path / "target"
    GemmaCausalLM.from_preset(folder).save_to_preset(target)
    assert stored(target) == as_stored(template, in_file)
    GemmaCausalLM.from_preset(made).save_to_preset(target)
    assert stored(target) == stored(made)
    assert set(stored(target)) == {"config"}


@pytest.mark.once
@ONE_EACH
def test_convert_to_gguf_and_back(source, tmp_path, capsys):
    gguf = pytest.importorskip("gguf")
    folder, template, in_file = source
    assert cli.main(["convert", str(folder), str(tmp_path / "folder")]) == 0
    assert stored(tmp_path / "folder") == as_stored(template, in_file)
    assert cli.main(["convert", str(tmp_path / "folder"), str(tmp_path / "m.gguf"), "--dtype", "float32"]) == 0
    field = gguf.GGUFReader(tmp_path / "m.gguf").get_field("tokenizer.chat_template")
    assert bytes(field.parts[field.data[0]]).decode() == template
    assert cli.main(["convert", str(tmp_path / "m.gguf"), str(tmp_path / "back")]) == 0
    assert stored(tmp_path / "back") == {"config": template}


@pytest.mark.once
@ONE_EACH
def test_what_a_stage_writes(source, tmp_path):
    folder, template, in_file = source
    rows = [{"prompt": "red cat", "completion": "cat red"}] * 4
    data = {"path": write_jsonl(tmp_path / "pairs.jsonl", rows)}
    settings = {"max_length": 48, "batch_size": 4, "learning_rate": 0.0001, "from": str(folder)}
    context = make_context(tmp_path, "sft")
    instruction_tuning.run(stage_config("instruction_tuning", data=data, **settings), context)
    assert stored(context.output / "model") == as_stored(template, in_file)
