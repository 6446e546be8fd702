"""Small models in folders of their own, under the names of the presets that the guides open."""

import pathlib
import re

import keras
import numpy as np
import pytest

from gemma_keras import GemmaBackbone, GemmaCausalLM, GemmaConfig, GemmaTokenizer
from gemma_keras.text import sentencepiece_files as files

SIZES = {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_dim": 16, "intermediate_dim": 24}
GEMMA2 = {
    "family": "gemma2", "use_post_norms": True, "sliding_window": 8, "attention_logit_soft_cap": 50.0,
    "final_logit_soft_cap": 30.0,
}  # fmt: skip
GEMMA3 = {
    "family": "gemma3", "use_post_norms": True, "use_query_key_norm": True, "sliding_window": 8, "rope_theta": 1e6,
    "local_rope_theta": 1e4,
}  # fmt: skip
WORDS = ("Yes", "No", "Positive", "Negative")
TEXTS = [
    *(f"{word} {word}\n" for word in WORDS), "Instruction:\n\nResponse:\n", "What should I do on a trip to Europe?",
    "The universe is wide. Keras is a library.", "Text: you look nice today", "import sys\n    return area\n",
    "user\nHello, my name is Anna.", "model\nTranslate into English", '{"type": "order", "items": ["halva"]}',
]  # fmt: skip
INFILLING = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_separator|>")
UNUSED = tuple(f"<unused{number}>" for number in range(4))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A guide's subject is what it prints, on any backend; where programs are compiled all take minutes."""
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.once)


def with_pieces(tokenizer, pieces, family):
    """The tokenizer with more pieces at its end, typed user-defined, as Gemma's unused ones and CodeGemma's marks."""
    model = files.parse_model(tokenizer.model_proto)
    for piece in pieces:
        model.pieces.add(piece=piece, score=0.0, type=files.USER_DEFINED)
    return GemmaTokenizer(model.SerializeToString(deterministic=True), family)


def save(folder, tokenizer, seed, **options):
    """A model with norm scales away from zero, so that a norm in the wrong place shows."""
    config = GemmaConfig(vocabulary_size=tokenizer.vocabulary_size(), **SIZES, **options)
    model = GemmaCausalLM(GemmaBackbone(config, seed=seed), tokenizer)
    draws = np.random.default_rng(seed)
    for name, variable in model.backbone.named_variables().items():
        if name.endswith("_norm"):
            variable.assign(draws.normal(0, 0.3, variable.shape).astype(np.float32))
    model.save_to_preset(folder)
    return str(folder)


@pytest.fixture(scope="session")
def presets(tmp_path_factory):
    """Name of a preset → folder of a small model of that kind."""
    folder = tmp_path_factory.mktemp("presets")
    trained = GemmaTokenizer.train(TEXTS * 4, 360)
    gemma2, gemma3 = (with_pieces(trained, UNUSED, family) for family in ("gemma2", "gemma3"))
    code = with_pieces(trained, INFILLING, "gemma")
    return {
        "gemma3_instruct_1b": save(folder / "gemma3", gemma3, 1, num_layers=1, local_layers=(True,), **GEMMA3),
        "gemma2_instruct_2b_en": save(folder / "gemma2", gemma2, 2, num_layers=2, local_layers=(True, False), **GEMMA2),
        "code_gemma_2b_en": save(folder / "code", code, 3, num_layers=1),
    }


@pytest.fixture
def float_type():
    """A function that sets Keras' float type as a fresh process would; what was set before comes back afterwards."""
    before = keras.config.floatx(), keras.config.dtype_policy()

    def set_type(name):
        keras.config.set_floatx(name)
        keras.config.set_dtype_policy(name)  # in a fresh process it follows the float type

    yield set_type
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.fixture(scope="session")
def page(presets, repository):
    """The names that the Python blocks of the page leave behind, run one after the other on a small preset."""
    text = (repository / "docs/coming_from_keras_hub.md").read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(block.replace("gemma2_instruct_2b_en", presets["gemma2_instruct_2b_en"]), names)
    return names
