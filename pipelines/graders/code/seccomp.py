"""A filter of system calls: none of those that no exercise needs, and that have held most ways out of a sandbox."""

import ctypes
import errno
import platform

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_DENIED = {
    # Memory that no limit of a process counts.
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    # Namespaces of its own, in which it would have rights.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    # Other processes, and large parts of the kernel.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
_CLONE, _CLONE3 = (56, 220), 435
_CLONE_NEWUSER = 0x10000000
_LOAD, _IS, _IS_AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("true", ctypes.c_uint8), ("false", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction))]


def install() -> None:
    """Filter the calls of this process and its children from here on, on x86_64 and aarch64; elsewhere nothing.

    Needs PR_SET_NO_NEW_PRIVS. A call that is denied fails with EPERM.

    Raises:
        OSError: the kernel takes no filter.
    """
    if platform.machine() not in _ARCHITECTURES:
        return
    steps = _steps(*_ARCHITECTURES[platform.machine()])
    instructions = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _steps(architecture: int, column: int) -> list[tuple[int, int, int, int]]:
    """The filter as (code, steps to skip if true, if false, number)."""
    denied = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    steps = [(_LOAD, 0, 0, 4), (_IS, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_IS_AT_LEAST, 0, 1, _X32), denied]
    for numbers in _DENIED.values():
        steps += [(_IS, 0, 1, numbers[column]), denied]
    # Flags of clone3 lie in memory, where no filter sees them; without it the C library takes clone.
    steps += [(_IS, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    steps += [(_IS, 0, 3, _CLONE[column]), (_LOAD, 0, 0, 16), (_HAS_BITS, 0, 1, _CLONE_NEWUSER), denied]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]
