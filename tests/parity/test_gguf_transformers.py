"""GGUF written here through `transformers`, and the real Gemma 3 270M from its GGUF file into a folder that
`transformers` runs.

`transformers` 5.23 refuses the architecture `gemma` and ignores the attention scale, so Gemma 2 and 3 with the default
one are compared.
"""

import numpy as np
import numpy_gemma
import pytest
from real_gemma3_text import CONTINUATION, PROMPT

from gemma_keras.checkpoints import gguf_writer, names
from gemma_keras.config import GemmaConfig, every_nth_global
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines import cli

pytestmark = pytest.mark.no_backend
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocabulary_size": 300, "num_layers": 7, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 256,
    "hidden_dim": 64, "intermediate_dim": 96, "context_length": 128, "use_post_norms": True, "sliding_window": 4,
}  # fmt: skip
CONFIGS = {
    "gemma2": GemmaConfig(
        **SIZES,
        family="gemma2",
        attention_logit_soft_cap=50.0,
        final_logit_soft_cap=30.0,
        local_layers=every_nth_global(7, 2),
    ),
    "gemma3": GemmaConfig(
        **SIZES,
        family="gemma3",
        use_query_key_norm=True,
        local_layers=every_nth_global(7, 6),
        rope_theta=1e6,
        local_rope_theta=1e4,
    ),
}
IDS = np.random.default_rng(7).integers(10, 300, 13).astype(np.int32)


@pytest.mark.parametrize("family", list(CONFIGS))
def test_a_gguf_file_gives_the_logits_of_the_equations_there(family, tmp_path):
    config, rng = CONFIGS[family], np.random.default_rng(3)
    tokenizer = GemmaTokenizer.train(
        ["red cat", "blue dog", "green moon and sun"], 300, family
    )  # tells transformers the vocabulary's size
    weights = {
        name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in names.expected_shapes(config).items()
    }
    gguf_writer.write(tmp_path / "model.gguf", config, weights.items(), tokenizer, "float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS[None].astype(np.int64))).logits[0].numpy()
    found = numpy_gemma.logits(IDS, weights, config)
    assert expected.std() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_real_model_goes_from_gguf_into_a_folder_that_transformers_runs(real_gguf, tmp_path):
    folder = tmp_path / "converted"
    assert cli.main(["convert", str(real_gguf), str(folder), "--dtype", "float32"]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False)[0]
    assert tokenizer.decode(ids, skip_special_tokens=True) == PROMPT + CONTINUATION
