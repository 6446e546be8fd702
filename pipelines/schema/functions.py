"""The shipped reward functions that take settings: a class each, in a closed registry.

    reward: {function: length, at_most: 80, unit: words, fade: 20}

All give from 0 to 1, and do for a reward, a rater, a judge and a part of a sum alike.
"""

import abc
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from gemma_keras.install_advice import install_command
from pipelines.graders.code.sandbox import Sandbox
from pipelines.graders.json_text import EXTRA, PACKAGE, json_check, schema_problem
from pipelines.graders.text_form import distinct_share, has_pattern, length_within
from pipelines.schema.base import Problem, Settings
from pipelines.schema.roles import Names, plain

Scorer = Callable[[str, Sequence[int]], float]
"""From a response's text and its token ids, without the stop token, to a score in [0, 1]."""


class ScoringFunction(Settings):
    """A function with settings. Abstract."""

    function: str
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="What metrics call it, rewards/<name>/mean; default the function.",
    )

    @property
    def label(self) -> str:
        """What metrics call it."""
        return self.name or self.function

    @property
    def source(self) -> str:
        """The function with its settings, in words."""
        return described(plain(self))


class TextFunction(ScoringFunction):
    """A function of a response alone. Abstract."""

    @abc.abstractmethod
    def scorer(self) -> Scorer:
        """The function itself."""


class RegularExpression(TextFunction):
    """1 where a pattern occurs in the response, else 0."""

    function: Literal["regular_expression"]
    pattern: str = Field(min_length=1, description="Python's `re`; flags stand in it, such as (?is).")
    whole: bool = Field(False, description="The response must be the pattern and nothing else.")

    def problems(self) -> Iterator[Problem]:
        """A pattern that is none."""
        try:
            re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            yield ("pattern",), f"no regular expression: {error}; got {self.pattern!r}"

    def scorer(self) -> Scorer:
        """See `TextFunction.scorer`."""
        pattern = re.compile(self.pattern)
        return lambda text, tokens: has_pattern(text, pattern, self.whole)


class Length(TextFunction):
    """1 for a response of a length within limits, falling outside of them."""

    function: Literal["length"]
    at_least: int | None = Field(None, ge=0, description="Shortest that earns 1.")
    at_most: int | None = Field(None, ge=0, description="Longest that earns 1.")
    unit: Literal["tokens", "words", "characters"] = Field(
        "tokens", description="tokens: as sampled, without the stop token; words: parts between blanks."
    )
    fade: int = Field(0, ge=0, description="Distance from the limits at which the score has fallen to 0, linearly.")

    def problems(self) -> Iterator[Problem]:
        """No limit, or limits the wrong way round."""
        if self.at_least is None and self.at_most is None:
            yield (), "length without a limit; expected at_least, at_most or both"
        elif self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            yield ("at_least",), f"{self.at_least} is over at_most {self.at_most}; expected at most that"

    def scorer(self) -> Scorer:
        """See `TextFunction.scorer`."""
        return lambda text, tokens: length_within(self._length(text, tokens), self.at_least, self.at_most, self.fade)

    def _length(self, text: str, tokens: Sequence[int]) -> int:
        return {"tokens": len(tokens), "words": len(text.split()), "characters": len(text)}[self.unit]


class Repetition(TextFunction):
    """1 minus the share of repeated n-grams of the response's tokens."""

    function: Literal["repetition"]
    n: int = Field(3, ge=1, description="Tokens of an n-gram.")

    def scorer(self) -> Scorer:
        """See `TextFunction.scorer`."""
        return lambda text, tokens: distinct_share(tokens, self.n)


class JsonSchema(TextFunction):
    """1 for a response that is JSON, and valid by a schema, else 0."""

    function: Literal["json_schema"]
    schema_: dict[str, Any] = Field({}, alias="schema", description="JSON Schema; without one any JSON will do.")

    def problems(self) -> Iterator[Problem]:
        """A schema that is none, or nothing that could check it."""
        try:
            problem = schema_problem(self.schema_)
        except ModuleNotFoundError:
            problem = f"the package {PACKAGE!r} is not installed. Run: {install_command(EXTRA)}"
        if problem is not None:
            yield ("schema",), problem

    def scorer(self) -> Scorer:
        """See `TextFunction.scorer`."""
        check = json_check(self.schema_)
        return lambda text, tokens: check(text)


class CodeTests(ScoringFunction):
    """1 where the program in the response passes the tests in its row, run in a sandbox, else 0."""

    function: Literal["code_tests"]
    tests: str = Field("tests", min_length=1, description="Column with asserts, or `check(candidate)`: a text or more.")
    entry_point: str = Field(
        "entry_point",
        min_length=1,
        description="Column with the name of the function; where a row has none, what the asserts call.",
    )
    program: str | None = Field(
        None,
        min_length=1,
        description="Column with the program's beginning, which a response goes on from and the tests may use.",
    )
    sandbox: Sandbox = Field(
        "auto", description="bubblewrap, unshare, auto: the first that works here; none: no protection at all."
    )
    seconds: float = Field(5.0, gt=0, le=600, description="Wall time for one program.")


FUNCTIONS: dict[str, type[ScoringFunction]] = {
    "regular_expression": RegularExpression,
    "length": Length,
    "repetition": Repetition,
    "json_schema": JsonSchema,
    "code_tests": CodeTests,
}
"""By their YAML name."""

NO_FUNCTION = "no_function"
"""Type of the schema's complaint about a mapping that names none of them."""


def named_or_function(role: str, *others: Any, tag: Callable[[Any], str | None] = lambda value: None) -> Any:
    """Type of what scores: a name in a role, or a function with its settings.

    Args:
        role: as of `Names`. others: further branches, each with a `Tag`. tag: which of these a value is, or None.
    """
    branches: Any = Annotated[str, Field(min_length=1), Tag("<name>"), Names(role)]
    for name, function in FUNCTIONS.items():
        branches |= Annotated[function, Tag(name)]
    for other in others:
        branches |= other
    which = Discriminator(
        lambda value: tag(value) or _tag(value), custom_error_type=NO_FUNCTION, custom_error_message="a function"
    )
    return Annotated[branches, which]


def _tag(value: Any) -> str:
    if isinstance(value, ScoringFunction):
        return value.function
    return str(value.get("function")) if isinstance(value, dict) else "<name>"


def described(function: Mapping[str, Any]) -> str:
    """A function's plain settings in words, such as `length(at_most=80, unit="words", fade=20)`."""
    said = [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in function.items()
        if key not in ("function", "name") and value is not None
    ]
    return f"{function['function']}({', '.join(said)})"


def functions_with_settings(settings: Any) -> Iterator[str]:
    """The functions with settings in plain settings, however deep, each in words."""
    if isinstance(settings, Mapping):
        if str(settings.get("function")) in FUNCTIONS:
            yield described(settings)
        else:
            for value in settings.values():
                yield from functions_with_settings(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from functions_with_settings(value)
