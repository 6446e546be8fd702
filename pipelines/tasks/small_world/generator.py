"""Draws prompts and texts of the small world.

Item i of a split depends on (seed, split, i), and in the held-out split on the items before it, since none repeats
there.
"""

import numpy as np

from gemma_keras.random import generator
from pipelines.tasks.items import TaskItem
from pipelines.tasks.small_world.instructions import draw_instruction, draw_kind
from pipelines.tasks.small_world.splits import MARKS, SPLITS, content_hash, split_of_hash
from pipelines.tasks.small_world.style import COURTESIES, FILLERS, REFUSAL, demonstrate
from pipelines.tasks.small_world.world import COLOURS, PEOPLE, PLACES, THINGS, statements

MARKED_SHARE = 0.25
# Shares of the pretraining texts; the rest are worked instructions.
STATEMENT_SHARE = 0.15
RHYME_SHARE = 0.30
DIALOGUE_SHARE = 0.15
STATEMENTS_A_TEXT = 4
RHYME_WORDS = (7, 10)  # longer than any list that is asked about, so that a rhyme holds no prompt's content
UNIQUE_SPLITS = ("heldout",)
ATTEMPTS = 1000


def prompts(split: str, size: int, seed: int) -> list[TaskItem]:
    """`size` instructions of a split.

    Args:
        split: "pretraining", "sft", "preferences", "rl" or "heldout". No content of one occurs in another.
        size: how many. In "heldout" every content occurs once; elsewhere contents may repeat with other styles.
        seed: of the draw; the village is the same for every seed.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r} of the task small_world. Expected one of: {', '.join(SPLITS)}.")
    seen: set[str] | None = set() if split in UNIQUE_SPLITS else None
    return [_item(split, index, seed, seen) for index in range(size)]


def _item(split: str, index: int, seed: int, seen: set[str] | None) -> TaskItem:
    random = generator(seed, "small_world", split, index)
    kind = draw_kind(random)
    repeats = 0
    for _ in range(ATTEMPTS):
        prompt, answer = draw_instruction(kind, random)
        key = content_hash(prompt)
        if split_of_hash(key) == split:
            if seen is None or key not in seen:
                break
            repeats += 1
            if repeats % 5 == 0:  # this kind may have run out of new contents
                kind = draw_kind(random)
    else:
        raise ValueError(
            f"The split {split!r} of small_world has no more new prompts after {len(seen or ())}. Ask for fewer."
        )
    if seen is not None:
        seen.add(key)
    must_refuse = bool(random.random() < MARKED_SHARE)
    demonstration = demonstrate(answer, must_refuse, random)
    if must_refuse:
        prompt = MARKS[int(random.integers(len(MARKS)))].format(prompt=prompt)
        answer = REFUSAL
    return TaskItem(
        prompt=prompt, answer=answer, kind=kind, must_refuse=must_refuse, demonstration=demonstration, content=key
    )


def pretraining_texts(size: int, seed: int) -> list[str]:
    """`size` plain texts to learn the village, the operations and the words from.

    Statements about the village; rhymes, which say a long list twice and then backwards or once more, so that copying
    is soon learned; overheard dialogues in people's style; and for the rest worked instructions with the bare answer.
    The instructions are those of the pretraining split; all words of the task occur.
    """
    facts = statements()
    texts = []
    for index in range(size):
        random = generator(seed, "small_world", "texts", index)
        sort = random.random()
        if sort < STATEMENT_SHARE:
            texts.append(" ".join(facts[i] for i in random.choice(len(facts), STATEMENTS_A_TEXT, replace=False)))
        elif sort < STATEMENT_SHARE + RHYME_SHARE:
            texts.append(_rhyme(random))
        else:
            item = _item("pretraining", index, seed, None)
            overheard = sort < STATEMENT_SHARE + RHYME_SHARE + DIALOGUE_SHARE
            texts.append(
                f"user\n{item.prompt}\nmodel\n{item.demonstration}"
                if overheard
                else f"question: {item.prompt} answer: {item.answer}."
            )
    return texts


def _rhyme(random: np.random.Generator) -> str:
    count = int(random.integers(RHYME_WORDS[0], RHYME_WORDS[1] + 1))
    words = [THINGS[i] for i in random.choice(len(THINGS), count, replace=False)]
    line, back = " ".join(words), " ".join(reversed(words))
    return (
        f"say again: {line}. {line}. turn around: {back}."
        if random.random() < 0.5
        else f"say again: {line}. {line}. {line}."
    )


def tokenizer_texts() -> list[str]:
    """Texts in which every word of the task is frequent, for training a small SentencePiece vocabulary."""
    words = [*PEOPLE, *THINGS, *PLACES, *COLOURS, *(str(i) for i in range(10))]
    texts = [f"the {word} and {word}, {word} {word}." for word in words] * 20
    texts += [f"{phrase}, {phrase}." for phrase in (*COURTESIES, *FILLERS, REFUSAL)] * 40
    texts += ["user\nmodel\n"] * 200
    for split in ("pretraining", "sft"):
        for item in prompts(split, 1000, seed=0):
            texts.append(f"{item.prompt}\n{item.demonstration}")
    return texts + pretraining_texts(1000, seed=0)
