"""Names of published Gemmas, KerasHub's presets among them, and the repositories on the Hugging Face hub that hold the
same weights.

Sizes with image input have their text decoder read, so that `gemma3_4b` and `gemma3_4b_text` are one repository.
"""

import difflib

from gemma_keras.checkpoints.errors import CheckpointError

_GEMMA2_SIZES, _GEMMA3_SIZES = ("2b", "9b", "27b"), ("1b", "4b", "12b", "27b")

# Without KerasHub's endings `_en` and `_text`.
HUB_IDS = {
    "gemma_2b": "google/gemma-2b", "gemma_7b": "google/gemma-7b", "gemma_instruct_2b": "google/gemma-2b-it",
    "gemma_instruct_7b": "google/gemma-7b-it", "gemma_1.1_instruct_2b": "google/gemma-1.1-2b-it",
    "gemma_1.1_instruct_7b": "google/gemma-1.1-7b-it", "code_gemma_2b": "google/codegemma-2b",
    "code_gemma_1.1_2b": "google/codegemma-1.1-2b",
    "code_gemma_7b": "google/codegemma-7b", "code_gemma_instruct_7b": "google/codegemma-7b-it",
    "code_gemma_1.1_instruct_7b": "google/codegemma-1.1-7b-it",
    **{f"gemma2_{size}": f"google/gemma-2-{size}" for size in _GEMMA2_SIZES},
    **{f"gemma2_instruct_{size}": f"google/gemma-2-{size}-it" for size in _GEMMA2_SIZES},
    **{f"shieldgemma_{size}": f"google/shieldgemma-{size}" for size in _GEMMA2_SIZES},
    **{f"c2s_scale_gemma_2_{size.lower()}": f"vandijklab/C2S-Scale-Gemma-2-{size}" for size in ("2B", "27B")},
    "gemma3_270m": "google/gemma-3-270m", "gemma3_instruct_270m": "google/gemma-3-270m-it",
    **{f"gemma3_{size}": f"google/gemma-3-{size}-pt" for size in _GEMMA3_SIZES},
    **{f"gemma3_instruct_{size}": f"google/gemma-3-{size}-it" for size in _GEMMA3_SIZES},
    **{f"translategemma_{size}_it": f"google/translategemma-{size}-it" for size in _GEMMA3_SIZES[1:]},
    "function_gemma_instruct_270m": "google/functiongemma-270m-it",
    "medgemma_4b": "google/medgemma-4b-pt", "medgemma_instruct_4b": "google/medgemma-4b-it",
    "medgemma_1.5_instruct_4b": "google/medgemma-1.5-4b-it", "medgemma_instruct_27b": "google/medgemma-27b-it",
    "medgemma_instruct_27b_text": "google/medgemma-27b-text-it",
}  # fmt: skip

# Beginnings of KerasHub's names of relatives, and why they are not read here.
_RELATIVES = {
    "vault_gemma": "VaultGemma is an architecture of its own: Gemma 2 without its post-norms",
    "embedding_gemma": "EmbeddingGemma looks both ways and returns a vector of the text, no next token",
    "harrier_embedding": "Harrier is an embedding model: it returns a vector of the text, no next token",
    "gemma3n": "Gemma 3n is another architecture",
    "gemma4": "Gemma 4 is another architecture",
    "pali_gemma": "PaliGemma is another architecture, with images in every prompt",
    "t5gemma": "T5Gemma is an encoder and a decoder",
    "recurrent_gemma": "RecurrentGemma is another architecture",
}


def hub_id(name: str) -> str | None:
    """The repository that a published name stands for, e.g. "gemma2_2b_en" → "google/gemma-2-2b"; None for other names.

    Raises:
        CheckpointError: KerasHub's name of a relative that is not read here.
    """
    for stem in (name, name.removesuffix("_en"), name.removesuffix("_text")):
        if stem in HUB_IDS:
            return HUB_IDS[stem]
    for beginning, reason in _RELATIVES.items():
        if name.startswith(beginning) and "/" not in name:
            raise CheckpointError(
                f"{name}: {reason}. Only text decoders of Gemma 1, 2 and 3 are read here. Name one of those, such as "
                "gemma3_1b, or open this one with keras_hub."
            )
    return None


def similar_name(name: str) -> str:
    """ " Did you mean …?" for a misspelt published name, else nothing."""
    close = difflib.get_close_matches(name.removesuffix("_en"), HUB_IDS, n=1, cutoff=0.75)
    return f" Did you mean {close[0]!r}?" if close else ""
