"""The program in what a model wrote: a fenced block, a whole program, or what goes on from the prompt."""

import re

_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = frozenset({"", "py", "python", "python3"})
_STOPS = re.compile(r"\n(?=class\b|def\b|@|#|if\b|print\b|assert\b|```)")
"""Where a continuation ends: a base model goes on with the next exercise. lm-eval's `until` for HumanEval, and more."""


def extract_code(answer: str, prompt: str = "", entry_point: str | None = None) -> str:
    """The program that an answer stands for.

    1. Of the fenced blocks in Python, the first that defines `entry_point`, else the first; one that is not closed
       goes to the end. Without a block the answer itself.
    2. A program that defines `entry_point` is taken whole, behind what stands before the function in the prompt: its
       imports and helpers.
    3. Anything else goes on from the prompt; without fences up to the next thing that is no part of the function.

    Args:
        answer: what a model wrote. prompt: source that ends where the answer goes on, such as HumanEval's; "": none.
        entry_point: the function asked for; None: with a prompt, any answer goes on from it.
    """
    blocks = [match[3] for match in _FENCE.finditer(answer) if match[2].lower() in _PYTHON]
    text = next((block for block in blocks if _defines(block, entry_point)), blocks[0] if blocks else answer)
    if not prompt:
        return text
    if _defines(text, entry_point):
        return f"{_before(prompt, entry_point)}{text}"
    return prompt + (text if blocks else _STOPS.split(text)[0])


def _definition(name: str | None) -> str:
    return rf"^(?:async\s+)?(?:def|class)\s+{re.escape(name or '')}\b"


def _defines(text: str, name: str | None) -> bool:
    return name is not None and re.search(_definition(name), text, re.MULTILINE) is not None


def _before(prompt: str, name: str | None) -> str:
    found = re.search(_definition(name), prompt, re.MULTILINE)
    return prompt[: found.start()] if found else ""
