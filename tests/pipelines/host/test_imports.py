"""A package is hidden while another is imported, and no longer."""

import sys

import pytest

from pipelines.host.imports import without

pytestmark = pytest.mark.no_backend


def test_hidden_within_and_there_again_afterwards(tmp_path, monkeypatch):
    (tmp_path / "figures_of_a_library.py").write_text("drawn = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    with without("figures_of_a_library"), pytest.raises(ImportError):
        import figures_of_a_library
    assert "figures_of_a_library" not in sys.modules
    import figures_of_a_library

    with without("figures_of_a_library"):  # imported by the user already: stays
        import figures_of_a_library as again
    assert again is figures_of_a_library is sys.modules.pop("figures_of_a_library")


def test_there_again_after_an_error():
    with pytest.raises(RuntimeError), without("nobody_has_this"):
        raise RuntimeError
    assert "nobody_has_this" not in sys.modules
