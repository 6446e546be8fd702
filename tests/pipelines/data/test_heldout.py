"""What a prompt's content is, what a model has seen, and splits that no content crosses."""

import numpy as np
import pytest

from pipelines.data.columns import Conversation, Preference, Prompt, PromptCompletion
from pipelines.data.contents import SeenPrompts, normalized, prompt_hashes
from pipelines.data.heldout import split_heldout
from pipelines.tasks import task
from pipelines.tasks.small_world.splits import content_hash

pytestmark = pytest.mark.no_backend

NOTHING = SeenPrompts()


def turn(role, content):
    return {"role": role, "content": content}


def of_texts(texts):
    return [prompt_hashes(Prompt(text, None, "")) for text in texts]


def test_case_spaces_punctuation_and_unicode_forms_are_no_content():
    assert normalized("  Who's  THERE?\n") == normalized("who s there") == "who s there"
    assert normalized("ﬁve ½") == normalized("five 1⁄2")
    assert normalized("2 + 2") != normalized("2 = 2")
    assert normalized("?!") == "?!" != normalized("...")


def test_a_prompt_is_the_same_in_every_form_that_rows_come_in():
    messages = [turn("user", "Hello")]
    forms = [
        Prompt("Hello", None, ""),
        Prompt(messages, None, ""),
        PromptCompletion("Hello", "Hi", ""),
        Preference("Hello", "a", "b", ""),
        Conversation([*messages, turn("assistant", "Hi")], ""),
        Conversation([*messages, turn("model", "Hi")], ""),
    ]
    assert len({prompt_hashes(form) for form in forms}) == 1
    other = prompt_hashes(Prompt("hello!", None, ""))
    assert other.content == prompt_hashes(forms[0]).content and other.exact != prompt_hashes(forms[0]).exact


def test_a_conversation_trains_on_the_prompt_before_each_answer():
    turns = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]
    found = prompt_hashes(Conversation(turns, ""))
    assert found.contents == tuple(prompt_hashes(Prompt(turns[:end], None, "")).content for end in (1, 3))
    # Held out together with whatever else begins like it.
    assert found.group == prompt_hashes(Prompt(turns[:3], None, "")).group
    assert SeenPrompts.of([found]).overlap(of_texts(["A.", "c"])) == {"same_text": 0, "same_content": 1}
    assert SeenPrompts.of([found]).overlap(of_texts(["a", "c"])) == {"same_text": 1, "same_content": 1}


def test_a_task_says_itself_what_its_content_is():
    items = task("small_world").prompts("rl", 300, 0)
    for item in items:
        expected = content_hash(item.prompt)
        assert prompt_hashes(Prompt(item.prompt, None, "", item)).contents == (expected,)
        # What a preference stage writes for its pairs leads to the same content.
        assert prompt_hashes(Preference(item.prompt, "a", "b", "", content=expected)).group == expected
    assert len({item.content for item in items}) < len({item.prompt for item in items}) < len(items)


def test_the_record_of_seen_prompts_survives_the_disk(tmp_path):
    seen = SeenPrompts.of(of_texts(["a", "b", "B"]))
    assert (len(seen.contents), len(seen.exact)) == (2, 3)
    seen.write(tmp_path)
    assert SeenPrompts.read(tmp_path) == seen
    assert SeenPrompts.read(tmp_path / "elsewhere") is None
    assert (seen | SeenPrompts.of(of_texts(["c"]))).contents > seen.contents


def test_no_content_is_on_both_sides_where_prompts_repeat():
    texts = [f"prompt {i % 30}{'!' * (i % 3)}" for i in range(200)]
    split = split_heldout(of_texts(texts), 0.1, 5, NOTHING)
    sides = [{normalized(texts[i]) for i in part} for part in (split.training, split.heldout)]
    assert not sides[0] & sides[1] and len(sides[1]) == 3 and split.seen_before == 0
    assert sorted([*split.training, *split.heldout]) == list(range(200))
    assert np.array_equal(split_heldout(of_texts(texts), 0.1, 5, NOTHING).heldout, split.heldout)
    assert not np.array_equal(split_heldout(of_texts(texts), 0.1, 6, NOTHING).heldout, split.heldout)


def test_stages_that_read_the_same_prompts_hold_out_the_same_ones():
    """In whatever order and company, and the smaller share among the larger."""
    texts = [f"prompt {i}" for i in range(100)]

    def held(texts, fraction, **options):
        return [texts[i] for i in split_heldout(of_texts(texts), fraction, 5, NOTHING, **options).heldout]

    assert held(texts[::-1], 0.1) == held(texts, 0.1) == held(texts, 0.3)[:10] == held(texts, 0.5, most=10)
    part = texts[:50]
    assert set(held(texts, 0.5)) & set(part) <= set(held(part, 0.6))


def test_prompts_of_earlier_stages_are_passed_over():
    """A later stage keeps an earlier one's held-out prompts, whatever its own share."""
    examples = of_texts([f"prompt {i}" for i in range(100)])
    first = split_heldout(examples, 0.1, 5, NOTHING)
    seen = SeenPrompts.of(examples[i] for i in first.training)
    for fraction in (0.05, 0.1, 0.3):
        again = split_heldout(examples, fraction, 5, seen)
        assert set(again.heldout) <= set(first.heldout) and again.seen_before == 0
        assert len(again.heldout) == min(10, round(100 * fraction))
    # Another seed draws others, and still none that was trained on.
    assert set(split_heldout(examples, 0.05, 6, seen).heldout) < set(first.heldout)
    everything = split_heldout(examples, 0.1, 5, SeenPrompts.of(examples))
    assert len(everything.heldout) == everything.seen_before == 10


def test_a_prompt_that_begins_like_a_seen_one_is_passed_over_with_it():
    examples = [prompt_hashes(Prompt(text, None, "")) for text in ("a", "b")]
    longer = [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]
    examples.append(prompt_hashes(Prompt(longer, None, "")))
    seen = SeenPrompts.of(examples[:1])
    assert all(split_heldout(examples, 0.5, seed, seen).heldout.tolist() == [1] for seed in range(8))


def test_the_ends():
    examples = of_texts(["a", "b", "b"])
    assert len(split_heldout(examples, 0.0, 0, NOTHING).training) == 3
    assert len(split_heldout(examples[:1], 0.5, 0, NOTHING).heldout) == 0
    least = split_heldout(examples, 0.01, 0, NOTHING)
    assert {examples[i].group for i in least.heldout}.isdisjoint(examples[i].group for i in least.training)
    assert len(least.heldout) in (1, 2)
