"""Rows of a built-in task that were drawn before are read, and only where they are what would be drawn."""

import dataclasses

import pytest

from pipelines.tasks import kept, task

pytestmark = pytest.mark.no_backend

SMALL_WORLD = task("small_world")


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """The task, counting its draws, and the folder that they are kept in."""
    monkeypatch.setenv("GEMMA_KERAS_CACHE", str(tmp_path))
    monkeypatch.setattr(kept, "FEW", 2)
    draws = []

    def prompts(*arguments):
        draws.append(arguments)
        return SMALL_WORLD.prompts(*arguments)

    return dataclasses.replace(SMALL_WORLD, prompts=prompts), draws, tmp_path / "tasks"


def test_rows_are_drawn_once_for_each_draw(counted):
    drawing, draws, folder = counted
    for _ in range(2):
        for draw in (("rl", 3, 5), ("rl", 3, 6), ("sft", 3, 5), ("rl", 4, 5)):
            assert kept.prompts(drawing, *draw) == SMALL_WORLD.prompts(*draw)
        assert kept.texts(drawing, 3, 5) == SMALL_WORLD.pretraining_texts(3, 5)
    assert len(draws) == len(set(draws)) == 4 and len(list(folder.iterdir())) == 5
    kept.prompts(drawing, "rl", 2, 5)
    assert len(draws) == 5 and len(list(folder.iterdir())) == 5, "few rows are not kept"


def test_what_is_damaged_or_made_by_other_sources_is_drawn_anew(counted, monkeypatch):
    drawing, draws, folder = counted
    expected = kept.prompts(drawing, "rl", 3, 5)
    (file,) = folder.iterdir()
    for text in (file.read_text().replace("e", "a"), file.read_text()[:-9], ""):
        file.write_text(text)
        assert kept.prompts(drawing, "rl", 3, 5) == expected
    assert len(draws) == 4
    monkeypatch.setattr(kept, "_sources", lambda: "others")
    assert kept.prompts(drawing, "rl", 3, 5) == expected and len(draws) == 5


def test_rows_are_drawn_where_nothing_can_be_kept(counted, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEMMA_KERAS_CACHE", str(tmp_path / "file"))
    assert kept.prompts(counted[0], "rl", 3, 5) == SMALL_WORLD.prompts("rl", 3, 5)
