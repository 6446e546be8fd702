"""The guides that save and speak after each epoch: Custom_Vocabulary, Translator_of_Old_Korean_Literature and
spoken_language_tasks."""

import re

import guide_values
import keras
import numpy as np
import pytest

from gemma_keras import from_marked_text
from gemma_keras.models import GemmaCausalLM, GemmaTokenizer

NAMES = ["Ōkubo", "Suwado", "Miyakusa", "Hōsaka"]
DICTIONARY = {f"<unused{number}>": name for number, name in enumerate(NAMES)}
TURNS = "<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n{response}<end_of_turn>"
LIMIT = 128


def test_custom_vocabulary_in_the_tokenizer(presets):
    tokenizer = GemmaTokenizer.from_preset(presets["gemma2_instruct_2b_en"])
    first = tokenizer.token_to_id("<unused0>")
    assert tokenizer.get_vocabulary()[first : first + 4] == list(DICTIONARY)
    ids = tokenizer("a<unused2>-san")
    assert ids[1] == first + 2 and tokenizer.detokenize([ids[1]]) == tokenizer.id_to_token(ids[1]) == "<unused2>"
    assert "".join(tokenizer.detokenize([i]) for i in ids) == "a<unused2>-san"
    # Turn marks alone are no text.
    marked = tokenizer(TURNS.format(prompt="name", response="<unused0>"))
    assert first in marked and tokenizer.start_of_turn_id not in marked


class SpeakAndSave(keras.callbacks.Callback):
    """The guides' callback, which also keeps what the next epoch's loss should be."""

    def __init__(self, gemma_lm, folder, rows):
        super().__init__()
        self.gemma_lm, self.folder, self.rows = gemma_lm, folder, rows
        self.said, self.losses = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.gemma_lm.backbone.save_lora_weights(self.folder / f"my_lora_4_epoch{epoch + 1}.lora.safetensors")
        self.said.append(self.gemma_lm.generate([{"role": "user", "content": "rare name"}], max_length=48))
        width = guide_values.width_of(self.rows)
        self.losses.append(guide_values.keras_loss(self.gemma_lm, self.rows, width))


def test_custom_vocabulary_and_translator(presets, tmp_path):
    model_id = presets["gemma2_instruct_2b_en"]
    tokenizer = GemmaTokenizer.from_preset(model_id)
    texts = [TURNS.format(prompt="rare name", response=f"{piece}-san") for piece in list(DICTIONARY)[:2]]
    train = [from_marked_text(text) for text in texts if len(tokenizer(text)) < LIMIT]
    assert len(train) == 2
    gemma_lm = GemmaCausalLM.from_preset(model_id)
    gemma_lm.backbone.enable_lora(rank=4)
    gemma_lm.preprocessor.sequence_length = LIMIT
    optimizer = keras.optimizers.AdamW(learning_rate=0.02, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
    gemma_lm.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer,
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
        sampler="greedy",
    )
    rows = [guide_values.pair_row(tokenizer, "rare name", f"{piece}-san") for piece in list(DICTIONARY)[:2]]
    start = guide_values.keras_loss(gemma_lm, rows, guide_values.width_of(rows))
    callback = SpeakAndSave(gemma_lm, tmp_path, rows)
    losses = gemma_lm.fit(train, epochs=4, batch_size=2, verbose=0, callbacks=[callback]).history["loss"]
    # Each epoch is one batch: it reports the loss of the weights that the epoch before left.
    np.testing.assert_allclose(losses, [start, *callback.losses[:-1]], rtol=1e-4)
    assert losses[-1] < losses[0]

    # An epoch's file in a fresh model, as the guides say it at their end.
    again = GemmaCausalLM.from_preset(model_id)
    again.backbone.enable_lora(rank=4)
    again.backbone.load_lora_weights(tmp_path / "my_lora_4_epoch2.lora.safetensors")
    width = guide_values.width_of(rows)
    assert guide_values.keras_loss(again, rows, width) == pytest.approx(callback.losses[1], rel=1e-6)
    again.compile(sampler="greedy")
    assert again.generate([{"role": "user", "content": "rare name"}], max_length=48) == callback.said[1]
    assert len(set(callback.losses)) == 4, "or it says nothing which epoch was read"


def test_the_vocabulary_s_names_stand_in_for_their_pieces():
    pattern = "|".join(sorted(map(re.escape, DICTIONARY)))
    assert re.sub(pattern, lambda match: DICTIONARY[match[0]], "<unused3>-san") == "Hōsaka-san"


def test_an_h5_file_of_adapters_is_not_written(presets, tmp_path):
    gemma_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    gemma_lm.backbone.enable_lora(rank=4)
    with pytest.raises(ValueError, match="safetensors"):
        gemma_lm.backbone.save_lora_weights(tmp_path / "my_lora.lora.h5")
