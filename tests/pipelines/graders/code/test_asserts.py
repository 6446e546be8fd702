"""Tests run here, the program answers from elsewhere: what passes, what fails, what is no fault of the program's."""

import json

import pytest

from pipelines.graders.code.asserts import BadTests, Program, ProgramFailed, names_under_test, run_tests
from pipelines.graders.code.literals import from_text, to_text

pytestmark = pytest.mark.no_backend


class Scripted:
    """A sandbox that answers with what a test says, and keeps what it was sent."""

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def send(self, line, deadline):
        self.seen.append(json.loads(line))
        return True

    def receive(self, deadline, most):
        request = self.seen[-1]
        if "source" in request:
            return json.dumps({"id": request["id"], "value": "null"}).encode()
        args, kwargs = from_text(request["arguments"])
        reply = self.answer(request["name"], *args, **kwargs)
        return (
            reply if reply is None or isinstance(reply, bytes) else json.dumps({"id": request["id"], **reply}).encode()
        )


def program(answer):
    return Program(Scripted(answer), "source", 5.0)


def right(name, *args, **kwargs):
    return {"value": to_text(args[0] + 1 if args else kwargs["x"] + 1)}


CHECK = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(x=2) == 3\n"


@pytest.mark.parametrize(
    ("tests", "entry_point"),
    [
        (CHECK, "f"),
        ("assert f(1) == 2\nassert f(2) == 3", "f"),
        ("assert f(1) == 2", None),
        ("assert sum(1) == 2", None),
    ],
)
def test_a_right_program_passes(tests, entry_point):
    run_tests(program(right), tests, entry_point)


@pytest.mark.parametrize(
    ("tests", "entry_point"),
    [
        (CHECK, "f"),
        ("assert f(2) == 3\nassert f(1) == 2", "f"),
        ("assert f(1) == 2", None),
        ("assert sum(1) == 2", None),
    ],
)
def test_a_wrong_program_fails(tests, entry_point):
    with pytest.raises(AssertionError):
        run_tests(program(lambda name, x: {"value": "3"}), tests, entry_point)


def test_the_source_is_all_that_is_sent_before_the_first_call_and_arguments_all_after():
    there = Scripted(right)
    run_tests(Program(there, "source", 5.0), "assert f(1) == 2, 'expected two'", "f")
    (loading, call) = there.seen
    assert set(loading) == {"id", "source"} and loading["source"] == "source"
    assert set(call) == {"id", "name", "arguments"} and from_text(call["arguments"]) == ([1], {})
    assert loading["id"] != call["id"] and len(call["id"]) == 32


@pytest.mark.parametrize(
    "reply",
    [
        b'{"value": "2"}', b'{"id": "0", "value": "2"}', b"2", b"[2]", b"null", b"", b"\xff", b"[" * 100_000, None,
        {"raised": "ValueError: 2"}, {"value": 2}, {"value": None}, {"value": "x"}, {}, {"value": '{"set": [[]]}'},
    ],
)  # fmt: skip
def test_what_is_no_answer_fails_and_no_test_can_swallow_it(reply):
    hides = "try:\n    f(1)\nexcept Exception:\n    pass\n"
    with pytest.raises(ProgramFailed):
        run_tests(program(lambda name, x: reply), hides, "f")


def test_a_failure_stays_one():
    replies = iter([None, {"value": "2"}])
    swallow = "try:\n    f(1)\nexcept BaseException:\n    pass\nassert f(1) == 2\n"
    with pytest.raises(ProgramFailed, match="it ended"):
        run_tests(program(lambda name, x: next(replies)), swallow, "f")


def test_helpers_are_ours_even_where_the_program_has_the_name():
    """HumanEval/32 compares by `poly`, which stands in its prompt."""
    asked = []

    def answer(name, x):
        asked.append(name)
        return {"value": "5"}

    helpers = "def poly(x):\n    return x - 2\n\ndef f(x):\n    '''to do'''\n"
    with pytest.raises(AssertionError):
        run_tests(program(answer), "def check(candidate):\n    assert poly(candidate(1)) == 0\n", "f", helpers)
    assert asked == ["f"]


@pytest.mark.parametrize(
    ("tests", "entry_point", "said"),
    [
        ("assert f(1) ==", "f", "no Python"),
        ("assert f(1)\0", "f", "no Python"),
        ("assert 1 == 1", "f", "do not call"),
        ("def check(candidate):\n    pass", "f", "do not call"),
        (CHECK, None, "give `entry_point`"),
    ],
)
def test_bad_tests_are_no_verdict(tests, entry_point, said):
    with pytest.raises(BadTests, match=said):
        run_tests(program(right), tests, entry_point)


def test_names_that_nothing_defines_are_the_programs():
    source = "import math, os.path as p\nroot = Node(1)\nassert set(f([x for x in range(3)])) == math.floor(p.sep)"
    assert names_under_test(source) == {"Node", "f"}
    assert names_under_test("assert sum(10, 15) == 6\nassert max(1) == 1") == {"sum"}
