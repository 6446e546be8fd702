"""The real Gemma 3 270M, read from its GGUF file: ids, logits and greedy text of `transformers`, and the way through a
saved folder.

The oracle is stored, see make_real_gemma3_oracle.py.
"""

import pathlib

import keras
import numpy as np
import pytest
from real_gemma3_text import CONTINUATION, PROMPT

from gemma_keras import GemmaBackbone, GemmaCausalLM, backends
from gemma_keras.head import full_logits

ORACLE = pathlib.Path(__file__).with_name("real_gemma3_oracle.npz")


@pytest.fixture(scope="module")
def oracle():
    return dict(np.load(ORACLE))


@pytest.fixture(scope="module")
def model(real_gguf):
    return GemmaCausalLM.from_preset(real_gguf)


@pytest.fixture(scope="module")
def logits_at(model):
    """Float32 logits (n, v) of one row of ids at n positions."""

    def function(token_ids, positions):
        hidden = keras.ops.take(model.backbone({"token_ids": token_ids}), positions, axis=1)
        return full_logits(hidden, model.backbone.token_embedding.as_output_matrix())[0]

    compiled = backends.compile_forward(function, [model])
    return lambda token_ids, positions: backends.to_host(compiled(token_ids[None], positions))


def test_the_published_model_is_read_whole(model):
    assert model.config.parameter_count == 268_098_176
    assert [2, *model.tokenizer.encode(PROMPT)] == [2, 818, 5279, 529, 7001, 563]


@pytest.mark.parametrize("row", ["prompt", "long"])
def test_logits_equal_transformers(logits_at, oracle, row):
    ours = logits_at(oracle[f"{row}_ids"], oracle[f"{row}_positions"])
    difference = np.abs(np.take_along_axis(ours, oracle[f"{row}_indices"], axis=1) - oracle[f"{row}_logits"]).max()
    print(f"largest difference on {row!r}, {keras.backend.backend()}: {difference:.2e}")
    assert difference < 2e-3
    # The 256 stored logits of a position are its largest: nothing of ours may stand above the first of them.
    np.testing.assert_array_equal(ours.argmax(axis=1), oracle[f"{row}_indices"][:, 0])


@pytest.mark.slow
def test_bfloat16_chooses_the_same_token(model, oracle):
    """At 99 % of 600 positions; logits within a tenth of their spread, root mean square."""
    half = GemmaCausalLM(GemmaBackbone(model.config, dtype="bfloat16", seed=None))
    exact = model.backbone.named_variables()
    for name, variable in half.backbone.named_variables().items():
        variable.assign(exact[name].value)
    ids, logits = oracle["long_ids"][None], []
    for each in (model, half):
        hidden = backends.compile_forward(lambda ids, of=each: of.backbone({"token_ids": ids}), [each])(ids)
        # A hundred positions at a time: all logits together are 0.6 GB.
        head = backends.compile_forward(
            lambda part, of=each: keras.ops.cast(full_logits(part, of._output_matrix()), "float32"), [each]
        )
        logits.append(np.concatenate([backends.to_host(head(hidden[:, i : i + 100]))[0] for i in range(0, 600, 100)]))
    same = (logits[0].argmax(axis=1) == logits[1].argmax(axis=1)).mean()
    spread = np.sqrt(np.mean(np.square(logits[0] - logits[1]))) / logits[0].std()
    print(
        f"{keras.backend.backend()}: the same token at {same:.1%} of 600 positions, logits differ by {spread:.3f} of "
        "their spread"
    )
    assert same >= 0.99 and spread < 0.1


@pytest.mark.once
def test_greedy_continuation_equals_transformers(model, oracle):
    length = len(oracle["prompt_ids"])
    assert model.generate(PROMPT, max_length=length, sampler="greedy") == PROMPT + CONTINUATION
    assert model.tokenizer.decode(oracle["prompt_ids"]) == PROMPT + CONTINUATION


@pytest.mark.slow
def test_a_saved_folder_holds_the_same_model_within_bfloat16(model, tmp_path):
    model.save_to_preset(tmp_path, dtype="bfloat16")
    again = GemmaCausalLM.from_preset(tmp_path)
    assert again.config == model.config
    assert again.tokenizer.encode(PROMPT) == model.tokenizer.encode(PROMPT)
    ours = model.backbone.named_variables()
    for name, variable in again.backbone.named_variables().items():
        values, source = backends.to_host(variable.value), backends.to_host(ours[name].value)
        # bfloat16 keeps 8 bits: rounding to nearest moves a number by at most 2^-8 of it.
        np.testing.assert_array_less(np.abs(values - source), np.abs(source) * 2**-8 + 1e-30, err_msg=name)
