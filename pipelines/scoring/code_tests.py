"""Whether the programs in responses pass the tests in their rows, as a rater."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipelines.data.columns import Prompt
from pipelines.graders.code.asserts import BadTests
from pipelines.graders.code.extraction import extract_code
from pipelines.graders.code.grade import AT_ONCE, grade_code
from pipelines.graders.code.sandbox import SandboxError, choose
from pipelines.host.errors import ConfigError, DataError, InternalError
from pipelines.sampling.rollout import Rollout
from pipelines.schema.ensembles import as_said
from pipelines.schema.functions import CodeTests
from pipelines.scoring.base import Rater, Scores


class CodeRater(Rater):
    """Each response's program in a sandbox of its own, several at once.

    Raises:
        ConfigError: no such sandbox works here.
    """

    bounds = (0.0, 1.0)

    def __init__(self, settings: CodeTests) -> None:
        self.name, self.source = settings.label, as_said(settings)
        self._settings = settings
        try:
            self._sandbox = choose(settings.sandbox)
        except SandboxError as error:
            raise ConfigError(f"The reward {self.name!r}: {error}") from error

    def score(self, prompts: Sequence[Prompt], rollout: Rollout) -> Scores:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return Scores(np.array(list(pool.map(self._passes, prompts, rollout.texts)), np.float64), {})

    def _passes(self, prompt: Prompt, text: str) -> float:
        columns, wanted = prompt.columns, self._settings
        tests = _tests(prompt, wanted.tests)
        entry_point = _text(prompt, wanted.entry_point) if columns.get(wanted.entry_point) is not None else None
        program = "" if wanted.program is None else _text(prompt, wanted.program)
        source = extract_code(text, program, entry_point)
        try:
            return float(grade_code(source, tests, entry_point, program, self._sandbox, wanted.seconds).passed)
        except BadTests as error:
            raise DataError(f"{prompt.origin}: {error}") from error
        except SandboxError as error:
            raise InternalError(f"The reward {self.name!r}: no sandbox started: {error}") from error


def _tests(prompt: Prompt, column: str) -> list[str]:
    value = prompt.columns.get(column)
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise _wrong(prompt, column, value, "tests, a text or a list of texts")
    return texts


def _text(prompt: Prompt, column: str) -> str:
    value = prompt.columns.get(column)
    if not isinstance(value, str):
        raise _wrong(prompt, column, value, "a text")
    return value


def _wrong(prompt: Prompt, column: str, value: Any, expected: str) -> DataError:
    return DataError(
        f"{prompt.origin}: the reward code_tests needs the column {column!r}: expected {expected}, got "
        f"{repr(value)[:80]}. The row has: {', '.join(prompt.columns)}."
    )
