"""Plain data there and back: the same value of exactly the same types, and nothing else gets through."""

import collections
import enum
import math
import time

import pytest

from pipelines.graders.code.literals import MAX_BYTES, MAX_DEPTH, MAX_HASHED, NotPlain, from_text, to_text

pytestmark = pytest.mark.no_backend


def types_of(value):
    if isinstance(value, dict):
        return (dict, sorted((repr(key), types_of(key), types_of(one)) for key, one in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return (type(value), sorted(map(repr, map(types_of, value))))
    return type(value)


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 10**300, 1.0, -0.0, 0.1, 1e308, 5e-324, math.inf, -math.inf, 1 + 2j, complex(0, -0.0),
        "", "a\n\"'\\\x00é\ud800😀", b"", b"\x00\xff", [], (), {}, set(), frozenset(), (1,), ((),),
        [1, [2.0, (3, "x")]], {1: "a", (2, "b"): [3], None: {}}, {"tuple": [1]}, {"value": {"set": []}}, {1, 2},
        frozenset({(1, 2)}), {frozenset({1})},
    ],
    ids=repr,
)  # fmt: skip
def test_a_value_comes_back_as_it_was(value):
    text = to_text(value)
    back = from_text(text)
    assert back == value and types_of(back) == types_of(value) and repr(back) == repr(value)
    assert text.isascii() and "\n" not in text


def test_nan_comes_back():
    assert math.isnan(from_text(to_text(math.nan)))


class Equal(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class Color(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.namedtuple("Pair", "a b")(1, 2), (1, 2)),
        (collections.OrderedDict(a=1), {"a": 1}),
        ([Equal(3)], [3]),
        (Color.RED, 3),
    ],
    ids=str,
)
def test_no_subclass_gets_through(value, plain):
    back = from_text(to_text(value))
    assert back == plain and types_of(back) == types_of(plain)
    assert [Equal(3)] != from_text(to_text([Equal(3)])) or back != [4]


@pytest.mark.parametrize("value", [object(), int, len, iter([]), (one for one in []), range(3), [object()], {1: ...}])
def test_what_is_no_plain_data_is_refused(value):
    with pytest.raises(NotPlain):
        to_text(value)


@pytest.mark.parametrize(
    ("within", "text"),
    [
        (lambda value: [value], "[{}]"),
        (lambda value: (value,), '{{"tuple": [{}]}}'),
        (lambda value: frozenset({value}), '{{"frozenset": [{}]}}'),
        (lambda value: {"a": value}, '{{"dict": [["a", {}]]}}'),
    ],
)
def test_the_depth_is_limited_on_both_sides(within, text):
    def nested(form, value, depth):
        for _ in range(depth):
            value = form(value)
        return value

    value = nested(within, 1, MAX_DEPTH)
    assert from_text(to_text(value)) == value
    with pytest.raises(NotPlain, match="nested deeper than 50"):
        to_text(nested(within, 1, MAX_DEPTH + 1))
    with pytest.raises(NotPlain, match="nested deeper than 50"):
        from_text(nested(text.format, "1", MAX_DEPTH + 1))


def test_the_depth_of_a_key_counts_too():
    key = '{"tuple": [' * (MAX_DEPTH - 1) + "1" + "]}" * (MAX_DEPTH - 1)
    assert len(from_text(f'{{"dict": [[{key}, 1]]}}')) == 1
    with pytest.raises(NotPlain, match="nested deeper than 50"):
        from_text(f'{{"dict": [[{{"tuple": [{key}]}}, 1]]}}')


def test_what_contains_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(NotPlain):
        to_text(endless)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1 2", "[1", "{}", '{"tuple": [], "set": []}', '{"tuple": 1}', '{"bytes": "0"}', '{"bytes": []}',
        '{"complex": [1, 2]}', '{"complex": [1.0]}', '{"set": [[]]}', '{"dict": [[1]]}', '{"dict": [[[], 1]]}',
        '{"dict": [1]}', '{"list": []}', '{"__reduce__": []}', "9" * 5000, "[" * 100_000, '{"tuple": [' * 100_000,
        "-" * 100_000 + "1", b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_a_text_that_stands_for_nothing_is_refused(text):
    with pytest.raises(NotPlain):
        from_text(text)


def test_the_size_is_limited_on_both_sides():
    longest = "x" * (MAX_BYTES - len('""'))
    assert from_text(to_text(longest)) == longest
    with pytest.raises(NotPlain, match="characters, expected at most"):
        to_text(longest + "x")
    with pytest.raises(NotPlain, match="characters, expected at most"):
        from_text(" " * (MAX_BYTES + 1))
    with pytest.raises(NotPlain):
        to_text(10**5000)


def test_hashes_that_collide_take_no_minutes():
    """Integers that differ by 2^61 - 1 have one hash: a set of n takes n^2 / 2 steps to build."""
    same = [str(one * (2**61 - 1)) for one in range(MAX_HASHED)]
    started = time.process_time()
    assert len(from_text(f'{{"set": [{", ".join(same)}]}}')) == MAX_HASHED
    assert time.process_time() - started < 5
    for text in ('{"set": [%s, 1]}', '{"frozenset": [%s, 1]}'):
        with pytest.raises(NotPlain, match="10001 members, expected at most 10000"):
            from_text(text % ", ".join(same))
    with pytest.raises(NotPlain, match="10001 members"):
        from_text(f'{{"dict": {[[one, 1] for one in range(MAX_HASHED + 1)]}}}')
