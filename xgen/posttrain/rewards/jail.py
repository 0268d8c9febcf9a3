"""What a process that runs an answer can reach and use up."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import site
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from xgen.posttrain.rewards import kernel, syscalls

_SYSTEM = tuple(map(Path, (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives",
)))  # fmt: skip
_DEVICES = tuple(map(Path, ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")))
_PACKAGES = ("site-packages", "dist-packages")
_MORE_TASKS = 256
_XGEN = Path(__file__).resolve().parents[2]
_NEW_ROOT = "/proc"  # any folder that is there on every Linux; in the jail there is no /proc


Namespaces = Literal["root", "user", "none"]


@dataclass(frozen=True)
class Bounds:
    """`xgen.spec.rewards.Limits`, without pydantic."""

    seconds: float
    memory: int
    processes: int
    file_size: int
    output: int


@dataclass(frozen=True)
class Isolation:
    """What this machine's kernel gave: by the rights of root, by a user namespace, or nothing."""

    namespaces: Namespaces
    own_user: bool  # a user id of its own for each worker
    filtered: bool  # system calls

    @property
    def is_jailed(self) -> bool:
        return self.namespaces != "none"

    @property
    def facts(self) -> dict[str, bool]:
        """What an answer's program is kept from, and what is not so here."""
        alone = self.own_user or self.namespaces == "user"
        return {
            "no network": self.is_jailed or self.filtered,
            "files of others hidden": self.is_jailed,
            "processes of others hidden": self.is_jailed,
            "no signals to others": self.is_jailed or self.own_user or self.filtered,
            "own user": alone,
            "number of processes by the kernel": alone,
        }

    def __str__(self) -> str:
        missing = [fact for fact, is_so in self.facts.items() if not is_so]
        how = {"root": "namespaces", "user": "a user namespace", "none": "limits only"}[self.namespaces]
        return f"verifiers: {how}" + (f"; NOT on this machine: {', '.join(missing)}" if missing else "")


def zygote_flags(namespaces: Namespaces, profile: str) -> int:
    """Of what forks the workers. A reward model needs the network, a function of the user's its files."""
    if namespaces == "none":
        return 0
    flags = kernel.NEW_PIDS | kernel.NEW_IPC | (kernel.NEW_USER if namespaces == "user" else 0)
    if profile != "model":
        flags |= kernel.NEW_NET
    if hides_files(namespaces, profile):
        flags |= kernel.NEW_MOUNTS | kernel.NEW_UTS
    return flags


def hides_files(namespaces: Namespaces, profile: str) -> bool:
    return namespaces != "none" and profile not in ("model", "function")


def hide_files() -> None:
    """A root that holds Python and the system's libraries, read-only, and nothing else. Raises OSError."""
    kernel.mount("none", "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("tmpfs", _NEW_ROOT, "tmpfs", kernel.NO_SUID, "size=1m,mode=755")
    for path in _visible():
        target = Path(f"{_NEW_ROOT}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() and path.parent == Path("/"):  # /lib -> usr/lib
            target.symlink_to(path.readlink())
        elif path.is_dir():
            target.mkdir(exist_ok=True)
            kernel.bind_read_only(path, str(target))
        else:
            target.touch()
            if path in _DEVICES:
                kernel.mount(str(path), str(target), None, kernel.BIND)
            else:
                kernel.bind_read_only(path, str(target))
    Path(f"{_NEW_ROOT}{_scratch()}").mkdir(parents=True)
    kernel.change_root(_NEW_ROOT)
    kernel.mount("none", "/", None, kernel.REMOUNT | kernel.READ_ONLY | kernel.NO_SUID)


def _visible() -> list[Path]:
    """Shortest first, what lies in another left out."""
    packages = [path for path in (*sys.path, *site.getsitepackages()) if Path(path).name in _PACKAGES]
    wanted = {*_SYSTEM, *_DEVICES, *map(Path, (sys.prefix, sys.base_prefix, *packages)), _XGEN}
    found: list[Path] = []
    for path in sorted(wanted, key=lambda path: len(path.parts)):
        if path.exists() and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


@cache
def _scratch() -> str:
    """Where programs in the jail write, as Python's tempfile finds it: not over a Python that lies in /tmp."""
    return "/var/tmp" if any(path.is_relative_to("/tmp") for path in _visible()) else "/tmp"


def spawn(run: Callable[[], None], isolation: Isolation, uid: int, bounds: Bounds, folder: str) -> int:
    """A process that calls `run` in `folder` (of `make_folder`) and may harm nobody but itself; its id. Its exit code
    is 1 when `run` raises. Raises OSError."""
    pid = kernel.clone(kernel.NEW_PIDS | kernel.NEW_IPC | kernel.NEW_MOUNTS) if isolation.is_jailed else os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        if isolation.is_jailed:
            room = f"size={4 * bounds.file_size},nr_inodes=4096,mode=1777"
            kernel.mount("tmpfs", folder, "tmpfs", kernel.NO_SUID | kernel.NO_DEV, room)
        os.chdir(folder)
        confine(isolation, uid, bounds)
        seconds = int(bounds.seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        run()
    except BaseException:  # noqa: BLE001 - whatever it is, the fork must not go on in its parent's place
        os._exit(1)
    finally:
        os._exit(0)


def make_folder(isolation: Isolation, uid: int) -> str:
    """Where `spawn` may begin; `remove_folder` it. In a jail a file system of its own is mounted there."""
    if isolation.is_jailed:
        return _scratch()
    folder = tempfile.mkdtemp(prefix=f"{uid}-")
    if isolation.own_user:
        os.chown(folder, uid, uid)
    return folder


def remove_folders_of(uid: int) -> None:
    """Of a worker that was killed before it could."""
    for user in (uid, uid + 1):
        for folder in Path(tempfile.gettempdir()).glob(f"{user}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def remove_folder(isolation: Isolation, folder: str) -> None:
    if not isolation.is_jailed:
        shutil.rmtree(folder, ignore_errors=True)


def confine(isolation: Isolation, uid: int, bounds: Bounds, network: bool = False) -> None:
    """This process, for good: no rights, and limits that a child inherits."""
    if isolation.own_user:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    elif isolation.namespaces == "user":
        kernel.unshare(kernel.NEW_USER)  # in which processes are counted from 0, and nobody is mapped
    kernel.drop_capabilities()
    kernel.die_with_parent()
    kernel.hide_memory()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write fails with EFBIG
    limits = {
        resource.RLIMIT_AS: bounds.memory,
        resource.RLIMIT_FSIZE: bounds.file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    # Without a user or namespace of its own all processes of the user count: the server counts those of an answer,
    # and this keeps a fork bomb to what can be killed.
    alone = isolation.facts["number of processes by the kernel"]
    limits[resource.RLIMIT_NPROC] = bounds.processes if alone else kernel.num_tasks(os.getuid()) + _MORE_TASKS
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))
    if isolation.filtered and not network:
        syscalls.refuse(network=True, signals=not isolation.is_jailed)


def can_be(uid: int) -> bool:
    """Whether a process of this user would still find Python's modules. Of a fork, whose answer is its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            places = (os.__file__, sys.executable, *site.getsitepackages())
            os._exit(0 if all(os.access(place, os.R_OK) for place in places) else 1)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
