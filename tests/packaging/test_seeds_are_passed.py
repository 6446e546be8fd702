"""Stages draw by their own keys: no file of the pipelines samples, shuffles or starts weights without a seed."""

import ast

import pytest

pytestmark = pytest.mark.no_backend

# Without a seed these draw anew each time, or by a process-wide state.
_ASK_FOR_SEED = ("generate", "stream")
_COMMANDS = ("talk.generate",)  # a function of that name which is no model's
_PROCESS_WIDE = ("np.random.", "numpy.random.", "keras.random.")


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def without_seed(source: str) -> list[str]:
    """What in a source file draws without a key: `model.generate(...)` without `seed=`, and process-wide generators."""
    tree = ast.parse(source)
    found = []
    for call in calls(tree):
        name = ast.unparse(call.func)
        if isinstance(call.func, ast.Attribute) and call.func.attr in _ASK_FOR_SEED and name not in _COMMANDS:
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            seed = given.get("seed")
            if seed is None or (isinstance(seed, ast.Constant) and seed.value is None):
                found.append(f"line {call.lineno}: {name} without seed=")
        if name.startswith(_PROCESS_WIDE):
            found.append(f"line {call.lineno}: {name}")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    return found + [f"line {each.lineno}: import random" for each in imports if each.names[0].name == "random"]


def test_no_stage_draws_without_a_key(repository):
    found = {}
    for file in sorted((repository / "pipelines").rglob("*.py")):
        drawn = without_seed(file.read_text(encoding="utf-8"))
        if drawn:
            found[str(file.relative_to(repository))] = drawn
    assert found == {}


@pytest.mark.parametrize(
    "line, is_found",
    [
        ("model.generate(x)", True),
        ("model.generate(x, seed=None)", True),
        ("model.stream(x, max_length=3)", True),
        ("model.generate(x, seed=options.seed)", False),
        ("np.random.default_rng(3)", True),
        ("import random", True),
        ("uniforms(seed, 'a', shape=3)", False),
    ],
)
def test_the_search_finds_them(line, is_found):
    assert bool(without_seed(line)) == is_found
