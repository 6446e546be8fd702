"""A user's reward function gets what TRL's trainers would hand to it, and what it gives is made sure of."""

import math
import textwrap
import time

import numpy as np
import pytest

from pipelines.data.columns import Prompt
from pipelines.host.errors import ConfigError, DataError
from pipelines.plugins.loading import load
from pipelines.plugins.sources import functions_in
from pipelines.scoring.user_rewards import Samples, UserReward

pytestmark = [pytest.mark.no_backend, pytest.mark.timeout(60, method="thread")]

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 3?"}]


@pytest.fixture
def reward(tmp_path):
    """A function of a file with this source, ready to be called."""

    def reward(source, name="f", seconds=5.0):
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(source))
        about = functions_in([path], ())[name]
        return UserReward(about, load(about), seconds)

    return reward


def samples(*texts, answers=None, columns=None, prompts=None):
    asked = [
        Prompt(
            prompts[i] if prompts else f"p{i + 1}",
            answers[i] if answers else None,
            f"rows.jsonl:{i + 1}",
            columns=columns[i] if columns else {},
        )
        for i in range(len(texts))
    ]
    return Samples(asked, list(texts), [[i, 1] for i in range(len(texts))])


SEEN = """
seen = {}
def f(prompts, completions, **columns):
    seen.clear()
    seen.update(columns, prompts=prompts, completions=completions)
    return [0.0] * len(prompts)
"""


def seen_by(function, given):
    function(given)
    return function._function.__globals__["seen"]


def test_texts_ids_and_columns_as_trl_hands_them_over(reward):
    """A column that is missing in a row is None there; what has a meaning of its own is no column."""
    rows = [
        {"prompt": "p1", "question": "q1", "level": 3, "completion": "x", "completion_ids": [7], "prompts": 1},
        {"prompt": "p2", "question": "q2", "solution": None, "trainer_state": 1},
    ]
    assert seen_by(reward(SEEN), samples("a", "b", answers=["1", None], columns=rows)) == {
        "prompts": ["p1", "p2"], "completions": ["a", "b"], "completion_ids": [[0, 1], [1, 1]],
        "answer": ["1", None], "question": ["q1", "q2"], "level": [3, None], "solution": [None, None],
    }  # fmt: skip


def test_a_conversation_comes_as_messages_and_without_answers_there_is_none(reward):
    found = seen_by(reward(SEEN), samples("6", "b", prompts=[TURNS, "p"]))
    assert found == {
        "prompts": [TURNS, "p"], "completions": [[{"role": "assistant", "content": "6"}], "b"],
        "completion_ids": [[0, 1], [1, 1]],
    }  # fmt: skip


def test_the_named_answer_stands_before_a_column_of_that_name(reward):
    found = seen_by(reward(SEEN), samples("a", answers=["4"], columns=[{"answer": 4.0}]))
    assert found["answer"] == ["4"]


def test_what_a_function_does_to_its_arguments_stays_there(reward):
    given = samples("6", prompts=[TURNS])
    function = reward(
        """
        def f(prompts, completions, completion_ids):
            prompts[0][1]["content"] = "changed"
            prompts[0].pop(0)
            completions.clear(), completion_ids[0].clear()
            return [1]
        """
    )
    before = [{**turn} for turn in TURNS]
    assert function(given).tolist() == [1.0]
    assert before == TURNS == given.prompts[0].prompt and given.ids == [[0, 1]] and given.texts == ["6"]


def test_numbers_of_any_kind_and_none(reward):
    function = reward(
        """
        import numpy as np
        def f(completions):
            return (value for value in [1, True, None, np.float32(0.5), np.array(-2.0), 1e300])
        """
    )
    found = function(samples(*"abcdef"))
    assert found.dtype == np.float64
    assert found[[0, 1, 3, 4, 5]].tolist() == [1.0, 1.0, 0.5, -2.0, 1e300] and math.isnan(found[2])


