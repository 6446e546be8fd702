"""Settings that are chosen by a name and may have options."""

import pydantic
import pytest
from pydantic import Field

from pipelines.schema.base import Settings
from pipelines.schema.named import Named, named, named_fields, one_of

pytestmark = pytest.mark.no_backend


class Loud(Named):
    """A choice with options."""

    volume: int = Field(11, description="How loud.")
    pitch: int | None = Field(None, description="How high.")


CHOICES = {"soft": named("soft", Named), "loud": named("loud", Loud)}


class Voice(Settings):
    """One choice that has a default, one that need not be made, one that must be, and a text."""

    voice: one_of(CHOICES) = Field(CHOICES["soft"]())
    second: one_of(CHOICES) | None = Field(None, alias="also")
    third: one_of(CHOICES)
    words: str = "la"


def test_where_a_name_may_stand_and_the_default_one():
    assert named_fields(Voice) == {"voice": "soft", "also": None, "third": None}


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("soft", "soft"),
        ({"name": "soft"}, "soft"),
        ("loud", {"name": "loud", "volume": 11}),
        ({"name": "loud", "volume": 3, "pitch": 2}, {"name": "loud", "volume": 3, "pitch": 2}),
        (CHOICES["loud"](volume=5), {"name": "loud", "volume": 5}),
    ],
)
def test_a_choice_is_read_and_written_back(asked, written):
    """As its name, where it has nothing to say beside it; what was written is read as the same choice."""
    found = Voice(third=asked)
    assert found.third.name in CHOICES and isinstance(found.third, Loud) == (found.third.name == "loud")
    again = found.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert again == {"voice": "soft", "third": written, "words": "la"}
    assert Voice.model_validate(again) == found


def test_a_choice_that_there_is_not_is_refused():
    for asked in ("lowd", {"name": "lowd"}, {"volume": 3}, 4, None, {"name": "soft", "volume": 3}):
        with pytest.raises(pydantic.ValidationError):
            Voice(third=asked)
