"""What of a user's files is a reward, read without running it; and running it, from the bytes whose digest was
taken."""

import hashlib
import sys
import threading

import pytest
from reward_package import install

from pipelines.host.errors import ConfigError
from pipelines.plugins import sources
from pipelines.plugins.loading import load
from pipelines.plugins.sources import functions_in, installed_function

pytestmark = pytest.mark.no_backend

SOURCE = '''\
"""Rewards of a test."""
import dataclasses, re

LONGEST = 3

@dataclasses.dataclass
class Grade:
    value: float

def positional(prompts, completions, **columns):
    return [float(len(text) <= LONGEST) for text in completions]

def by_ids(completion_ids, **kwargs):
    return [Grade(0.5).value for _ in completion_ids]

def keyword_only(*, completions):
    return [None for _ in completions]

async def asynchronous(completions, **kwargs):
    return [1.0 for _ in completions]

@staticmethod
def decorated(completions, **kwargs):
    return [2.0 for _ in completions]

def _private(prompts, completions): return []
def helper(text): return text
def only_prompts(prompts): return prompts
class Completions:
    def method(self, completions): return []
if True:
    def hidden(completions): return []
from re import compile as completions
'''


@pytest.fixture
def write(tmp_path):
    def write(text, name="my_rewards.py"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_public_functions_that_take_completions_are_rewards(write):
    path = write(SOURCE)
    found = functions_in([path], ())
    assert {name: one.origin.removeprefix(f"{path}:") for name, one in found.items()} == {
        "positional": "10", "by_ids": "13", "keyword_only": "16", "asynchronous": "19", "decorated": "23",
    }  # fmt: skip
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert {(one.digest, one.version, one.file) for one in found.values()} == {(digest, digest, str(path))}


def test_a_file_that_is_named_twice_counts_once_and_the_last_of_a_name(write, monkeypatch, tmp_path):
    path = write("def a(completions): return [1]\n\ndef a(completions): return [2]\n")
    monkeypatch.chdir(tmp_path)
    found = functions_in([path, "./my_rewards.py"], ())
    assert found["a"].origin == f"{path}:3" and load(found["a"])([""]) == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", r"my_rewards.py:1: no valid Python: "),
        ("x = 1\n\ndef f(completions)\n", r"my_rewards.py:3: no valid Python: "),
        ("x = '\0'\n", r"my_rewards.py:1: no valid Python: source code string cannot contain null bytes"),
        ("def f(texts): return texts\n", r"my_rewards.py:1: no reward in it; expected a public function that takes "
         r"`completions`, such as: def polite\(prompts, completions, \*\*columns\)"),
        ("def gold(completions): pass\n", r"my_rewards.py:1: the reward 'gold' has the name of a shipped one; give it "
         r"another, or one with _ in front if it is no reward"),
    ],
)  # fmt: skip
def test_a_file_that_will_not_do(write, text, message):
    with pytest.raises(ConfigError, match=message):
        functions_in([write(text)], ("gold",))


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"--plugin .*nowhere.py: cannot be read \(No such file or directory\)"):
        functions_in([tmp_path / "nowhere.py"], ())
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\); expected a Python file"):
        functions_in([tmp_path], ())


def test_one_name_in_two_files(write):
    first, second = write("def a(completions): pass\n", "one.py"), write("\ndef a(completions): pass\n", "two.py")
    with pytest.raises(ConfigError, match=f"{second}:2: the reward 'a' is defined at {first}:1 too; rename one"):
        functions_in([first, second], ())


def test_the_function_runs(write):
    found = functions_in([write(SOURCE)], ())
    assert load(found["positional"])(prompts=["a", "a"], completions=["abc", "abcd"]) == [1.0, 0.0]
    # Dataclasses look their module up by its name; the file ran once, and left nothing beside it.
    assert load(found["by_ids"])(completion_ids=[[1]]) == [0.5]
    assert load(found["positional"]).__globals__ is load(found["by_ids"]).__globals__


