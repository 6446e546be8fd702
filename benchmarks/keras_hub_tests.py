"""KerasHub's own tests of Gemma, Gemma 2 and Gemma 3 (text), run against this library from a copy outside it.

    git clone --depth 1 https://github.com/keras-team/keras-hub ../keras-hub
    KERAS_BACKEND=jax python -m benchmarks.keras_hub_tests ../keras-hub -q

What follows the folder goes to pytest. Needs the extra `keras-hub`, whose classes are replaced by ours in the modules
that the tests import them from. Tests that fetch presets, or take images, are left out.
"""

import importlib.util
import os
import pathlib
import sys

import keras
import pytest

from gemma_keras import models

FILES = {"gemma": ("backbone", "causal_lm", "causal_lm_preprocessor", "lora", "tokenizer")}
FILES["gemma3"] = ("backbone", "lora", "tokenizer")
LEFT_OUT = ("-m", "not extra_large", "-k", "not text_and_vision and not smallest_preset")


@keras.saving.register_keras_serializable(package="keras_hub_tests")
class FileTokenizer(models.GemmaTokenizer):
    """Ours, made as KerasHub's are: from a file's name."""

    def __init__(self, proto, *others, **options):
        super().__init__(proto if isinstance(proto, bytes) else pathlib.Path(proto).read_bytes(), *others, **options)


def replace_classes(checkout: pathlib.Path) -> None:
    """Ours in the place of KerasHub's."""
    for stem in ("Gemma", "Gemma3"):
        for part in ("Backbone", "Tokenizer", "CausalLM", "CausalLMPreprocessor"):
            file = f"{stem}_{part}".lower().replace("causallm", "causal_lm").replace("lmpre", "lm_pre")
            module = importlib.import_module(f"keras_hub.src.models.{stem.lower()}.{file}")
            setattr(module, stem + part, FileTokenizer if part == "Tokenizer" else getattr(models, stem + part))
    # The checkout's base class, beside its data; an installed one may want packages that KerasHub does not.
    name = "keras_hub.src.tests.test_case"
    spec = importlib.util.spec_from_file_location(name, checkout / "keras_hub/src/tests/test_case.py")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def main(checkout: pathlib.Path, *options: str) -> int:
    """pytest's exit status."""
    replace_classes(checkout)
    folder = checkout / "keras_hub/src/models"
    files = [str(folder / at / f"{at}_{part}_test.py") for at, parts in FILES.items() for part in parts]
    settings = ("-c", os.devnull, "--rootdir", str(checkout), "--noconftest", "--import-mode=importlib", "-W", "ignore")
    return pytest.main([*files, *LEFT_OUT, *settings, "-p", "no:cacheprovider", *options])


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), *sys.argv[2:]))
