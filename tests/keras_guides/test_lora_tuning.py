"""The guides that tune with LoRA: lora_tuning, the keras.io guide on LoRA and QLoRA, and the bakery's inquiries."""

import json

import guide_values
import keras
import numpy as np
import pytest

from gemma_keras import from_marked_text, samplers
from gemma_keras.models import Gemma3CausalLM, GemmaCausalLM, GemmaCausalLMPreprocessor

TEMPLATE = "Instruction:\n{instruction}\n\nResponse:\n{response}"
PROMPTS = ["What should I do on a trip to Europe?", "What is Keras?", "Who is Anna?"]
RESPONSES = ["Look at the universe.", "a library", "my name"]


def crossentropy(dtype=None):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)


def right_tokens():
    return [keras.metrics.SparseCategoricalAccuracy()]


def test_lora_tuning(presets):
    gemma_lm = Gemma3CausalLM.from_preset(presets["gemma3_instruct_1b"])
    lines = []
    gemma_lm.summary(print_fn=lines.append)
    # embedding 364 * 16; q and o 16 * 16, k and v 16 * 8, three of 16 * 24; five norms of 16, two of 8
    count = 364 * 16 + 2 * 256 + 2 * 128 + 3 * 384 + 5 * 16 + 2 * 8
    assert gemma_lm.count_params() == count and f"{count:,}" in "".join(lines)

    prompt = TEMPLATE.format(instruction=PROMPTS[0], response="")
    sampler = samplers.TopKSampler(k=5, seed=2)
    gemma_lm.compile(sampler=sampler)
    text = gemma_lm.generate(prompt, max_length=64)
    ids = [2, *gemma_lm.tokenizer.encode(prompt)]
    gemma_lm.compile(sampler=sampler)  # the series of draws begins anew
    response = guide_values.response_ids(gemma_lm, ids, max_length=64)
    assert text == prompt + gemma_lm.tokenizer.decode(response)
    ranks = guide_values.ranks(gemma_lm, ids, response)
    assert ranks.max() < 5 and ranks.max() > 0

    data = {"prompts": PROMPTS, "responses": RESPONSES}
    gemma_lm.backbone.enable_lora(rank=4)
    trainable = sum(int(np.prod(weight.shape)) for weight in gemma_lm.trainable_weights)
    assert trainable == 4 * ((16 + 16) * 2 + (16 + 8) * 2 + (16 + 24) * 3)
    gemma_lm.preprocessor.sequence_length = 64
    optimizer = keras.optimizers.AdamW(learning_rate=5e-5, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
    gemma_lm.compile(loss=crossentropy(), optimizer=optimizer, weighted_metrics=right_tokens())
    rows = [guide_values.pair_row(gemma_lm.tokenizer, *row) for row in zip(PROMPTS, RESPONSES, strict=True)]
    width = guide_values.width_of(rows)

    def expected():
        return guide_values.keras_loss(gemma_lm, rows, width), guide_values.mean_surprise(gemma_lm, rows)[1]

    loss, accuracy = expected()
    history = gemma_lm.fit(data, epochs=1, batch_size=1, verbose=0).history
    # The weights move between the three batches, by 5e-5 at most each time.
    assert history["loss"][0] == pytest.approx(loss, rel=1e-3)
    assert history["sparse_categorical_accuracy"][0] == pytest.approx(accuracy, abs=1e-6)
    after = gemma_lm.evaluate(data, batch_size=1, verbose=0)
    assert after == pytest.approx(expected(), rel=1e-5) and after[0] < loss
    gemma_lm.compile(sampler=samplers.TopKSampler(k=5, seed=2))
    response = guide_values.response_ids(gemma_lm, ids, max_length=64)
    assert guide_values.ranks(gemma_lm, ids, response).max() < 5


INQUIRIES = {
    "prompt": "Do you sell halva?", "response": json.dumps({"type": "inquiry", "items": ["halva"]}),
}  # fmt: skip


def test_the_bakery_s_inquiries(presets):
    gemma_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    prompt = "{instruction}\n{response}".format(instruction="Put the inquiry into json: 8 inch round", response="")
    gemma_lm.compile(sampler="greedy")
    ids = [2, *gemma_lm.tokenizer.encode(prompt)]
    said = guide_values.response_ids(gemma_lm, ids, max_length=64)
    assert gemma_lm.generate(prompt, max_length=64) == prompt + gemma_lm.tokenizer.decode(said)
    assert guide_values.shortfall(gemma_lm, ids, said).max() < 1e-4

    data = {"prompts": [INQUIRIES["prompt"]], "responses": [INQUIRIES["response"]]}
    gemma_lm.backbone.enable_lora(rank=4)
    gemma_lm.preprocessor.sequence_length = 256
    rate, decay = 5e-4, 0.01
    optimizer = keras.optimizers.AdamW(learning_rate=rate, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
    gemma_lm.compile(loss=crossentropy(), optimizer=optimizer, weighted_metrics=right_tokens())
    row = guide_values.pair_row(gemma_lm.tokenizer, INQUIRIES["prompt"], INQUIRIES["response"])
    loss = guide_values.keras_loss(gemma_lm, [row], guide_values.width_of([row]))
    names = ("lora_a_default", "lora_b_default")
    before = {w.path: keras.ops.convert_to_numpy(w.value).copy() for w in gemma_lm.trainable_weights}
    history = gemma_lm.fit(data, epochs=1, batch_size=1, verbose=0).history
    assert history["loss"][0] == pytest.approx(loss, rel=1e-5)
    moved = {w.path: keras.ops.convert_to_numpy(w.value) for w in gemma_lm.trainable_weights}
    assert len(moved) == 2 * 7 * 2 and all(path.endswith(names) for path in moved)
    for path, values in moved.items():
        if path.endswith("lora_a_default"):
            # Its gradient is zero while b is: nothing but the weight decay moves it.
            np.testing.assert_allclose(values, before[path] * (1 - rate * decay), rtol=2e-7)
        else:
            # Adam's first step is the rate, whatever the gradient's size, but for gradients near its epsilon.
            assert np.median(np.abs(values)) == pytest.approx(rate, rel=1e-2) and np.abs(values).max() <= rate * 1.001


TURNS = (
    "<start_of_turn>user\nTranslate into English:\n{source}<end_of_turn>\n<start_of_turn>model\n"
    "Translation:\n{target}<end_of_turn>"
)
SENTENCES = [("Bonjour Anna", "Hello Anna"), ("l'univers", "The universe")]


def as_tf_data(texts):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(texts).batch(1).take(100)


def test_lora_on_marked_texts_in_bfloat16(presets, float_type):
    float_type("bfloat16")
    preprocessor = GemmaCausalLMPreprocessor.from_preset(presets["gemma2_instruct_2b_en"], sequence_length=128)
    gemma_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    gemma_lm.preprocessor = preprocessor
    gemma_lm.backbone.enable_lora(rank=4)
    texts = [TURNS.format(source=source, target=target) for source, target in SENTENCES]
    # In Keras' float type, bfloat16 here, TensorFlow adds up the tokens' losses to 2 %.
    loss = crossentropy("float32")
    gemma_lm.compile(loss=loss, optimizer=keras.optimizers.SGD(learning_rate=1e-4), weighted_metrics=right_tokens())
    with pytest.warns(UserWarning, match="<start_of_turn> is written out in the text.*from_marked_text"):
        history = gemma_lm.fit(as_tf_data(texts), epochs=1, verbose=0).history
    rows = [guide_values.text_row(gemma_lm.tokenizer, text) for text in texts]
    assert gemma_lm.tokenizer.start_of_turn_id not in rows[0][0]
    loss = guide_values.keras_loss(gemma_lm, rows, guide_values.width_of(rows))
    assert float(history["loss"][0]) == pytest.approx(loss, rel=1e-2)
    # What was meant: turns, with loss on the model's alone.
    history = gemma_lm.fit([from_marked_text(text) for text in texts], batch_size=1, verbose=0).history
    rows = [
        guide_values.pair_row(gemma_lm.tokenizer, f"Translate into English:\n{source}", f"Translation:\n{target}")
        for source, target in SENTENCES
    ]
    loss = guide_values.keras_loss(gemma_lm, rows, guide_values.width_of(rows))
    assert float(history["loss"][0]) == pytest.approx(loss, rel=1e-2)


def test_a_preprocessor_is_handed_to_from_preset(presets):
    preprocessor = GemmaCausalLMPreprocessor.from_preset(presets["gemma2_instruct_2b_en"], sequence_length=128)
    gemma_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"], preprocessor=preprocessor)
    assert gemma_lm.preprocessor is preprocessor
    assert GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"], preprocessor=None).tokenizer is None


def test_qlora(presets):
    gemma_lm = GemmaCausalLM.from_preset(presets["gemma2_instruct_2b_en"])
    before = dict(gemma_lm.backbone.named_arrays())
    gemma_lm.quantize("int8")
    gemma_lm.backbone.enable_lora(rank=4)
    kernel = gemma_lm.backbone.blocks[0].attention.q_proj._kernel
    assert kernel.dtype == "int8" and not kernel.trainable
    for name, values in gemma_lm.backbone.named_arrays():
        if values.ndim == 2 and name != "embedding":
            step = np.abs(before[name]).max(0) / 127  # one scale a column
            assert (np.abs(values - before[name]) <= 0.5001 * step).all() and (values != before[name]).any()
    rate = 1e-4
    gemma_lm.compile(
        loss=crossentropy(), optimizer=keras.optimizers.SGD(learning_rate=rate), weighted_metrics=right_tokens()
    )
    text = "Hello, my name is Anna."
    rows = [guide_values.text_row(gemma_lm.tokenizer, text)]
    width = guide_values.width_of(rows)
    loss = guide_values.keras_loss(gemma_lm, rows, width)
    history = gemma_lm.fit(as_tf_data([text]), epochs=1, verbose=0).history
    assert history["loss"][0] == pytest.approx(loss, rel=1e-5)
    # A step of gradient descent lowers the loss by rate * |gradient|^2 to first order, and the gradient is step / rate.
    steps = [keras.ops.convert_to_numpy(w.value) for w in gemma_lm.trainable_weights if "lora_b" in w.path]
    drop = sum((step.astype(np.float64) ** 2).sum() for step in steps) / rate
    assert drop > 0 and loss - guide_values.keras_loss(gemma_lm, rows, width) == pytest.approx(drop, rel=1e-2)
