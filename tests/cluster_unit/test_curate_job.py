"""A curation as a run: arrays of shards one after the other, one of them killed, or stopped, in its work."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_unit.conftest import Bench, events, exit_code, tell, wait_until
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit
from xgen.data import TokenStore
from xgen.data.tokenizer import Tokenizer
from xgen.runs import RunDir, read_attempt_outcome
from xgen.spec import load_job, load_profile


@pytest.fixture
def run(bench: Bench) -> RunDir:
    """Four inputs, two shards; submitted."""
    Tokenizer.train(["some text of few words"], 257).save(bench.path / "tokenizer.json")
    inputs = []
    for name in "abcd":
        file = bench.path / f"{name}.jsonl"
        lines = (f'{{"text": "{name} {n} {" ".join(f"{name}{n}w{k}" for k in range(400))}"}}\n' for n in range(900))
        file.write_text("".join(lines))
        inputs.append({"path": file.name, "domain": "all"})
    spec: dict[str, Any] = {
        "kind": "curate", "name": "curate", "out": "out", "inputs": inputs, "tokenizer": "tokenizer.json",
        "mixtures": {"all": {"tokens": 200_000}}, "array": {"shards": 2}, "lead": "10s",
        "resources": {"time": "5m", "partition": "preempt"},
    }  # fmt: skip
    (bench.path / "job.yaml").write_text(yaml.safe_dump(spec))
    prepared = prepare(load_job(bench.path / "job.yaml"), "local", load_profile(bench.path / "local.yaml"))
    submit(prepared)
    bench.runs.append(prepared.run)
    return prepared.run


def task_of(shard: RunDir) -> int | None:
    """The process that does the work of a shard."""
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if b"xgen.cli.task" in command and f"XGEN_RUN_DIR={shard.path}\0".encode() in environment:
            return int(process.name)
    return None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, "crashed"), (signal.SIGUSR2, "stopped")])
def test_a_shard_that_is_killed_or_stopped_in_a_unit_runs_again_alone_and_the_budget_is_met(
    bench: Bench, run: RunDir, number: int, status: str
) -> None:
    work = bench.path / "out.work"
    killed: list[int] = []

    def unit(number: int) -> Path:
        return work / "tag" / str(json.loads((work / "plan.json").read_text())["units"][number]["name"])

    def kill() -> bool:
        """Shard 1 does units 1 and 3: the first is done, the second is not."""
        if (work / "plan.json").exists() and unit(1).exists() and (pid := task_of(run.shard("tag", 1))):
            os.kill(pid, number)
            killed.append(pid)
        return bool(killed)

    wait_until(kill, lambda: tell(run), 120)
    assert not unit(3).exists()
    first = (unit(1) / "done.json").stat().st_mtime_ns
    wait_until(lambda: events(run, "finished") or events(run, "failed"), lambda: tell(run), 240)
    assert exit_code(run) == 0, tell(run)
    outcome = read_attempt_outcome(run.shard("tag", 1), 1)
    assert outcome
    assert outcome.status == status
    assert len(events(run.shard("tag", 1), "started")) == 2
    assert len(events(run.shard("tag", 0), "started")) == 1
    assert (unit(1) / "done.json").stat().st_mtime_ns == first
    assert [e.stage for e in events(run, "stage_finished")] == [
        "prepare", "tag", "match", "cluster", "select", "balance", "deal", "shuffle",
    ]  # fmt: skip
    assert TokenStore.open(bench.path / "out" / "all").meta.num_tokens == 200_000
