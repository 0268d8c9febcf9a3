"""Ranks forked from one process that has imported torch and torchtitan: seconds a case instead of half a minute.

What runs in a rank is the task's own code (`xgen.cli.task._work`); only srun and the container are missing.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from tests.conftest import ROOT
from xgen.runs import Event, EventName, EventWriter, RankOutcome, RunDir, StopFlag, TaskContext, read_events

STEPS = 8
SPEC = {
    "kind": "pretrain",
    "name": "nano",
    "resources": {"nodes": 1, "gpus_per_node": 2, "time": "5m"},
    "lead": "30s",
    "model": {
        "name": "nano", "dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 64,
        "vocab_size": 4096,
    },
    "data": {"store": str(ROOT / ".cache/tiny-store")},
    "stages": [
        {
            "name": "only", "tokens": STEPS * 256, "seq_len": 64, "global_batch": 256,
            "lr": {"peak": 1e-2, "warmup": 2, "shape": "cosine", "to": 1e-3},
        }
    ],
    "checkpoint": {"every": 2, "keep": 3, "mode": "sync"},
    "deterministic": True,
}  # fmt: skip


def warm_up() -> None:
    """Import what every rank needs, once, before the first fork."""
    import torch

    torch.set_num_threads(1)
    # xgen.model comes first: it settles the device.
    for name in ("xgen.model", "xgen.train.config", "xgen.metrics"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # see tests/conftest.py


class Training:
    """A run directory, and attempts on it."""

    def __init__(self, run: RunDir, world_size: int = 2) -> None:
        self.run, self.world_size, self.attempt, self.stage = run, world_size, 0, 0
        run.create()
        run.spec_file.write_text(yaml.safe_dump(SPEC))
        run.profile_file.write_text(yaml.safe_dump({"run_root": str(run.path.parent), "partitions": {"gpu": {}}}))

    def go(
        self,
        during: Callable[[list[int]], None] | None = None,
        in_rank: Callable[[int], None] | None = None,
        timeout: float = 90,
        may_die: bool = False,
    ) -> list[RankOutcome]:
        """One attempt; `during` gets the ranks' process ids, `in_rank` runs first in each rank.

        Every rank leaves an outcome, unless it `may_die`.
        """
        self.attempt += 1
        self.run.attempt_dir(self.attempt).mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        pids = [self._fork(rank, port, in_rank) for rank in range(self.world_size)]
        try:
            if during:
                during(pids)
            deadline = time.monotonic() + timeout
            waiting = set(pids)
            while waiting:
                waiting = {pid for pid in waiting if os.waitpid(pid, os.WNOHANG)[0] == 0}
                if may_die and len(waiting) < len(pids):
                    # srun ends a step of which one task has died; a rank that waits for a dead one would wait long.
                    self._end(waiting, grace=10)
                    waiting = set()
                assert time.monotonic() < deadline, f"ranks hang: {self._log()}"
                time.sleep(0.02)
            pids = []
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        files = [self.run.attempt_dir(self.attempt) / f"outcome.{rank}.json" for rank in range(self.world_size)]
        assert may_die or all(file.exists() for file in files), self._log()
        return [RankOutcome.model_validate_json(file.read_text()) for file in files if file.exists()]

    @staticmethod
    def _end(pids: set[int], grace: float) -> None:
        deadline = time.monotonic() + grace
        while pids and time.monotonic() < deadline:
            pids = {pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0] == 0}
            time.sleep(0.02)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def change(self, *path_and_value: object) -> None:
        """Set a key of the run's spec: its path, then the value."""
        spec = yaml.safe_load(self.run.spec_file.read_text())
        *path, last, value = path_and_value
        place = spec
        for key in path:
            place = place[key]
        place[last] = value
        self.run.spec_file.write_text(yaml.safe_dump(spec))

    def _fork(self, rank: int, port: int, in_rank: Callable[[int], None] | None) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
            log = os.open(self.run.attempt_dir(self.attempt) / f"log.{rank}", os.O_CREAT | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # not pytest's
            stop = StopFlag()
            stop.arm()
            if in_rank:
                in_rank(rank)
            from xgen.cli.task import _work

            events = EventWriter(self.run, "rank0", self.attempt, "1") if rank == 0 else None
            context = TaskContext(self.run, self.attempt, "1", rank, rank, self.world_size, stop, events, self.stage)
            _work(context).write(self.run, self.attempt, rank)
        finally:
            os._exit(0)

    def _log(self) -> str:
        return "\n".join(p.read_text(errors="replace")[-3000:] for p in sorted(self.run.attempts_dir.glob("*/log.*")))

    def steps(self) -> list[int]:
        """In the order in which they were trained, those that were trained again included."""
        return [record["step"] for record in self._records()]

    def losses(self) -> dict[int, str]:
        return {record["step"]: record["loss_hex"] for record in self._records()}

    def _records(self) -> Iterator[dict[str, Any]]:
        file = self.run.metrics_dir / "steps.jsonl"
        yield from map(json.loads, file.read_text().split("\n")[:-1] if file.exists() else [])

    def event(self, name: EventName, attempt: int | None = None) -> Event | None:
        found = (e for e in read_events(self.run) if e.event == name and attempt in (None, e.attempt))
        return next(found, None)

    def wait_for_step(self, step: int, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        file = self.run.metrics_dir / "steps.jsonl"
        while not file.exists() or len(file.read_text().splitlines()) < step:
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.005)

    def wait_for_new_step(self, step: int, timeout: float = 60) -> None:
        """Until that step is done, or the attempt has written that it has ended."""
        deadline = time.monotonic() + timeout
        while max(self.losses(), default=0) < step:
            if any(
                (self.run.attempt_dir(self.attempt) / f"outcome.{rank}.json").exists()
                for rank in range(self.world_size)
            ):
                return
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.005)

    def signal_at(self, step: int, rank: int, number: signal.Signals = signal.SIGUSR2) -> Callable[[list[int]], None]:
        """For `go(during=...)`: signal one rank once that many steps are done."""

        def act(pids: list[int]) -> None:
            self.wait_for_step(step)
            os.kill(pids[rank], number)

        return act
