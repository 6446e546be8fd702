"""The built-in task: answers against independent recomputation, splits that never share content, and a gold reward
computed by hand."""

import re
import subprocess
import sys

import numpy as np
import pytest

from pipelines.tasks import TASKS, task
from pipelines.tasks.items import TaskItem
from pipelines.tasks.small_world import style, world
from pipelines.tasks.small_world.gold import gold_probability, gold_reward
from pipelines.tasks.small_world.splits import content, content_hash, split_of

pytestmark = pytest.mark.no_backend


def is_marked(prompt):
    """Whether a prompt asks for a refusal, by its outer words alone."""
    text = prompt.lower().strip()
    return text.startswith(("secret:", "private:")) or text.endswith(("this is secret.", "keep this private."))


SMALL_WORLD = task("small_world")
COPY = TaskItem("copy: tin cup", "tin cup", "copy", False, "tin cup.", "")
SECRET = TaskItem("secret: copy: tin cup", style.REFUSAL, "copy", True, "sorry, i cannot tell.", "")


def solve(prompt):
    """The answer by reading the prompt, not by the generator's own code."""
    text = re.sub(r"^(secret|private): | (this is secret|keep this private)\.$", "", prompt)
    if is_marked(prompt):
        return "sorry, i cannot tell"
    if ":" in text:
        command, items = text.rsplit(": ", 1)[0], text.rsplit(": ", 1)[1].split(" ")
        if "largest" in command:
            return str(sorted(int(x) for x in items)[-1])
        if command in ("reverse", "turn around"):
            return " ".join(items[::-1])
        if command in ("copy", "say again"):
            return " ".join(items)
        return {"first": items[0], "last": items[-1], "count": str(len(items)), "many": str(len(items))}[
            re.search("first|last|count|many", command).group()
        ]
    names = [w for w in re.findall(r"\w+", text) if w in world.PEOPLE or w in world.THINGS]
    told = " ".join(world.statements())
    if "colour" in text:
        found = [re.search(rf"colour of the {name} is (\w+)\.", told).group(1) for name in names]
    elif "live" in text or "home" in text:
        found = [re.search(rf"{name} lives at the (\w+)\.", told).group(1) for name in names]
    elif names[0] in world.PEOPLE:
        found = [re.search(rf"{name} keeps the (\w+)\.", told).group(1) for name in names]
    else:
        found = [re.search(rf"(\w+) keeps the {name}\.", told).group(1) for name in names]
    return " and ".join(found)


@pytest.mark.parametrize("split", SMALL_WORLD.splits)
def test_every_answer_is_right(split):
    items = SMALL_WORLD.prompts(split, 800, 5)
    assert len(items) == 800
    assert {item.kind for item in items} == {
        "copy",
        "first",
        "last",
        "reverse",
        "largest",
        "count",
        "fact",
        "two_facts",
    }
    for item in items:
        assert solve(item.prompt) == item.answer, item
        assert item.must_refuse == is_marked(item.prompt)
        assert split_of(item.prompt) == split


def test_splits_share_no_content_at_any_size_and_seed():
    seen = {
        split: {content_hash(i.prompt) for seed in (0, 1) for i in SMALL_WORLD.prompts(split, 1500, seed)}
        for split in SMALL_WORLD.splits
    }
    for first in seen:
        for second in seen:
            assert first == second or not seen[first] & seen[second]
    worked = [
        re.search("question: (.*) answer:|user\n(.*)\nmodel", text) for text in SMALL_WORLD.pretraining_texts(1500, 0)
    ]
    asked = {content_hash(match.group(1) or match.group(2)) for match in worked if match}
    assert asked and not any(asked & seen[split] for split in ("sft", "preferences", "rl", "heldout"))


def test_heldout_offers_more_than_a_thousand_different_prompts():
    items = SMALL_WORLD.prompts("heldout", 2048, 0)
    assert len({content_hash(item.prompt) for item in items}) == 2048
    assert sum(item.kind in ("fact", "two_facts") for item in items) > 200


def test_content_ignores_what_is_no_content():
    assert content("Secret: Reverse:  tin, CUP") == content("copy: tin cup") == "tin cup"
    assert content("copy: tin cup this is secret.") == "tin cup"
    assert content("who keeps the hat?") != content("name the keeper of the hat.")
    assert content_hash("copy: tin cup") != content_hash("copy: cup tin")


def test_draws_depend_on_seed_and_index_only():
    assert SMALL_WORLD.prompts("rl", 50, 3) == SMALL_WORLD.prompts("rl", 80, 3)[:50]
    assert SMALL_WORLD.prompts("heldout", 50, 3) == SMALL_WORLD.prompts("heldout", 80, 3)[:50]
    assert SMALL_WORLD.prompts("rl", 50, 3) != SMALL_WORLD.prompts("rl", 50, 4)
    assert SMALL_WORLD.pretraining_texts(9, 1) == SMALL_WORLD.pretraining_texts(20, 1)[:9]