def test_an_array_and_an_asynchronous_function(reward):
    assert reward("import numpy\ndef f(completions): return numpy.arange(2)")(samples("a", "b")).tolist() == [0, 1]
    function = reward(
        """
        import asyncio
        async def f(completions, **kwargs):
            await asyncio.sleep(0)
            return [2.0 for _ in completions]
        """
    )
    assert function(samples("a")).tolist() == [2.0]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        # Which response it was is found by calls with each alone.
        ("def f(completions):\n    for text in completions:\n        if text == 'b':\n"
         "            raise ValueError('no b here')\n    return [1.0] * len(completions)", DataError,
         r"^rows.jsonl:2: the reward 'f' failed at \S+mine.py:4 with ValueError: no b here, on the response 'b' to the "
         r"prompt 'p2'$"),
        ("def f(completions):\n    if len(completions) > 1:\n        raise ValueError('too many')\n    return [1.0]",
         DataError, r"^rows.jsonl:1: the reward 'f' failed at \S+mine.py:3 with ValueError: too many, on 3 responses "
         r"together, and on none alone; the first is the response 'a' to the prompt 'p1'$"),
        ("import re\ndef f(completions):\n    return re.search(completions[0] + '(', '')", DataError,
         r"rows.jsonl:1: the reward 'f' failed at \S+mine.py:3 with (re\.)?(error|PatternError): missing \)"),
        ("def f(completions):\n    raise SystemExit(0)", DataError, r"failed at \S+mine.py:2 with SystemExit: 0"),
        ("def f(completions):\n    yield 1.0\n    raise KeyError('x')", DataError, r"mine.py:3 with KeyError: 'x'"),
        ("def f(completions):\n    return [1.0, float('nan'), 2.0]", DataError,
         r"^rows.jsonl:2: the reward 'f' \(\S+mine.py:1\) is nan for the response 'b' to the prompt 'p2'; expected a "
         r"finite number, or None where it does not apply$"),
        ("def f(completions):\n    return [1.0, 0.0, -float('inf')]", DataError, r"rows.jsonl:3: .* is -inf for"),
        ("def f(completions):\n    return [1.0, '0.5', 2.0]", DataError, r"rows.jsonl:2: .* is the text '0.5' for"),
        ("def f(completions):\n    return [1.0, [2.0], 2.0]", DataError, r"rows.jsonl:2: .* is a list for"),
        ("def f(completions):\n    return [1.0, 2.0]", ConfigError,
         r"^\S+mine.py:1: the reward 'f' returned 2 results for 3 responses; expected a number, or None where it does "
         r"not apply, for each$"),
        ("def f(completions):\n    return 0.5", ConfigError,
         r"mine.py:1: the reward 'f' returned 0.5; expected a list with a number, or None where it does not apply, for "
         r"each of 3 responses"),
        ("def f(completions):\n    return {'a': 1}", ConfigError, r"returned a mapping; expected a list"),
        ("def f(completions):\n    return 'abc'", ConfigError, r"returned the text 'abc'; expected a list"),
        ("def f(completions): pass", ConfigError, r"returned nothing; expected a list"),
        ("def f(completions, solution): pass", ConfigError,
         r"mine.py:1: the reward 'f' needs 'solution', which the rows do not have; it can take level, prompts, "
         r"completions, completion_ids\. See docs/rewards.md"),
        ("def f(completions, trainer_state, **kwargs): pass", ConfigError,
         r"needs 'trainer_state', .*completion_ids\. That is TRL's own, and optional here: give it a default\. See"),
        ("def f(completions, answer, **kwargs): pass", ConfigError, r"needs 'answer', which the rows do not have"),
    ],
)  # fmt: skip
def test_errors_name_the_function_and_the_row(reward, source, kind, message):
    with pytest.raises(kind, match=message):
        reward(source)(samples("a", "b", "c", columns=[{"level": 1}] * 3))


def test_a_response_that_takes_too_long_is_named(reward):
    function = reward(
        """
        import time
        def f(completions):
            for text in completions:
                time.sleep(9 if text == 'b' else 0)
            return [1.0] * len(completions)
        """,
        seconds=0.5,
    )
    started = time.monotonic()
    message = (
        r"^rows.jsonl:2: the reward 'f' \(\S+mine.py:3\) took over 0.5 s for 5 responses, over 0.1 s of it on the "
        r"response 'b' to the prompt 'p2'$"
    )
    with pytest.raises(DataError, match=message):
        function(samples(*"abcde"))
    assert time.monotonic() - started < 2


def test_many_that_are_slow_together_only(reward):
    function = reward(
        "import time\ndef f(completions):\n    time.sleep(9 * (len(completions) > 1))\n    return [1.0]", seconds=0.2
    )
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* took over 0.2 s for 2 responses, the first is the response"):
        function(samples("a", "b"))


def test_long_texts_are_cut_in_messages(reward):
    with pytest.raises(DataError) as caught:
        reward("def f(completions): return [None, float('nan')]")(samples("a", "b" * 5000))
    assert len(str(caught.value)) < 600
