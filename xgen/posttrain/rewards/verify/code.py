"""The kind `code`: tests of an answer's program, which runs in a jail and never holds what its verdict goes over.

Programs that read and print are compared from outside. Tests that are Python run in a jail of their own and reach
into the answer's by plain values (`remote`): there is no assert, builtin or harness that the answer could change.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xgen.posttrain.rewards import jail, kernel
from xgen.posttrain.rewards.verify import asserts
from xgen.posttrain.rewards.verify.nursery import Nursery
from xgen.posttrain.rewards.verify.program import NO_MEMORY, program_of
from xgen.posttrain.rewards.verify.reply import Reply
from xgen.posttrain.rewards.verify.usable import why_not_usable

_TICK = 0.005  # seconds between looks at a process that has closed its output


@dataclass(frozen=True)
class _Ended:
    """A process: what it printed, and its exit code, None when it did not end of its own accord."""

    output: bytes
    code: int | None
    fault: str | None


class Runner:
    """Judges one answer after the other. `uid` and the one above it are nobody else's."""

    def __init__(self, isolation: jail.Isolation, uid: int, bounds: jail.Bounds) -> None:
        kernel.hide_memory()
        kernel.adopt_orphans()
        self._uid, self._bounds = uid, bounds
        self._null = os.open(os.devnull, os.O_RDWR)
        self._nursery = Nursery(isolation, bounds)

    def judge(self, job: Mapping[str, Any]) -> Reply:
        source, tests = program_of(job["answer"]), job["tests"]
        until = time.monotonic() + self._bounds.seconds
        if isinstance(tests[0], dict):
            passed, fault = self._by_output(source, tests, until, job["all"])
        else:
            if why := why_not_usable(tuple(tests), job["entry_point"]):
                return Reply(None, "error", detail=why)
            passed, fault = self._by_asserts(source, job, until)
        share = passed / len(tests)
        return Reply(float(share == 1) if job["all"] else share, fault=fault)

    def _by_output(
        self, source: str, tests: Sequence[Mapping[str, str]], until: float, need_all: bool
    ) -> tuple[int, str | None]:
        passed, fault = 0, None
        for test in tests:
            ended = self._run({"role": "script", "source": source}, self._uid, test["input"].encode(), until)
            is_right = ended.code == 0 and ended.fault is None and _same(ended.output, test["output"])
            passed, fault = passed + is_right, fault or ended.fault
            if ended.fault == "timeout" or (need_all and not is_right):
                break
        return passed, fault

    def _by_asserts(self, source: str, job: Mapping[str, Any], until: float) -> tuple[int, str | None]:
        here, there = socket.socketpair()
        null = self._null
        with here:
            with there:
                files = [null, null, null, there.fileno()]
                pid = self._nursery.start(self._uid, {"role": "answer", "source": source}, files)
            try:
                given = {key: job[key] for key in ("tests", "entry_point", "all")}
                ended = self._run({"role": "tests", **given}, self._uid + 1, b"", until, here.fileno())
            finally:
                status = self._nursery.end(pid)
        said = ended.output
        fault = "memory" if asserts.MEMORY in said else ended.fault
        if fault is None and asserts.GONE in said and status is not None:
            fault = _fault(status)
        return said.count(asserts.PASSED), fault

    def _run(self, what: Mapping[str, Any], uid: int, given: bytes, until: float, *more: int) -> _Ended:
        """One process from its start to its end; what it left running is killed. Raises OSError."""
        (stdin, feed), (output, stdout) = os.pipe(), os.pipe()
        try:
            try:
                pid = self._nursery.start(uid, what, [stdin, stdout, self._null, *more])
            finally:
                os.close(stdin)
                os.close(stdout)
            try:
                printed, fault = self._converse(pid, feed, output, given, until)
            finally:
                status = self._nursery.end(pid)
        finally:
            os.close(output)
            os.close(feed)
        if status is None:
            return _Ended(printed, None, fault or "timeout")
        return _Ended(printed, os.waitstatus_to_exitcode(status), fault or _fault(status))

    def _converse(self, pid: int, feed: int, output: int, given: bytes, until: float) -> tuple[bytes, str | None]:
        """Until the process has ended or may not go on."""
        printed, left, is_open = bytearray(), memoryview(given), True
        os.set_blocking(feed, False)
        poller = select.poll()
        poller.register(output, select.POLLIN)
        poller.register(feed, select.POLLOUT)
        while (seconds := until - time.monotonic()) > 0:
            if not is_open and self._nursery.has_ended(pid):
                return bytes(printed), None
            for ready, _ in poller.poll((seconds if is_open else min(seconds, _TICK)) * 1000):
                if ready == feed:
                    left = _write(feed, left)
                    if not left:
                        poller.unregister(feed)
                        os.dup2(self._null, feed)  # the end of its input
                elif data := os.read(output, 1 << 16):
                    printed += data
                    if len(printed) > self._bounds.output:
                        return bytes(printed), "output"
                else:
                    poller.unregister(output)
                    is_open = False
        return bytes(printed), "timeout"


def _write(feed: int, left: memoryview) -> memoryview:
    """What is still to be written; nothing when nobody reads."""
    try:
        return left[os.write(feed, left[: 1 << 16]) :]
    except BrokenPipeError:
        return memoryview(b"")
    except BlockingIOError:
        return left


def _fault(status: int) -> str | None:
    """Of how a process ended by itself: an exception or an exit code is a wrong answer, no more."""
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGXCPU else "crashed"
    return "memory" if os.WEXITSTATUS(status) == NO_MEMORY else None


def _same(printed: bytes, wanted: str) -> bool:
    """Line by line, white space at the ends of lines and of the text aside."""
    return _lines(printed.decode(errors="replace")) == _lines(wanted)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
