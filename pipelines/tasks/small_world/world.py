"""The village of the small world: who keeps what, who lives where, which thing has which colour.

The facts are the same for every seed, so that what one stage learns another can ask. All words are short and lower
case: with a vocabulary of a few hundred SentencePiece pieces nearly every one is a single piece.
"""

import dataclasses

from gemma_keras.random import generator

PEOPLE = (
    "ann",
    "ben",
    "dan",
    "eva",
    "gus",
    "hal",
    "ida",
    "jan",
    "kit",
    "lee",
    "meg",
    "ned",
    "pam",
    "ray",
    "sam",
    "tom",
)
THINGS = (
    "ant", "bag", "bat", "bee", "bell", "cap", "cat", "cow", "cup", "dog", "drum", "egg", "fig", "fox", "hat", "hen",
    "ink", "jar", "key", "lamp", "map", "net", "nut", "oak", "owl", "pan", "pen", "pig", "pin", "pot", "ram", "tin",
)  # fmt: skip
PLACES = ("mill", "dock", "barn", "cave", "fort", "inn", "lake", "hill")
COLOURS = ("red", "blue", "green", "gray", "pink", "gold")


@dataclasses.dataclass(frozen=True)
class Relation:
    """One sort of fact, asked and told in several wordings.

    Args:
        values: subject -> answer.
        statements: sentences with {subject} and {value}, for pretraining.
        questions: questions with {subject}.
        pair_question: a question with {first} and {second}.
    """

    values: dict[str, str]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    pair_question: str


def _assign(name: str, subjects: tuple[str, ...], values: tuple[str, ...]) -> dict[str, str]:
    order = generator(0, "small_world", name).permutation(len(subjects))
    return {subjects[i]: values[rank % len(values)] for rank, i in enumerate(order)}


def build_relations() -> dict[str, Relation]:
    """All facts of the village: 16 people, 16 kept things, 8 places, 6 colours."""
    kept = tuple(THINGS[i] for i in sorted(generator(0, "small_world", "kept").permutation(len(THINGS))[: len(PEOPLE)]))
    keeps = _assign("keeps", PEOPLE, kept)
    return {
        "keeps": Relation(
            keeps,
            ("{subject} keeps the {value}.", "the {value} is kept by {subject}."),
            ("what does {subject} keep?", "what is kept by {subject}?", "name the thing {subject} keeps."),
            "what do {first} and {second} keep?",
        ),
        "keeper": Relation(
            {thing: person for person, thing in keeps.items()},
            ("the {subject} is kept by {value}.", "the keeper of the {subject} is {value}."),
            ("who keeps the {subject}?", "by whom is the {subject} kept?", "name the keeper of the {subject}."),
            "who keeps the {first} and the {second}?",
        ),
        "home": Relation(
            _assign("home", PEOPLE, PLACES),
            ("{subject} lives at the {value}.", "the home of {subject} is the {value}."),
            ("where does {subject} live?", "what is the home of {subject}?", "name the home of {subject}."),
            "where do {first} and {second} live?",
        ),
        "colour": Relation(
            _assign("colour", kept, COLOURS),
            ("the {subject} is {value}.", "the colour of the {subject} is {value}."),
            (
                "what colour is the {subject}?",
                "what is the colour of the {subject}?",
                "name the colour of the {subject}.",
            ),
            "what colour are the {first} and the {second}?",
        ),
    }


RELATIONS = build_relations()


def statements() -> list[str]:
    """Every fact in every wording, in a fixed order."""
    return [
        wording.format(subject=subject, value=value)
        for relation in RELATIONS.values()
        for subject, value in relation.values.items()
        for wording in relation.statements
    ]
