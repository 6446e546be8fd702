"""CodeGemma's guides: keras_quickstart, code_assist_keras and Common_use_cases."""

import guide_values
import pytest

from gemma_keras import from_marked_text
from gemma_keras.models import GemmaCausalLM

BEFORE_CURSOR, AFTER_CURSOR, AT_CURSOR = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
FILE_SEPARATOR = "<|file_separator|>"
GAPS = {
    "keras_quickstart": ("import ", 'if __name__ == "__main__":\n    sys.exit(0)'),
    "code_assist_keras": ("void dfs(node* root) {", '\nprintf("%d", root->value);\n}'),
    "common_use_cases": ("def area_of_rectangle(a: int, b: int) -> int:", "\n    return area"),
}


@pytest.fixture(scope="module")
def gemma_lm(presets):
    model = GemmaCausalLM.from_preset(presets["code_gemma_2b_en"])
    model.compile(sampler="greedy")
    return model


@pytest.fixture(scope="module")
def stop_token_ids(gemma_lm):
    tokenizer = gemma_lm.preprocessor.tokenizer
    stop_tokens = (BEFORE_CURSOR, AFTER_CURSOR, AT_CURSOR, FILE_SEPARATOR, tokenizer.end_token)
    return tuple(tokenizer.token_to_id(token) for token in stop_tokens)


def test_marks_are_found_by_name(gemma_lm, stop_token_ids):
    # Behind the 360 trained pieces, in the order of CodeGemma's vocabulary.
    assert stop_token_ids == (360, 362, 361, 363, 1)
    assert [gemma_lm.preprocessor.tokenizer.id_to_token(i) for i in (360, 1)] == [BEFORE_CURSOR, "<eos>"]


def test_the_gap_between_two_texts(gemma_lm, stop_token_ids):
    prompts = [f"{BEFORE_CURSOR}{before}{AFTER_CURSOR}{after}{AT_CURSOR}" for before, after in GAPS.values()]
    parts = [from_marked_text(prompt) for prompt in prompts]
    assert parts == [{"prefix": before, "suffix": after} for before, after in GAPS.values()]
    encode = gemma_lm.tokenizer.encode
    ids = [[2, 360, *encode(before), 362, *encode(after), 361] for before, after in GAPS.values()]
    options = {"stop_token_ids": stop_token_ids, "max_length": 128}
    middles = gemma_lm.generate(parts, **options)
    for row, said, middle in zip(ids, guide_values.response_ids(gemma_lm, ids, **options), middles, strict=True):
        assert middle == gemma_lm.tokenizer.decode(said)  # the middle alone, where the guides cut it out of the whole
        assert guide_values.shortfall(gemma_lm, row, said).max() < 1e-4
        assert not set(said[:-1]) & set(stop_token_ids)


def test_marks_in_a_string_are_text_and_say_so(gemma_lm, stop_token_ids):
    before, after = GAPS["keras_quickstart"]
    prompt = f"{BEFORE_CURSOR}{before}{AFTER_CURSOR}{after}{AT_CURSOR}"
    with pytest.warns(UserWarning, match=r"<\|fim_prefix\|> is written out.*Pass {'prefix': ..., 'suffix': ...}"):
        text = gemma_lm.generate(prompt, stop_token_ids=stop_token_ids, max_length=128)
    assert text.startswith(prompt)


def test_an_instruction_is_a_turn(gemma_lm):
    context = "\nConvert the following Python code into C.\n```python\nreturn area\n```\n"
    prompt = f"<start_of_turn>user\n{context}<end_of_turn>\n<start_of_turn>model\n"
    ids = guide_values.asked_ids(gemma_lm.tokenizer, [("user", context.strip())])
    said = guide_values.response_ids(gemma_lm, ids, max_length=128)
    assert gemma_lm.generate(from_marked_text(prompt), max_length=128) == gemma_lm.tokenizer.decode(said)
    assert guide_values.shortfall(gemma_lm, ids, said).max() < 1e-4
