"""Calls a user's reward function as TRL's trainers would, and makes sure of what it gives. Imports no backend.

The arguments, all by name: `prompts` and `completions`, both texts where the row's prompt is a text, both lists of
messages where it is turns; `completion_ids`, the sampled ids, stop token included; and each further column of the rows
as a list, `answer` as the data specification names it.

Departures from TRL 1.16:
1. A function without `**kwargs` gets what it takes by name and nothing else, where TRL would raise.
2. `trainer_state`, `log_extra`, `log_metric` and `environments` are TRL's own: they are not passed, and a function that
   needs one is told so.
3. NaN is an error. TRL takes it for None, which means that the reward does not apply to a response.
4. A response to which no reward of a sum applies is an error. TRL gives it the advantage 0.
5. Asynchronous functions are awaited one after the other.
"""

import asyncio
import dataclasses
import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import numpy as np

from pipelines.data.columns import Prompt
from pipelines.host.errors import ConfigError, DataError
from pipelines.host.spelling import describe
from pipelines.host.time_limit import TimeIsUp, time_limit
from pipelines.plugins.loading import place_of
from pipelines.plugins.sources import UserFunction
from pipelines.sampling.prompts import prompt_text

SECONDS = 600.0
"""What a call with all responses of a rollout may take. Reached, the responses are tried one by one for as long."""

TRL_ALONE = ("trainer_state", "log_extra", "log_metric", "environments")
_NO_COLUMNS = frozenset({"prompt", "completion", "completion_ids", "prompts", "completions", *TRL_ALONE})


@dataclasses.dataclass(frozen=True)
class Samples:
    """Responses that are to be scored.

    Attributes:
        prompts: of each response (n entries). texts: the responses, n. ids: their token ids, n lists.
    """

    prompts: Sequence[Prompt]
    texts: Sequence[str]
    ids: Sequence[list[int]]

    def __len__(self) -> int:
        return len(self.texts)

    def only(self, row: int) -> "Samples":
        """One of them."""
        return Samples([self.prompts[row]], [self.texts[row]], [self.ids[row]])

    def arguments(self) -> dict[str, list]:
        """All that a reward function may take, by name; copies, which it may change."""
        columns = dict.fromkeys(name for prompt in self.prompts for name in prompt.columns if name not in _NO_COLUMNS)
        found: dict[str, list] = {name: [prompt.columns.get(name) for prompt in self.prompts] for name in columns}
        if any(prompt.answer is not None for prompt in self.prompts):
            found["answer"] = [prompt.answer for prompt in self.prompts]
        pairs = list(zip(self.prompts, self.texts, strict=True))
        found["prompts"] = [_copied(prompt) for prompt in self.prompts]
        found["completions"] = [_as_completion(prompt, text) for prompt, text in pairs]
        found["completion_ids"] = [list(ids) for ids in self.ids]
        return found

    def name(self, row: int) -> str:
        """One of them, for messages."""
        return f"the response {self.texts[row][:200]!r} to the prompt {prompt_text(self.prompts[row])[:200]!r}"


