"""What is known of a stage's tokenizer before anything is fetched."""

import pytest

from pipelines.workflow.tokenizers import TokenizerOrigin, tokenizer_at_hand

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("gemma_2b_en", "gemma"),
        ("google/codegemma-7b-it", "gemma"),
        ("hf://google/gemma-2-2b-it@v1", "gemma2"),
        ("shieldgemma_2b_en", "gemma2"),
        ("medgemma_instruct_27b_text", "gemma3"),
        ("google/gemma-3-4b-pt", "gemma3"),
        # Nothing is known: the family whose turns refuse least.
        ("someone/else", "gemma3"),
        ("kaggle://keras/gemma/keras/gemma_2b_en", "gemma3"),
    ],
)
def test_the_family_that_a_name_stands_for(name, family):
    assert tokenizer_at_hand(None, TokenizerOrigin(source=name)).family == family
