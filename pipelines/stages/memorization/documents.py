"""The documents that are asked for: read, told apart by source, drawn by the seed, and cut into what is shown and what
is asked for."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pydantic

from gemma_keras.random import generator
from gemma_keras.text.chat import EncodedExample
from gemma_keras.text.tokenizer import GemmaTokenizer
from pipelines.data.contents import SeenPrompts, prompt_hashes
from pipelines.data.encoding import encode_instructions
from pipelines.host.errors import ConfigError
from pipelines.host.files import read_json
from pipelines.schema.data import FileData, TaskData
from pipelines.schema.mixture import TrainingData
from pipelines.schema.named_data import NamedStage, spec_of
from pipelines.stages.context import StageContext
from pipelines.stages.memorization.config import Documents, Memorization

TRAINED, UNSEEN, GIVEN = "trained", "unseen", "given"
"""Documents that a model has learned from, as its record says; that it has not; of a model without a record."""
GROUPS = (TRAINED, GIVEN, UNSEEN)
_USES = {"pretraining": "text", "instruction_tuning": "instruction"}
"""Kinds that learn from documents → what they read rows as."""
_TRAINING_DATA: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(TrainingData)
_READ_AS = "instruction"
"""What rows of a file are read as: texts and conversations alike."""
_AT_ONCE = 256
_NO_LIMIT = 2**31


@dataclasses.dataclass(frozen=True)
class Place:
    """Where documents come from.

    Attributes:
        name: of the source, "" where it is the only one. data: what names the rows. use: what they are read as.
        is_unseen: whether they were named as ones that no model was trained on.
        longest: tokens that training read of a document; is_dropped: whether it left longer ones out.
    """

    name: str
    data: str | FileData | TaskData
    use: str
    is_unseen: bool
    longest: int = _NO_LIMIT
    is_dropped: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """The documents of one place, each once, in an order drawn by the seed.

    Attributes:
        examples: typed rows. repeats: how often each stands there.
    """

    place: Place
    examples: list[Any]
    repeats: list[int]


@dataclasses.dataclass(frozen=True)
class Question:
    """A document as it is asked for.

    Attributes:
        shown, truth: ids of one encoding of it. source: its name. group: see `TRAINED`. repeats: how often it stands
            there.
    """

    shown: list[int]
    truth: list[int]
    source: str
    group: str
    repeats: int


def read_sources(config: Memorization, context: StageContext) -> list[Source]:
    """All sources that a stage names."""
    found = []
    for data, is_unseen in ((config.data, False), (config.unseen, True)):
        for place in () if data is None else _places(data, is_unseen, context):
            counts = Counter(map(_Same, context.examples(place.data, place.use)))
            distinct = list(counts)
            keys = "documents", place.name, int(is_unseen)
            order = generator(context.seed, context.name, *keys).permutation(len(distinct))
            chosen = [distinct[i] for i in order]
            found.append(Source(place, [one.example for one in chosen], [counts[one] for one in chosen]))
    return found


def questions(
    source: Source, tokenizer: GemmaTokenizer, seen: SeenPrompts | None, config: Memorization
) -> tuple[list[Question], int]:
    """What a model is asked of a source: of each group the first `config.documents` that are long enough.

    What bears loss in training is the document: a text, or the first answer to what stands before it. Its first tokens
    are shown, the next ones asked for.

    Args:
        seen: what the model learned from; None where nobody knows.

    Returns:
        The questions, and how many documents were passed over as they were too short or too long.
    """
    found: dict[str, list[Question]] = {}
    passed_over = 0
    for start in range(0, len(source.examples), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(source.examples)))
        groups = [_group(source.examples[i], seen, source.place.is_unseen) for i in rows]
        wanted = [
            (i, group)
            for i, group in zip(rows, groups, strict=True)
            if len(found.setdefault(group, [])) < config.documents
        ]
        examples = [source.examples[i] for i, _ in wanted]
        encoded = encode_instructions(tokenizer, examples, _NO_LIMIT, "error").examples if examples else []
        for (i, group), ids in zip(wanted, encoded, strict=True):
            cut = _cut(ids, tokenizer, source.place, config)
            if cut is None:
                passed_over += 1
            else:
                found[group].append(Question(*cut, source.place.name, group, source.repeats[i]))
    return [one for asked in found.values() for one in asked[: config.documents]], passed_over


class _Same:
    """A document that equals others of the same words, wherever they stand."""

    def __init__(self, example: Any) -> None:
        self.example = example
        self._words = repr(dataclasses.replace(example, origin=""))

    def __hash__(self) -> int:
        return hash(self._words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._words == other._words


def _group(example: Any, seen: SeenPrompts | None, is_unseen: bool) -> str:
    if seen is None:
        return UNSEEN if is_unseen else GIVEN
    return UNSEEN if seen.contents.isdisjoint(prompt_hashes(example).contents) else TRAINED


def _cut(
    encoded: EncodedExample, tokenizer: GemmaTokenizer, place: Place, config: Memorization
) -> tuple[list[int], list[int]] | None:
    """What is shown and what is asked for; None of a document that does not reach, or reaches too far."""
    start = encoded.is_target.index(True)
    middle, end = start + config.prompt_tokens, start + config.prompt_tokens + config.continuation_tokens
    truth = encoded.token_ids[middle:end]
    is_whole = len(truth) == config.continuation_tokens and all(encoded.is_target[start:end])
    is_trained_on = end <= place.longest and not (place.is_dropped and len(encoded.token_ids) > place.longest)
    if not is_whole or not is_trained_on or end > config.max_length or set(truth) & set(tokenizer.stop_token_ids):
        return None
    return encoded.token_ids[:middle], truth


def _places(data: Documents, is_unseen: bool, context: StageContext) -> Iterator[Place]:
    if isinstance(data, list):
        yield from (Place(source.name, spec_of(source), _READ_AS, is_unseen) for source in data)
    elif isinstance(data, str) and (context.inputs[data] / "model").is_dir():
        yield from _trained_on(data, is_unseen, context)
    else:
        yield Place("", data, _READ_AS, is_unseen)


def _trained_on(stage: str, is_unseen: bool, context: StageContext) -> Iterator[Place]:
    """The data that a stage was trained on, as its folder says."""
    about = read_json(context.inputs[stage] / "stage.json")
    use = _USES.get(about["kind"])
    if use is None:
        raise ConfigError(
            f"stage {context.name!r}: {stage!r} is of kind {about['kind']}, which learns from no documents; name "
            f"a stage of kind {' or '.join(_USES)}, or the documents themselves"
        )
    config = about["config"]
    data = _TRAINING_DATA.validate_python(config["data"])
    for source in data if isinstance(data, list) else [data]:
        if isinstance(source, str | NamedStage):
            rows = source if isinstance(source, str) else source.stage
            raise ConfigError(
                f"stage {context.name!r}: {stage!r} learned from the rows that the stage {rows!r} left; name that one: "
                f"data: {rows}"
            )
        limits = config["max_length"], config["overlong"] == "drop"
        yield Place(getattr(source, "name", ""), source, use, is_unseen, *limits)
