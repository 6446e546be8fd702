"""TRL's `assistant_only_loss=True` on our folders: with the template that came along, and with ours and the option that
docs/interop.md names."""

import os
import pathlib

import pytest
from policy_fixture import world_model

from gemma_keras import GemmaCausalLM
from gemma_keras.text.chat import encode_conversation
from gemma_keras.text.tokenizer import GemmaTokenizer

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="TRL runs on PyTorch")

TEMPLATES = pathlib.Path(trl.__file__).parent / "chat_templates"
MESSAGES = [{"role": "user", "content": "red cat"}, {"role": "assistant", "content": "cat red"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return world_model(tmp_path_factory.mktemp("made")) / "model"


def trainer(folder, output, **options):
    import datasets

    arguments = trl.SFTConfig(
        output_dir=str(output), assistant_only_loss=True, max_steps=1, per_device_train_batch_size=1, report_to=[],
        use_cpu=True, save_strategy="no", bf16=False, **options,
    )  # fmt: skip
    rows = datasets.Dataset.from_list([{"messages": MESSAGES}])
    return trl.SFTTrainer(model=str(folder), args=arguments, train_dataset=rows)


def trained_text(found):
    """What bears loss in the trainer's one row."""
    batch = found.data_collator([found.train_dataset[0]])
    labels = batch["labels"][0].tolist()
    return found.processing_class.decode([label for label in labels if label != -100])


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_googles_template_stays_known_to_trl(made, tmp_path, file):
    """TRL's copy of it is the independent one."""
    template = (TEMPLATES / "gemma3.jinja").read_text(encoding="utf-8")
    tokenizer = GemmaTokenizer.from_folder(made)
    tokenizer.chat_template, tokenizer.template_file = template, file == "chat_template.jinja"
    model = GemmaCausalLM.from_preset(made)
    model.tokenizer = tokenizer
    model.save_to_preset(tmp_path / "source")
    GemmaCausalLM.from_preset(tmp_path / "source").save_to_preset(tmp_path / "tuned")
    found = trainer(tmp_path / "tuned", tmp_path / "out")
    assert trained_text(found) == "cat red<end_of_turn>\n"


def test_our_template_is_refused_and_the_option_that_the_docs_name_helps(made, tmp_path, repository):
    with pytest.raises(ValueError, match="not training-compatible"):
        trainer(made, tmp_path / "out")
    page = (repository / "docs" / "interop.md").read_text()
    assert "chat_template_path" in page and "gemma3_training.jinja" in page
    found = trainer(made, tmp_path / "out", chat_template_path=str(TEMPLATES / "gemma3_training.jinja"))
    assert trained_text(found) == "cat red<end_of_turn>\n"
    found.train()
    ours = encode_conversation(GemmaTokenizer.from_folder(made), MESSAGES)
    assert found.train_dataset[0]["input_ids"] == ours.token_ids
