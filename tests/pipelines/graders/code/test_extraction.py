"""The program in an answer."""

import pytest

from pipelines.graders.code.extraction import extract_code

pytestmark = pytest.mark.no_backend
PROMPT = 'import math\n\n\ndef helper():\n    return 1\n\n\ndef f(x):\n    """Add one."""\n'
BEFORE = "import math\n\n\ndef helper():\n    return 1\n\n\n"
PROGRAM = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f"Here:\n```python\n{PROGRAM}```\nDone.", PROGRAM),
        (f"```\n{PROGRAM}```", PROGRAM),
        (f"```Python3 title=x\n{PROGRAM}```", PROGRAM),
        (f"~~~py\n{PROGRAM}~~~", PROGRAM),
        (f"````python\n{PROGRAM}````", PROGRAM),
        (f"```python\n{PROGRAM}", PROGRAM),
        (f"```bash\npip install x\n```\n```python\n{PROGRAM}```", PROGRAM),
        (f"```python\nf(1)\n```\n```python\n{PROGRAM}```\n```python\ndef f(x): pass\n```", PROGRAM),
        ("```python\nother = 1\n```\n```python\nx = 2\n```", "other = 1\n"),
        (PROGRAM, PROGRAM),
        ("", ""),
    ],
)
def test_without_a_prompt_it_is_the_block_or_all(answer, expected):
    assert extract_code(answer, entry_point="f") == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("    return x + 1\n", f"{PROMPT}    return x + 1\n"),
        ("    return x + 1\n\n\ndef g():\n    pass\n", f"{PROMPT}    return x + 1\n\n"),
        ("    return 1\n# next\n", f"{PROMPT}    return 1"),
        ("    y = 1\n    # in\n    return y\n", f"{PROMPT}    y = 1\n    # in\n    return y\n"),
        ("    return 1\nprint(f(1))\n", f"{PROMPT}    return 1"),
        ("    return 1\ndefault = 2\n", f"{PROMPT}    return 1\ndefault = 2\n"),
        ("```python\n    return 1\n```", f"{PROMPT}    return 1\n"),
        (f"```python\n{PROGRAM}```", BEFORE + PROGRAM),
        (f"{PROGRAM}", BEFORE + PROGRAM),
        ("```python\ndef ff(x):\n    return 1\n```", f"{PROMPT}def ff(x):\n    return 1\n"),
    ],
)  # fmt: skip
def test_with_a_prompt_it_goes_on_from_it_or_keeps_its_helpers(answer, expected):
    assert extract_code(answer, PROMPT, "f") == expected


def test_many_fences_take_no_quadratic_time():
    assert extract_code("```python\n" + "~~~\n" * 20_000, entry_point="f")