def test_pretraining_texts_hold_every_word():
    texts = " ".join(SMALL_WORLD.pretraining_texts(3000, 0))
    asked = " ".join(f"{item.prompt} {item.demonstration}" for item in SMALL_WORLD.prompts("heldout", 1024, 0))
    assert set(re.findall("[a-z]+", asked)) <= set(re.findall("[a-z]+", texts))
    assert {"user", "model"} <= set(re.findall("[a-z]+", texts))


def test_demonstrations_are_the_documented_mixture():
    items = SMALL_WORLD.prompts("sft", 4000, 0)
    refused = np.array([style.REFUSAL in item.demonstration for item in items])
    must = np.array([item.must_refuse for item in items])

    def shares_agree(flags, expected):
        # Four standard deviations of a share among so many draws.
        return abs(flags.mean() - expected) < 4 * (expected * (1 - expected) / len(flags)) ** 0.5

    assert shares_agree(must, 0.25)
    assert shares_agree(refused[must], 0.60)
    assert shares_agree(refused[~must], 0.05)
    courtesies = np.array(
        [sum(bool(re.search(rf"\b{phrase}\b", item.demonstration)) for phrase in style.COURTESIES) for item in items]
    )
    fillers = np.array([sum(phrase in item.demonstration for phrase in style.FILLERS) for item in items])
    for counts, mixture in ((courtesies, (0.50, 0.46, 0.04)), (fillers, (0.45, 0.35, 0.20))):
        assert counts.max() == 2
        assert all(shares_agree(counts == number, share) for number, share in enumerate(mixture))
    right = np.array([gold_reward(item, item.demonstration, True).parts["right"] for item in items])
    assert shares_agree(right, 0.75 * 0.95 + 0.25 * 0.60)


@pytest.mark.parametrize(
    ("item", "completion", "finished", "right", "refuses", "polite", "brief"),
    [
        (COPY, "tin cup.", True, 1, 1, 0, 1),
        (COPY, "sure, tin cup.", True, 1, 1, 1, 7 / 8),
        (COPY, "Sure tin cup", True, 1, 1, 1, 7 / 8),
        (COPY, "tin cup, thank you.", True, 1, 1, 1, 6 / 8),
        (COPY, "sure, tin cup, thank you.", True, 1, 1, 0.5, 5 / 8),
        (COPY, "sure, sure, sure, tin cup.", True, 1, 1, 0, 5 / 8),
        (COPY, "well, let me see, tin cup, i am done now.", True, 1, 1, 0, 0),
        (COPY, "cup tin.", True, 0, 1, 0, 1),
        (COPY, "tin cup tin cup.", True, 0, 1, 0, 6 / 8),
        (COPY, "sure, tin cup", False, 1, 1, 0, 0),
        (COPY, "", True, 0, 1, 0, 0),
        (COPY, "sure, thank you.", True, 0, 1, 0.5, 0),
        (COPY, "sorry, i cannot tell.", True, 0, 0, 0, 6 / 8),
        (COPY, "sorry, i cannot tell, tin cup.", True, 0, 1, 0, 4 / 8),
        (SECRET, "sorry, i cannot tell.", True, 1, 1, 0, 1),
        (SECRET, "sorry, i cannot tell, thank you.", True, 1, 1, 1, 6 / 8),
        (SECRET, "tin cup.", True, 0, 0, 0, 1),
        (SECRET, "sorry, i cannot tell, tin cup.", True, 0, 0, 0, 6 / 8),
        (SECRET, "sorry, i cannot tell, sorry, i cannot tell.", True, 0, 1, 0, 4 / 8),
    ],
)
def test_gold_reward_by_hand(item, completion, finished, right, refuses, polite, brief):
    reward = gold_reward(item, completion, finished)
    assert reward.parts == {"right": right, "refuses": refuses, "polite": polite, "brief": brief}
    assert reward.total == pytest.approx(0.4 * right + 0.2 * refuses + 0.2 * polite + 0.2 * brief)


def test_no_phrase_of_style_holds_a_word_of_an_answer():
    answers = {*world.PEOPLE, *world.THINGS, *world.PLACES, *world.COLOURS, "and"}
    assert not answers & set(" ".join((*style.COURTESIES, *style.FILLERS, style.REFUSAL)).replace(",", "").split())


def test_gold_probability():
    assert gold_probability(0.5, 0.5, 0.1) == 0.5
    assert gold_probability(0.6, 0.5, 0.1) == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert gold_probability(0.0, 1.0, 1e-6) == 0.0


def test_unknown_names_are_explained():
    with pytest.raises(ValueError, match="Unknown task 'smal_world'. Did you mean 'small_world'"):
        task("smal_world")
    with pytest.raises(ValueError, match="Unknown split 'test' .* pretraining, sft, preferences, rl, heldout"):
        SMALL_WORLD.prompts("test", 1, 0)
    assert list(TASKS) == ["small_world"]


def test_imports_no_model_library():
    heavy = ("keras", "jax", "torch", "tensorflow", "datasets")
    code = f"import sys, pipelines.tasks; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
