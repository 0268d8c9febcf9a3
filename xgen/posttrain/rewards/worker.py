"""Where workers come from, one process for each profile, and what each of them does until it is killed."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from xgen.posttrain.rewards import jail, kernel, syscalls
from xgen.posttrain.rewards.verify.reply import Reply
from xgen.posttrain.rewards.wire import Channel, ClosedError

PROFILES = ("math", "pattern", "code", "model", "function")
LEAVING = 0  # number of a message, of no job
_VERIFY = "xgen.posttrain.rewards.verify"
_MODULES = {"math": "mathematics"}  # others are named as their profile
# What answers import most; a fork has it for nothing.
_COMMON = (
    "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "fractions", "functools", "heapq",
    "itertools", "math", "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip


Judge = Callable[[Mapping[str, Any]], Reply]
Maker = Callable[[jail.Isolation, int, jail.Bounds], Judge]


def keep_zygote(
    control: socket.socket, profile: str, namespaces: jail.Namespaces, bounds: jail.Bounds, uid: int
) -> None:
    """Forks a worker for each file descriptor that comes, until the control socket is closed. Never returns.

    It holds no task, so that what it forks has none in its memory. `uid`: one to try whether uids may be changed.
    """
    if jail.hides_files(namespaces, profile):
        jail.hide_files()
    own_user = namespaces != "user" and profile not in ("model", "function") and os.getuid() == 0 and jail.can_be(uid)
    isolation = jail.Isolation(namespaces, own_user, syscalls.can_refuse())
    control.send(json.dumps(asdict(isolation)).encode())
    kernel.adopt_orphans()
    make: Maker | None = None
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers, and orphans of killed ones, leave no zombies
    while True:
        data, files, _, _ = socket.recv_fds(control, 1 << 12, 1)
        if not data:
            os._exit(0)
        if make is None:  # on the first request: who verifies no formula loads no sympy
            make = _maker(profile)
            gc.collect()
            gc.freeze()  # a collection in a fork would copy all pages
        if os.fork() == 0:
            try:
                control.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _work(Channel(socket.socket(fileno=files[0])), make(isolation, int(data), bounds))
            finally:
                os._exit(1)
        os.close(files[0])


def _maker(profile: str) -> Maker:
    """What makes a fork a worker."""
    try:
        module = importlib.import_module(f"{_VERIFY}.{_MODULES.get(profile, profile)}")
    except ImportError as error:  # said with each verdict, and not by a server that dies again and again
        reply = Reply(None, "error", detail=f"{error}; write pip install 'xgen[rl]'")
        return lambda *_: lambda _: reply
    if profile == "code":  # it makes jails, and runs nothing of an answer itself
        for name in _COMMON:
            importlib.import_module(name)
        return lambda isolation, uid, bounds: module.Runner(isolation, uid, bounds).judge
    if profile == "math":
        module.prepare()

    def make(isolation: jail.Isolation, uid: int, bounds: jail.Bounds) -> Judge:
        jail.confine(isolation, uid, bounds, network=profile == "model")
        judge: Judge = module.judge
        return judge

    return make


def _work(channel: Channel, judge: Judge) -> None:
    """Judges what comes, one after the other, until the server is gone."""
    channel.send(0, b"")
    try:
        while True:
            for number, body in channel.wait(None):
                reply = _reply(judge, body)
                is_spent = reply["failure"] == "memory"  # what is left of it may not do for the next
                if is_spent:
                    channel.send(LEAVING, b"")
                channel.send(number, json.dumps(reply).encode())
                if is_spent:
                    channel.drain(10.0)
                    return
    except ClosedError:
        pass


def _reply(judge: Judge, body: bytes) -> dict[str, Any]:
    began = time.monotonic()
    try:
        reply = judge(json.loads(body))
    except MemoryError:
        reply = Reply(None, "memory")
    except Exception as error:  # noqa: BLE001 - also a user's function's; it is counted, and told
        reply = Reply(None, "error", detail=f"{type(error).__name__}: {error!s:.200}")
    return {**reply.__dict__, "seconds": time.monotonic() - began}
