"""What lies beside a tokenizer.model and says otherwise: tokens of tokenizer.json, chat templates, stop ids."""

import json
import types

import pytest
import transformers

from gemma_keras.text.tokenizer import GemmaTokenizer

pytestmark = pytest.mark.no_backend


@pytest.fixture(scope="module")
def trained() -> GemmaTokenizer:
    return GemmaTokenizer.train(
        ["The river <h1> is blue.", "a  b", "One list: a, b, c", "café and naïve words"] * 3, 300
    )


def with_tokens(tokenizer, folder, added=(), renamed=types.MappingProxyType({})):
    """A folder whose tokenizer.json has tokens that the tokenizer.model beside it does not know."""
    tokenizer.save(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    for old, new in renamed.items():
        vocabulary[new] = vocabulary.pop(old)
        next(token for token in content["added_tokens"] if token["content"] == old)["content"] = new
    for piece in added:
        token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        content["added_tokens"].append({"id": len(vocabulary), "content": piece, **token})
        vocabulary[piece] = len(vocabulary)
    (folder / "tokenizer.json").write_text(json.dumps(content))


CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"


RENAMED = {"<start_of_turn>": "<|im_start|>", "<end_of_turn>": "<|im_end|>"}


@pytest.mark.parametrize(
    ("change", "marks"),
    [({"added": RENAMED.values()}, (300, 301)), ({"renamed": RENAMED}, (4, 5))],
    ids=["added", "renamed"],
)
def test_tokens_of_a_tuned_models_tokenizer_json_count(trained, tmp_path, change, marks):
    """As in ChatML tunes of Gemma: transformers reads tokenizer.json, and so do we where the two files differ."""
    with_tokens(trained, tmp_path, **change)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, marks[1]]}))
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    tokenizer = GemmaTokenizer.from_folder(tmp_path, rows=302)
    assert (
        set(marks) <= tokenizer.control_ids and tokenizer.decode(marks, keep_control=True) == "<|im_start|><|im_end|>"
    )
    oracle = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in ("The river <h1> é", "a  b\n\nc"):
        assert [2, *tokenizer.encode(text)] == oracle(text)["input_ids"]
    assert set(tokenizer.stop_token_ids) >= {1, marks[1]}
    tokenizer.save(tmp_path / "copy")
    again = GemmaTokenizer.from_folder(tmp_path / "copy", rows=302)
    assert again.decode(marks, keep_control=True) == "<|im_start|><|im_end|>"
    assert again.chat_template == tokenizer.chat_template == CHATML


def test_tokens_beyond_the_rows_do_not_count(trained, tmp_path):
    """Gemma 3's tokenizer.json has one for images, which its text models have no row for."""
    with_tokens(trained, tmp_path, added=("<image_soft_token>",))
    for rows in (None, 300):
        assert GemmaTokenizer.from_folder(tmp_path, rows=rows).vocabulary_size() == 300
    assert GemmaTokenizer.from_folder(tmp_path, rows=301).vocabulary_size() == 301


def test_a_chat_template_of_the_source_is_handed_on(trained, tmp_path):
    trained.save(tmp_path)
    ours = GemmaTokenizer.from_folder(tmp_path).chat_template
    assert "<start_of_turn>" in ours
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for stored, expected in (
        ("one", "one"),
        ([{"name": "tools", "template": "x"}, {"name": "default", "template": "two"}], "two"),
        (None, ours),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": stored}))
        assert GemmaTokenizer.from_folder(tmp_path).chat_template == expected
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match="tokenizer_config.json: expected a JSON object. Received: list"):
        GemmaTokenizer.from_folder(tmp_path)
