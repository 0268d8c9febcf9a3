"""Where answers' processes come from: a process that was forked before any test was read.

A fork sees all that its parent knew: the expected results of this answer, and those of the answers before it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from xgen.posttrain.rewards import jail, kernel
from xgen.posttrain.rewards.verify import asserts, remote
from xgen.posttrain.rewards.verify.program import keep_only, run_script

_MOST_FILES = 8


class Nursery:
    """Asks that process. When it does not answer, this one ends: the server starts another worker, and nothing that
    comes late is taken for an answer to something else."""

    def __init__(self, isolation: jail.Isolation, bounds: jail.Bounds) -> None:
        self._end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                self._end.close()
                kernel.die_with_parent()
                kernel.adopt_orphans()
                _Keeper(other, isolation, bounds).run()
            finally:
                os._exit(1)
        other.close()
        self._end.settimeout(30.0)

    def start(self, uid: int, what: Mapping[str, Any], files: Sequence[int]) -> int:
        """A process with these files as 0, 1, …, that does `what`; its id. Raises OSError where it cannot be made."""
        with open(os.memfd_create("what"), "wb") as file:  # noqa: PTH123
            file.write(json.dumps(what).encode())
            file.flush()
            said = self._ask("start", uid, [*files, file.fileno()])
        if "pid" not in said:
            raise OSError(said["error"])
        return int(said["pid"])

    def has_ended(self, pid: int) -> bool:
        return bool(self._ask("has_ended", pid))

    def end(self, pid: int) -> int | None:
        """Its status when it had ended by itself; in any case nothing of it is left."""
        status = self._ask("end", pid)
        return None if status is None else int(status)

    def _ask(self, what: str, number: int, files: Sequence[int] = ()) -> Any:
        try:
            socket.send_fds(self._end, [json.dumps([what, number]).encode()], files)
            said = self._end.recv(1 << 12)
        except OSError:
            said = b""
        if not said:
            os._exit(1)
        return json.loads(said)


class _Keeper:
    """The process itself."""

    def __init__(self, end: socket.socket, isolation: jail.Isolation, bounds: jail.Bounds) -> None:
        self._end, self._isolation, self._bounds = end, isolation, bounds
        self._folders: dict[int, str] = {}

    def run(self) -> None:
        while True:
            data, files, _, _ = socket.recv_fds(self._end, 1 << 12, _MOST_FILES)
            if not data:
                return
            what, number = json.loads(data)
            self._end.send(json.dumps(self._do(what, number, files)).encode())

    def _do(self, what: str, number: int, files: list[int]) -> Any:
        if what == "start":
            try:
                return {"pid": self._start(number, files)}
            except OSError as error:
                return {"error": str(error)}
            finally:
                for file in files:
                    os.close(file)
        if what == "has_ended":
            return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._finish(number)

    def _start(self, uid: int, files: list[int]) -> int:
        folder = jail.make_folder(self._isolation, uid)
        pid = jail.spawn(lambda: _act(files), self._isolation, uid, self._bounds, folder)
        self._folders[pid] = folder
        return pid

    def _finish(self, pid: int) -> int | None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            kernel.kill(pid)
            os.waitpid(pid, 0)
        if not self._isolation.is_jailed:  # in a jail all that it started has died with it
            self._kill_orphans()
        jail.remove_folder(self._isolation, self._folders.pop(pid))
        return status if ended else None

    def _kill_orphans(self) -> None:
        """What is not below a process that is still to be ended."""
        kernel.kill_descendants(os.getpid(), spare=set(self._folders))
        for child in kernel.children(os.getpid()):
            if child not in self._folders:
                os.waitpid(child, os.WNOHANG)


def _act(files: Sequence[int]) -> None:
    """In the jail."""
    keep_only(*files)
    with open(len(files) - 1, "rb") as file:  # noqa: PTH123
        file.seek(0)
        what = json.load(file)
    if what["role"] == "script":
        run_script(what["source"])
    elif what["role"] == "answer":
        remote.serve_answer(3, what["source"])
    else:
        asserts.run_tests(3, 1, what["tests"], what["entry_point"], what["all"])
