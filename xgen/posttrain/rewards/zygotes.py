"""The processes that workers are forked from, in the namespaces that this machine gives."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from xgen.posttrain.rewards import jail, kernel
from xgen.posttrain.rewards.wire import Channel
from xgen.posttrain.rewards.worker import PROFILES, keep_zygote


@dataclass
class Zygote:
    """Its process, and the socket that asks it for a fork."""

    pid: int
    control: socket.socket
    isolation: jail.Isolation


def start_zygotes(bounds: jail.Bounds, uid: int, trainer: Channel) -> dict[str, Zygote]:
    """One for each profile: by the rights of root, else by a user namespace, else without. In their forks `trainer` is
    closed. `uid`: to try whether users may be changed. Raises RuntimeError."""
    for namespaces in get_args(jail.Namespaces)[0 if num_users() > 1 else 1 :]:
        started: dict[str, Zygote] = {}
        try:
            for profile in PROFILES:
                inherited = [trainer.socket, *(zygote.control for zygote in started.values())]
                started[profile] = _start(profile, namespaces, bounds, uid, inherited)
            return started
        except OSError:
            for zygote in started.values():
                zygote.control.close()
                kernel.kill(zygote.pid)
    raise RuntimeError("no process could be forked")


def _start(
    profile: str, namespaces: jail.Namespaces, bounds: jail.Bounds, uid: int, inherited: Sequence[socket.socket]
) -> Zygote:
    """Raises OSError where the kernel does not give its namespaces."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = kernel.clone(jail.zygote_flags(namespaces, profile))
    if pid == 0:
        try:
            for end in (here, *inherited):
                end.close()
            kernel.die_with_parent()
            there.recv(1)  # the parent has written the map of users
            keep_zygote(there, profile, namespaces, bounds, uid)
        finally:
            os._exit(1)
    there.close()
    here.settimeout(30.0)
    if namespaces == "user":
        _map_user(pid)
    here.send(b"\n")
    said = here.recv(1 << 12)
    if not said:
        here.close()
        os.waitpid(pid, 0)
        raise OSError("it could not hide the files")
    return Zygote(pid, here, jail.Isolation(**json.loads(said)))


def _map_user(pid: int) -> None:
    own = Path(f"/proc/{pid}")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{os.geteuid()} {os.geteuid()} 1")
    (own / "gid_map").write_text(f"{os.getegid()} {os.getegid()} 1")


def num_users() -> int:
    """That this user namespace knows: 1 in a rootless container, whose root has nobody to become."""
    return _users()[1]


def unused_uids(count: int) -> range:
    """Ids that nobody has, as far as chance goes: near the highest that this user namespace knows, every second one.
    Where it knows one user alone, ids that nobody can be."""
    first, number = _users()
    spread = 1 << 30 if number > 1 << 31 else min(number // 2, 4096)
    start = first + max(number - 2 - count - secrets.randbelow(spread + 1), 1)
    return range(start, start + count, 2)


def _users() -> tuple[int, int]:
    """The last ones that are mapped: the first of them, and how many."""
    *_, first, _, number = map(int, (Path("/proc/self/uid_map").read_text() or "0 0 4294967295").split())
    return first, number
