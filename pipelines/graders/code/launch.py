"""The outer process of a sandbox without bubblewrap: namespaces by `unshare`, a root of its own, then the worker.

This process only waits; its child is process 1 of the namespaces.
"""

import json
import os
from typing import Any

from pipelines.graders.code import kernel, worker


def main(settings: dict[str, Any]) -> None:
    """Build the namespaces and serve in them; says process 1's number on the descriptor `info`.

    Args:
        settings: of `worker.main`, and `info`, `read_only` (folders), `hidden` (folders), `links` (path, target).
    """
    user, group = os.geteuid(), os.getegid()
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if user != 0:
        kernel.unshare(kernel.CLONE_NEWUSER)
        for file, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{file}", "w") as out:
                out.write(text)
    kernel.unshare(flags)
    child = os.fork()
    if child:
        os.write(settings["info"], json.dumps({"child-pid": child}).encode())
        os.close(settings["info"])
        for number in range(3):
            os.close(number)
        os.waitpid(child, 0)
        os._exit(0)
    os.close(settings["info"])
    _change_root(settings)
    worker.main(settings)
    os._exit(0)


def _change_root(settings: dict[str, Any]) -> None:
    root = "/tmp"  # any folder: what is mounted on it is in this namespace alone
    fast = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    # Sources may lie under /tmp, so they are looked up before it is covered.
    sources = {path: os.open(path, os.O_PATH) for path in settings["read_only"]}
    kernel.mount("tmpfs", root, "tmpfs", fast, "mode=755,size=1m")
    os.mkdir(root + "/tmp")
    kernel.mount("tmpfs", root + "/tmp", "tmpfs", fast, f"mode=1777,size={settings['limits']['files']}")
    for path, source in sources.items():
        os.makedirs(root + path, exist_ok=True)
        kernel.mount(f"/proc/self/fd/{source}", root + path, flags=kernel.MS_BIND | kernel.MS_REC)
        kernel.mount("none", root + path, flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY | fast)
        os.close(source)
    for path, target in settings["links"]:
        os.symlink(target, root + path)
    for path in settings["hidden"]:
        kernel.mount("tmpfs", root + path, "tmpfs", fast | kernel.MS_RDONLY, "size=4k")
    os.mkdir(root + "/dev")
    for name in ("null", "zero", "urandom", "random", "full"):
        with open(f"{root}/dev/{name}", "w"):
            pass
        kernel.mount(f"/dev/{name}", f"{root}/dev/{name}", flags=kernel.MS_BIND)
    os.mkdir(root + "/proc")
    kernel.mount("proc", root + "/proc", "proc", fast | kernel.MS_NOEXEC)
    kernel.pivot_root(root)
    kernel.mount("none", "/", flags=kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_BIND | fast)
    os.chdir("/tmp")
