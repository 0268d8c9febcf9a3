"""Calls to the kernel that Python 3.11 has no names for."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
READ_ONLY, NO_SUID, NO_DEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 0x20, 0x1000, 0x4000, 0x40000
_DETACH = 2
_RELATIME_SEEN, _RELATIME = 0x1000, 0x200000  # the same flag as statvfs tells it, as mount takes it
_KEPT = 0xC0F  # ro, nosuid, nodev, noexec, noatime, nodiratime: equal in both
_CLONE, _PIVOT_ROOT = (220, 41) if platform.machine() == "aarch64" else (56, 155)
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 36, 38
_CAPABILITIES_V3 = 0x20080522

_RESIDENT = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+)", re.MULTILINE)

# PyDLL keeps the GIL: after a clone there is no other thread to hand it over.
_LIBC = ctypes.PyDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def clone(flags: int) -> int:
    """fork() into new namespaces: 0 in the child, its process id in the parent. Raises OSError."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = _LIBC.syscall(_CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    return _checked(pid, "clone")


def unshare(flags: int) -> None:
    _checked(_LIBC.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    args = (source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), data.encode())
    _checked(_LIBC.mount(*args), f"mount {target}")


def bind_read_only(source: Path, target: str) -> None:
    """What the mount has already (nosuid, …) is kept: a user namespace may not take it away."""
    mount(str(source), target, None, BIND | RECURSIVE)
    seen = os.statvfs(target).f_flag
    kept = seen & _KEPT | (_RELATIME if seen & _RELATIME_SEEN else 0)
    mount("none", target, None, REMOUNT | BIND | READ_ONLY | NO_SUID | kept)


def change_root(folder: str) -> None:
    """The folder, a mount, becomes "/"; what was there is out of reach."""
    os.chdir(folder)
    _checked(_LIBC.syscall(_PIVOT_ROOT, b".", b"."), "pivot_root")
    _checked(_LIBC.umount2(b".", _DETACH), "umount")
    os.chdir("/")


def drop_capabilities() -> None:
    """None left, and none to be had by executing a program."""
    _checked(_LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    _checked(_LIBC.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def die_with_parent() -> None:
    """Cleared by a change of the user: call it after that."""
    _LIBC.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    _LIBC.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def hide_memory() -> None:
    """Neither ptrace nor /proc/PID/mem and environ for those of the same user."""
    _LIBC.prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Process ids as this process sees them; none of a process that is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


def descendants(pid: int) -> list[int]:
    found = children(pid)
    for child in found:  # grows while it is read
        found += children(child)
    return found


def num_tasks(uid: int) -> int:
    """Processes and threads of a user on this machine."""
    count = 0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and process.stat().st_uid == uid:
                count += sum(1 for _ in (process / "task").iterdir())
        except OSError:
            pass
    return count


def resident(pid: int) -> int:
    """Bytes of memory that are in no file: its own, also as a copy of its parent's, and shared maps. 0: it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * sum(map(int, _RESIDENT.findall(status)))


def kill_descendants(pid: int, spare: Collection[int] = ()) -> None:
    """Until none is left: one that forks while it is killed leaves a child behind. Spared ones keep theirs."""
    for _ in range(1000):
        below = [child for child in children(pid) if child not in spare]
        for child in below:  # grows while it is read
            below += children(child)
        living = [child for child in below if not _is_zombie(child)]
        if not living:
            return
        for child in living:
            kill(child)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
