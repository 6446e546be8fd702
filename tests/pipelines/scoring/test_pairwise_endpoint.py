"""A judge behind an OpenAI-compatible endpoint: what it is asked, what is read of its answers, and every way in which
it does not answer."""

import email.utils
import json
import math
import time

import numpy as np
import pytest
from openai_stub import endpoint, with_labels, with_text

from pipelines.host import stopping
from pipelines.host.errors import ConfigError, DataError, Stopped
from pipelines.host.parts import compute_now
from pipelines.schema.pairwise import JudgeEndpoint
from pipelines.scoring.pairwise.base import Comparison, Verdicts
from pipelines.scoring.pairwise.endpoint import EndpointJudge

pytestmark = pytest.mark.no_backend


def question(number=0):
    return Comparison("Be kind.", f"prompt {number}", "one", "two", f"rows.jsonl:{number + 1}")


def judge(url, with_reasoning=False, **settings):
    """And what it waited for."""
    waits = []
    options = JudgeEndpoint.model_validate({"base_url": url, "model": "m", **settings})
    return EndpointJudge(options, with_reasoning, 64, sleep=waits.append), waits


def ask(url, count=1, **settings):
    return judge(url, **settings)[0].decide([question(number) for number in range(count)])


def test_what_is_asked():
    with endpoint(with_labels(A=-0.1, B=-2.4), with_text("Verdict: B")) as (url, requests):
        ask(url + "/")
        ask(url, with_reasoning=True)
    first, second = (one["body"] for one in requests)
    assert [one["path"] for one in requests] == ["/v1/chat/completions"] * 2
    assert {key: first[key] for key in first if key != "messages"} == {
        "model": "m", "temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    assert "logprobs" not in second and second["max_tokens"] == 64
    (message,) = first["messages"]
    assert message["role"] == "user" and "Be kind." in message["content"] and "[Answer B]\ntwo" in message["content"]
    assert all("Authorization" not in one["headers"] for one in requests)


@pytest.mark.parametrize(
    ("chances", "choice", "odds"),
    [
        ({"A": -0.1, "B": -2.4}, 1, 2.3),
        ({"B": -0.1, "A": -2.4}, -1, -2.3),
        ({" A": math.log(0.3), "A": math.log(0.2), "B": math.log(0.25), "I": -5.0}, 1, math.log(2)),
        ({"A": -0.1, "The": -3.0}, 1, 2.9),  # B has at most the chance of the last
        ({"A": -1.0, "B": -1.0}, 0, 0.0),
    ],
)
def test_log_odds_are_those_of_the_labels(chances, choice, odds):
    with endpoint(with_labels(**chances)) as (url, _):
        found = ask(url)
    assert found.choice.tolist() == [choice] and found.log_odds == pytest.approx([odds]) and found.state.tolist() == [0]


def test_a_reply_without_a_label_is_counted_and_no_win():
    with endpoint(with_labels(I=-0.1, The=-2.0), with_text("Both are fine."), with_text(None)) as (url, _):
        found = ask(url), ask(url, with_reasoning=True), ask(url, with_reasoning=True)
    assert [(one.choice[0], one.state[0]) for one in found] == [(0, 1)] * 3
    assert found[1].answers == ["Both are fine."] and np.isnan(found[0].log_odds[0])


def test_many_questions_come_back_in_order():
    def answer(body):
        number = int(body["messages"][0]["content"].split("prompt ")[1].split()[0])
        return with_labels(**{"A" if number % 3 else "B": -0.1, "x": -9.0})

    with endpoint(default=answer) as (url, requests):
        found = ask(url, count=25, at_once=4)
    assert found.choice.tolist() == [1 if number % 3 else -1 for number in range(25)] and len(requests) == 25


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_after_waits_that_double(status):
    failure = (status, {}, b"busy")
    with endpoint(failure, failure, failure, with_labels(A=-0.1, B=-3.0)) as (url, requests):
        one, waits = judge(url, retries=3)
        assert one.decide([question()]).choice.tolist() == [1]
    assert len(requests) == 4 and sum(waits) == pytest.approx(1 + 2 + 4)


def test_the_endpoint_says_how_long_to_wait():
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    script = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": date}, b""), (429, {"Retry-After": "soon"}, b"")]
    with endpoint(*script, with_labels(A=-0.1, B=-3.0)) as (url, _):
        one, waits = judge(url)
        one.decide([question()])
    assert sum(waits) == pytest.approx(7 + 30 + 4, abs=2)


def test_silence_is_tried_again_and_then_names_the_prompt():
    with endpoint(default=2.0) as (url, requests):
        one, _ = judge(url, timeout=0.1, retries=1)
        with pytest.raises(
            DataError, match=r"rows\.jsonl:1: m at http://127\S+ gave no answer in 2 tries .*timed out.*kept"
        ):
            one.decide([question()])
    assert len(requests) == 2


def test_patience_ends_before_the_tries_do():
    with endpoint(default=(429, {"Retry-After": "50"}, b"slow down")) as (url, requests):
        one, waits = judge(url, retries=9, patience=120)
        with pytest.raises(DataError, match=r"in 3 tries \(100 s of waiting\).*429.*slow down"):
            one.decide([question()])
    assert len(requests) == 3 and sum(waits) == pytest.approx(100)


@pytest.mark.parametrize("garbage", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": "A"}]}', b"\xff"])
def test_what_is_no_completion_is_tried_again(garbage):
    with endpoint(garbage, default=garbage) as (url, requests):
        with pytest.raises(DataError, match="expected a chat completion in JSON, got"):
            ask(url, retries=0)
    assert len(requests) == 1
    with endpoint(garbage, with_labels(A=-0.1, B=-3.0)) as (url, _):
        assert ask(url).choice.tolist() == [1]


def test_a_dead_address():
    with endpoint() as (url, _):
        pass
    with pytest.raises(DataError, match="gave no answer in 1 tries.*refused"):
        ask(url, retries=0)


def test_log_probabilities_that_are_missing():
    for answer in (with_text("A"), {"choices": [{"message": {"content": "A"}, "logprobs": None}]}):
        with endpoint(answer) as (url, _), pytest.raises(ConfigError, match="no log-probabilities.*answer: reasoning"):
            ask(url)


def test_the_key_is_sent_and_never_shown(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    refusal = (401, {}, b'{"error": "Incorrect API key provided: sk-secret"}')
    with endpoint(refusal, (404, {}, b"no such model"), (400, {}, b"too long")) as (url, requests):
        with pytest.raises(ConfigError, match=r"refuses the question.*401.*\(key\).*judge\.key_variable") as error:
            ask(url, key_variable="JUDGE_KEY")
        assert "sk-secret" not in str(error.value)
        with pytest.raises(ConfigError, match="404.*no such model.*judge.base_url"):
            ask(url)
        with pytest.raises(DataError, match="400.*too long.*context length"):
            ask(url)
    assert [one["headers"].get("Authorization") for one in requests] == ["Bearer sk-secret", None, None]
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match="JUDGE_KEY is not set"):
        judge("http://localhost:1/v1", key_variable="JUDGE_KEY")


def test_the_key_goes_nowhere_else(monkeypatch):
    """Neither to where the endpoint points, nor does a key of the Hub go to the endpoint."""
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with endpoint(default=with_labels(A=-0.1, B=-1.0)) as (elsewhere, reached):
        with endpoint((307, {"Location": f"{elsewhere}/chat/completions"}, b"")) as (url, _):
            with pytest.raises(DataError, match="307"):
                ask(url, key_variable="JUDGE_KEY")
        ask(elsewhere)
    assert len(reached) == 1 and "hf_secret" not in json.dumps(reached)


def test_nothing_that_was_answered_is_asked_again():
    """A part is kept before the next is asked; what failed is asked for by the next start alone."""
    kept = {}

    def keep(name, compute, of=None):
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    good, asked = with_labels(A=-0.1, B=-3.0), [question(number) for number in range(6)]
    with endpoint(good, good, good, good, default=(500, {}, b"")) as (url, requests):
        with pytest.raises(DataError):
            judge(url, retries=0, at_once=2)[0].decide(asked, keep)
        assert sorted(kept) == ["0", "1"]
        before = len(requests)
    with endpoint(default=good) as (url, requests):
        found = judge(url, at_once=2)[0].decide(asked, keep)
    assert before >= 5 and len(requests) == 2 and found.choice.tolist() == [1] * 6


def test_verdicts_survive_as_arrays():
    whole = Verdicts(
        np.array([1, 0], np.int8), np.array([0, 1], np.int8), np.array([0.5, np.nan]), ["Δ \ud800"[:1], ""]
    )
    again = Verdicts.of_arrays(compute_now("0", whole.arrays))
    assert again.answers == whole.answers and again.choice.tolist() == [1, 0] and np.isnan(again.log_odds[1])
    assert len(Verdicts.joined([])) == 0 and len(Verdicts.joined([whole, again])) == 4


def test_a_stop_signal_does_not_wait_for_the_endpoint(monkeypatch):
    monkeypatch.setattr(stopping, "requested", lambda: 15)
    with endpoint(default=(503, {}, b"")) as (url, _), pytest.raises(Stopped):
        ask(url)
