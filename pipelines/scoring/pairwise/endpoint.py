"""A model behind an OpenAI-compatible endpoint as judge of pairs. Imports no Keras.

The request is `urllib`'s. `huggingface_hub.InferenceClient` would do it too, but without a key of the endpoint's it
sends the user's token for the Hub to whatever server is named.
"""

import email.utils
import http.client
import json
import math
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipelines.host import stopping
from pipelines.host.errors import ConfigError, DataError, Stopped
from pipelines.host.parts import Keep, compute_now
from pipelines.measures.judges import TIE
from pipelines.schema.pairwise import JudgeEndpoint
from pipelines.scoring.pairwise.base import (
    READ,
    UNREADABLE,
    Advance,
    Comparison,
    PairwiseJudge,
    Verdicts,
    advance_nothing,
    by_odds,
)
from pipelines.scoring.pairwise.questions import LABELS, question_text, read_verdict

TOP = 20
"""Likeliest tokens that are asked for beside the label, as many as endpoints give."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, twice as many before each further one, up to the longest."""
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Answers after which the same question may be answered."""
_ADVICE = {
    400: "Look at the model's context length, and at what the endpoint supports",
    401: "The key is missing or wrong: name its environment variable in judge.key_variable",
    403: "The key may not use this model",
    404: "Look at judge.base_url, which ends with the version such as /v1, and at judge.model",
}
_SHOWN = 300  # characters of what came back


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another address is an error: the key would go there too."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class EndpointJudge(PairwiseJudge):
    """Asks an endpoint, several questions at a time. With likelihoods it compares the labels' among the likeliest first
    tokens of the reply; with reasoning it reads the verdict.

    Args:
        settings: where it is. with_reasoning: how it answers. max_new_tokens: of an answer with reasoning.
        sleep: waits between tries.

    Raises:
        ConfigError: the key's variable is not set.
    """

    def __init__(
        self, settings: JudgeEndpoint, with_reasoning: bool, max_new_tokens: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.source, self._settings = settings.source, settings
        self._with_reasoning, self._sleep = with_reasoning, sleep
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._key = os.environ.get(settings.key_variable, "").strip() if settings.key_variable else ""
        if settings.key_variable and not self._key:
            raise ConfigError(
                f"the environment variable {settings.key_variable} is not set; put the judge's key into it"
            )
        label = {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP}
        more = {"max_tokens": max_new_tokens} if with_reasoning else label
        self._options = {"model": settings.model, "temperature": 0, **more}
        self._open = urllib.request.build_opener(_NoRedirect).open

    def decide(
        self, asked: Sequence[Comparison], keep: Keep = compute_now, advance: Advance = advance_nothing
    ) -> Verdicts:
        """See `PairwiseJudge.decide`; a part is what is asked at once.

        Raises:
            DataError: no answer, naming the prompt. ConfigError: the endpoint refuses the key, the model or the
                address.
        """
        size = self._settings.at_once
        starts, parts = range(0, len(asked), size), []
        with ThreadPoolExecutor(size) as pool:
            for number, start in enumerate(starts):
                some = asked[start : start + size]
                part = keep(str(number), lambda some=some: self._part(pool, some), len(starts))  # type: ignore[misc]
                parts.append(Verdicts.of_arrays(part))
                advance(len(some), 0)
        return Verdicts.joined(parts)

    def _part(self, pool: ThreadPoolExecutor, asked: Sequence[Comparison]) -> dict[str, np.ndarray]:
        return Verdicts.joined(list(pool.map(self._decide, asked))).arrays()

    def _decide(self, one: Comparison) -> Verdicts:
        message = {"role": "user", "content": question_text(one, self._with_reasoning)}
        choice = self._ask({**self._options, "messages": [message]}, one.origin)
        if self._with_reasoning:
            text = str(choice["message"].get("content") or "").encode(errors="replace").decode()
            found, odds = read_verdict(text), math.nan
        else:
            text, odds = "", self._log_odds(choice, one.origin)
            found = None if math.isnan(odds) else int(by_odds(np.array([odds]), TIE)[0])
        state = UNREADABLE if found is None else READ
        return Verdicts(np.array([found or 0], np.int8), np.array([state], np.int8), np.array([odds]), [text])

    def _log_odds(self, choice: Mapping[str, Any], origin: str) -> float:
        """Of the first label over the second. One that is not among the likeliest has at most the chance of the last of
        them; NaN where neither is."""
        try:
            top = choice["logprobs"]["content"][0]["top_logprobs"]
            chances = [(str(one["token"]).strip(), math.exp(float(one["logprob"]))) for one in top]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ConfigError(
                f"{origin}: {self.source} gives no log-probabilities (logprobs.content[0].top_logprobs). Ask for its "
                "verdict in words: answer: reasoning"
            ) from None
        least = max(min((chance for _, chance in chances), default=0.0), sys.float_info.min)
        found = [sum(chance for token, chance in chances if token == label) for label in LABELS]
        if not any(found):
            return math.nan
        return math.log(found[0] or least) - math.log(found[1] or least)

    def _ask(self, body: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """The first choice of the endpoint's answer, tried as often as the settings allow."""
        waited, settings = 0.0, self._settings
        for tries in range(settings.retries + 1):
            try:
                return self._post(body)
            except urllib.error.HTTPError as error:
                said = f"{error.code} {error.reason}: {_body(error)}"
                if error.code not in AGAIN:
                    raise self._refusal(error.code, said, origin) from None
                wait = _retry_after(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError) as error:
                said, wait = f"{type(error).__name__}: {error}", None
            wait = min(FIRST_WAIT * 2**tries, LONGEST_WAIT) if wait is None else wait
            if tries == settings.retries or waited + wait > settings.patience:
                break
            waited += wait
            self._wait(wait)
        raise DataError(
            f"{origin}: {self.source} gave no answer in {tries + 1} tries ({waited:.0f} s of waiting). The last said: "
            f"{self._shown(said)}. What was answered before is kept: look at the endpoint and run the command again"
        )

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        with self._open(request, timeout=self._settings.timeout) as response:
            text = response.read().decode(errors="replace")
        try:
            choice = json.loads(text)["choices"][0]
            if not isinstance(choice["message"], dict):
                raise TypeError("no message")
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"expected a chat completion in JSON, got {self._shown(text)!r}") from None
        return choice

    def _wait(self, seconds: float) -> None:
        """In pieces, so that a stop signal need not wait for it."""
        while seconds > 0:
            number = stopping.requested()
            if number is not None:
                raise Stopped(number)
            self._sleep(min(seconds, 0.5))
            seconds -= 0.5

    def _refusal(self, code: int, said: str, origin: str) -> ConfigError | DataError:
        advice = _ADVICE.get(code, "Look at the endpoint")
        kind = ConfigError if code in (401, 403, 404) else DataError
        return kind(f"{origin}: {self.source} refuses the question. It said: {self._shown(said)}. {advice}")

    def _shown(self, said: str) -> str:
        """What came back, cut, without the key that some endpoints repeat."""
        return (said.replace(self._key, "(key)") if self._key else said)[:_SHOWN].strip()


def _body(error: urllib.error.HTTPError) -> str:
    """What came with a refusal; "" where that cannot be read either."""
    try:
        return error.read(4 * _SHOWN).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After` header, which gives them or a date; None where it is missing or neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