def test_no_compiled_file_is_left_and_none_is_read(write, tmp_path):
    path = write("def a(completions): return [1]\n")
    assert load(functions_in([path], ())["a"])([""]) == [1]
    path.write_text("def a(completions): return [2]\n")  # within the same second, of the same size
    assert load(functions_in([path], ())["a"])([""]) == [2]
    assert [one.name for one in tmp_path.iterdir()] == ["my_rewards.py"]


def test_a_file_that_changed_under_the_run_is_refused(write):
    path = write("def a(completions): return [1]\n")
    function = functions_in([path], ())["a"]
    path.write_text("def a(completions): return [3]\n")
    with pytest.raises(ConfigError, match=f"{path}: changed since the run began, and the reward 'a' stands in it; run"):
        load(function)
    path.unlink()
    with pytest.raises(ConfigError, match=f"{path}: the reward 'a' cannot be read"):
        load(function)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 / 0", r"my_rewards.py:3: the file of the reward 'a' cannot be imported: ZeroDivisionError: division by "
         r"zero\.$"),
        ("import my_neighbour", r":3: .* ModuleNotFoundError: No module named 'my_neighbour'\. The file is read alone, "
         r"since its digest stands in the stage's key; what it imports must be an installed package\.$"),
        ("raise SystemExit(0)", r":3: .*SystemExit: 0"),
        ("del a", r"my_rewards.py:1: the reward 'a' is no function; got None"),
        ("a = 3", r"the reward 'a' is no function; got 3"),
    ],
)  # fmt: skip
def test_a_file_that_fails_where_it_is_run(write, line, message):
    write("", "my_neighbour.py")
    function = functions_in([write(f"def a(completions): return [1]\n\n{line}\n")], ())["a"]
    before = set(sys.modules)
    with pytest.raises(ConfigError, match=message):
        load(function)
    assert "my_neighbour" not in sys.modules
    if "no function" not in message:
        assert set(sys.modules) == before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with rewards, of which nothing has been imported."""
    files = {
        "brought_along/__init__.py": "raise RuntimeError('imported')\n",
        "brought_along/inner/__init__.py": "",
        "flat_rewards.py": "class Rewards:\n    @staticmethod\n"
        "    def kind(completions, **k): return [1.0 for _ in completions]\n",
    }
    rewards = {
        "kind": "flat_rewards:Rewards.kind", "deep": "brought_along.inner:f", "gone": "brought_along.nowhere:f",
    }  # fmt: skip
    install(tmp_path / "site", monkeypatch, files, rewards)
    yield tmp_path / "site"
    sys.modules.pop("flat_rewards", None)


def test_an_installed_package_is_found_and_nothing_of_it_imported(package):
    assert set(sources.installed()) == {"kind", "deep", "gone"}
    found = installed_function(sources.installed()["deep"])
    file = package / "brought_along" / "inner" / "__init__.py"
    assert (found.name, found.origin, found.file) == ("deep", "brought_along.inner:f", str(file))
    assert found.digest == hashlib.sha256(b"").hexdigest()
    assert found.version == f"brought 1.0, {found.digest}"
    assert not {"brought_along", "flat_rewards"} & set(sys.modules)
    with pytest.raises(
        ConfigError, match="'gone' is announced as brought_along.nowhere:f, and there is no such module"
    ):
        installed_function(sources.installed()["gone"])


def test_an_installed_function_runs(package):
    function = installed_function(sources.installed()["kind"])
    assert load(function)(completions=["", ""]) == [1.0, 1.0]
    with pytest.raises(
        ConfigError, match="brought_along.inner:f: the file of the reward 'deep' cannot be imported: RuntimeError: imp"
    ):
        load(installed_function(sources.installed()["deep"]))


def test_threads_do_not_matter(write):
    """A stage of `--in-process` may run in any."""
    function, found = functions_in([write(SOURCE)], ())["by_ids"], []
    thread = threading.Thread(target=lambda: found.append(load(function)(completion_ids=[[1], [2]])))
    thread.start()
    thread.join()
    assert found == [[0.5, 0.5]]
