"""Trainer's engine, a shard that keeps a server, and `transformers serve` itself, started by its kind's own command."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.posttrain.servers.conftest import Bench, collect, job_of, request, wait_until, weights_of
from tests.posttrain.servers.test_engine import greedy
from xgen.posttrain.servers import run_server
from xgen.posttrain.servers.weights import current, weights_dir
from xgen.runs import RankOutcome, StopFlag, TaskContext


def servers() -> list[int]:
    """Process ids of the servers that this process has started."""
    threads = Path("/proc/self/task").iterdir()
    children = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
    return [pid for pid in children if "serve" in (Path(f"/proc/{pid}") / "cmdline").read_text().split("\0")]


@pytest.mark.slow
def test_weights_are_swapped_the_server_is_killed_and_every_answer_is_that_of_its_weights(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    bench.job = job_of(timeout="60s", arguments=["--device", "cpu"])
    outcomes: list[RankOutcome] = []
    context = TaskContext(bench.run.shard("rollout", 0), 1, "7_0", 0, 0, 1, StopFlag(), None, 0, 0, 1)
    keeper = threading.Thread(target=lambda: outcomes.append(run_server(context, bench.job, lambda _: None)))
    keeper.start()
    try:
        engine = bench.engine()
        for version in (1, 2):
            engine.load(version, weights_of(bench.job, version).items())
            name = current(bench.run)
            assert name
            for number in range(4):
                engine.submit(request(f"{version}/{number}", prompt=(3, number), max_tokens=40))
            if version == 2:
                wait_until(lambda: any(one.tokens for one in engine.pending().values()), "a token", 120)
                [pid] = servers()
                os.kill(pid, signal.SIGKILL)
            found = collect(engine, 4, timeout=180)
            for number in range(4):
                done = found[f"{version}/{number}"]
                assert done.tokens == greedy(weights_dir(bench.run) / name, (3, number), 40)
                assert done.versions == ((version, 40),)
    finally:
        bench.run.ended_file.touch()
        keeper.join(timeout=60)
    assert [outcome.status for outcome in outcomes] == ["finished"]
    assert servers() == []
