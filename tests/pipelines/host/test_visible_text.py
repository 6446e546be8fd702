"""What a terminal would obey, and what turns the direction of writing, is spelled."""

import pytest

from pipelines.host.visible_text import visible

pytestmark = pytest.mark.no_backend


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext, é 字 🙂", "plain\n\ttext, é 字 🙂"),
        ("a\x1b[31mb\x1b]0;title\x07", r"a\x1b[31mb\x1b]0;title\x07"),
        ("a\rb\x7f\x9b1m\x00", r"a\rb\x7f\x9b1m\x00"),
        ("safe\u202egpj.exe\u202c", r"safe\u202egpj.exe\u202c"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("half \ud83d", r"half \ud83d"),
        ("", ""),
    ],
)
def test_characters_that_act_are_spelled(text, shown):
    assert visible(text) == shown
