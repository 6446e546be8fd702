"""What a process in a sandbox does to itself before it loads a program: limits, another user, no rights."""

import dataclasses
import os
import resource

from pipelines.graders.code import kernel, seccomp

NOBODY = 65534


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may take.

    Attributes:
        seconds: of wall time, from loading it to the last reply; of CPU time, a process, one more.
        memory: bytes of address space a process. processes: at once, threads included, those of the sandbox too.
        files: bytes of one file, and of all in its /tmp.
    """

    seconds: float = 5.0
    memory: int = 512 << 20
    processes: int = 8
    files: int = 4 << 20


def limit_resources(limits: Limits, count_processes: bool = True) -> None:
    """Set the limits of this process and its children, which none of them can raise again without rights."""
    cpu = int(limits.seconds) + 2
    for kind, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.files),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (most, most))
    if count_processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.processes, limits.processes))


def become_nobody(user: int | None) -> None:
    """Be user 65534 of a user namespace of our own, in which nobody else is, and have no rights in it.

    The limit on processes counts those of one user in one user namespace, so no two sandboxes share a count; before
    Linux 5.14 it counts those of a user of the machine, so `user` must be nobody else's. It never binds user 0.

    Args:
        user: the number, on the outside, of whom to be; None: who we are.
    """
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else /proc/self is still root's
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as out:
            out.write(text)


def give_up_rights() -> None:
    """No capability, none by starting a program either, and no system call that no exercise needs."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    seccomp.install()