class UserReward:
    """A user's reward function with its checks.

    Args:
        about: where it comes from. function: the function itself.
        seconds: float > 0, limit of a call; see `time_limit` for what keeps it.

    Raises:
        ConfigError: a signature that cannot be called by name.
    """

    def __init__(self, about: UserFunction, function: Callable[..., Any], seconds: float = SECONDS) -> None:
        self.about = about
        self._function = function
        self._seconds = seconds
        parameters = inspect.signature(function).parameters.values()
        self._takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
        named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        self._taken = {one.name for one in named}
        self._needed = [one.name for one in named if one.default is one.empty]

    def __call__(self, samples: Samples) -> np.ndarray:
        """Scores: float64 (n,), NaN where the function says None.

        Raises:
            ConfigError: it needs an argument that there is not, or returns another number of results.
            DataError: it raises an error, takes too long, or gives what is no finite number, naming the response that
                it does so for.
        """
        try:
            results = self._call(samples, self._seconds)
        except TimeIsUp as error:
            raise self._too_slow(samples) from error
        except (ConfigError, DataError):
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(samples, error) from error
        if len(results) != len(samples):
            raise ConfigError(
                f"{self._title()} returned {len(results)} results for {len(samples)} responses; expected a number, or "
                "None where it does not apply, for each"
            )
        return np.array([self._number(result, samples, row) for row, result in enumerate(results)], np.float64)

    def _title(self) -> str:
        return f"{self.about.origin}: the reward {self.about.name!r}"

    def _call(self, samples: Samples, seconds: float) -> list:
        arguments = samples.arguments()
        missing = [name for name in self._needed if name not in arguments]
        if missing:
            known = ", ".join(arguments)
            hint = " That is TRL's own, and optional here: give it a default." if missing[0] in TRL_ALONE else ""
            raise ConfigError(
                f"{self._title()} needs {missing[0]!r}, which the rows do not have; it can take {known}.{hint} See "
                "docs/rewards.md"
            )
        if not self._takes_all:
            arguments = {name: values for name, values in arguments.items() if name in self._taken}
        with time_limit(seconds):
            results = self._function(**arguments)
            if inspect.isawaitable(results):
                results = asyncio.run(_awaited(results))
            if isinstance(results, str | bytes | dict) or not isinstance(results, Iterable):
                raise ConfigError(
                    f"{self._title()} returned {describe(results)}; expected a list with a number, or None where it "
                    f"does not apply, for each of {len(samples)} responses"
                )
            return list(results)

    def _number(self, result: Any, samples: Samples, row: int) -> float:
        if result is None:
            return math.nan
        origin, wanted = samples.prompts[row].origin, "expected a finite number, or None where it does not apply"
        try:
            value = None if isinstance(result, str | bytes) else float(result)
        except (TypeError, ValueError):
            value = None
        if value is None or not math.isfinite(value):
            got = describe(result) if value is None else value
            raise DataError(
                f"{origin}: the reward {self.about.name!r} ({self.about.origin}) is {got} for {samples.name(row)}; "
                f"{wanted}"
            )
        return value

    def _failed(self, samples: Samples, error: BaseException) -> DataError:
        alone = self._first_alone(samples, (Exception, SystemExit))
        row, error = (0, error) if alone is None else alone
        who = samples.name(row)
        if alone is None:
            who = f"{len(samples)} responses together, and on none alone; the first is {who}"
        return DataError(
            f"{samples.prompts[row].origin}: the reward {self.about.name!r} failed at {place_of(error, self.about)} "
            f"with {type(error).__name__}: {error}, on {who}"
        )

    def _too_slow(self, samples: Samples) -> DataError:
        alone = self._first_alone(samples, (TimeIsUp,))
        row = 0 if alone is None else alone[0]
        which = "the first is" if alone is None else f"over {self._seconds / len(samples):.3g} s of it on"
        return DataError(
            f"{samples.prompts[row].origin}: the reward {self.about.name!r} ({self.about.origin}) took over "
            f"{self._seconds:g} s for {len(samples)} responses, {which} {samples.name(row)}"
        )

    def _first_alone(
        self, samples: Samples, kinds: tuple[type[BaseException], ...]
    ) -> tuple[int, BaseException] | None:
        """The first response on which a call with it alone ends so: TRL's signature does not say which one it was."""
        for row in range(len(samples)):
            try:
                self._call(samples.only(row), self._seconds / len(samples))
            except (TimeIsUp, Exception, SystemExit) as error:
                if isinstance(error, kinds):
                    return row, error
        return None


async def _awaited(results: Awaitable[Any]) -> Any:
    return await results


def _copied(prompt: Prompt) -> str | list[dict[str, str]]:
    return prompt.prompt if isinstance(prompt.prompt, str) else [{**message} for message in prompt.prompt]


def _as_completion(prompt: Prompt, text: str) -> str | list[dict[str, str]]:
    return text if isinstance(prompt.prompt, str) else [{"role": "assistant", "content": text}]
