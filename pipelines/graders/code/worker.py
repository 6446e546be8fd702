"""What runs in a sandbox: loads a program and answers calls of its functions, one line a call.

Nothing that comes from here is believed: from the moment the program is loaded, a line may be the program's own. It is
told what to compute, never what is expected, so that the best forgery is the right result.
"""

import builtins
import json
import os
import select
import sys
import types
from typing import Any, BinaryIO

from pipelines.graders.code import confine
from pipelines.graders.code.literals import from_text, to_text


def main(settings: dict[str, Any]) -> None:
    """Confine this process, say so, and answer until the other end closes.

    In namespaces this is process 1, whose end is that of all others there. It leaves the program to a child and itself
    only waits: no signal from within ends process 1. It is as confined as the child, which gains nothing by it.

    Args:
        settings: `limits` of `confine.Limits`; `isolated`, whether there are namespaces around; `user` of
            `become_nobody`, if `renames`.
    """
    if settings["renames"]:
        confine.become_nobody(settings["user"])
    confine.limit_resources(confine.Limits(**settings["limits"]), count_processes=settings["isolated"])
    if settings["isolated"]:
        confine.give_up_rights()
        _wait_for_a_child()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    serve(requests, replies)


def _wait_for_a_child() -> None:
    """Return in a child; here, end when it has, or when nobody is left to send requests.

    The kernel's own signal of a parent's death (PR_SET_PDEATHSIG) does not do: it needs the parent's right to send it.
    """
    child = os.fork()
    if child:
        for number in (1, 2):
            os.close(number)
        ends = select.poll()
        ends.register(os.pidfd_open(child), select.POLLIN)
        ends.register(0, 0)  # a hang-up is told unasked
        ends.poll()
        os._exit(0)


def serve(requests: BinaryIO, replies: Any) -> None:
    """Answer each line of `requests` by one line.

    The first request has the `source`, the others a `name`, and `args` and `kwargs` as texts of `literals.py`. A reply
    repeats the request's `id` and has a `value`, a text too, or what was `raised`.
    """
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    _say(replies, {"ready": True})
    for line in requests:
        request = json.loads(line)
        try:
            if "source" in request:
                exec(compile(request["source"], "candidate.py", "exec"), module.__dict__)  # noqa: S102
                value = None
            else:
                args, kwargs = from_text(request["arguments"])
                value = vars(module)[request["name"]](*args, **kwargs)
            reply = {"value": to_text(value)}
        except BaseException as error:
            reply = {"raised": _said(error)}
        _say(replies, {"id": request["id"], **reply})


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return builtins.str(type(error))[:300]


def _say(replies: Any, reply: dict[str, Any]) -> None:
    line = json.dumps(reply).encode() + b"\n"
    while line:
        line = line[replies.write(line) :]
