"""Online RL as people run it: `xgen submit`, a preemption, a server that dies, a verifier that dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_unit.conftest import Bench, bench, processes, status, task_pids, tell, wait_until
from tests.conftest import xgen
from tests.posttrain.rl.world import spec
from xgen.cluster import local
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit as hand_in
from xgen.runs import RunDir, read_events
from xgen.spec import load_job, load_profile

__all__ = ["bench"]
pytestmark = pytest.mark.slow

Submit = Callable[..., RunDir]


@pytest.fixture
def submit(world: Path, bench: Bench) -> Submit:
    def act(**changes: Any) -> RunDir:
        written = spec(world)
        written["resources"]["partition"] = "preempt"
        for key, value in changes.items():
            written[key] = {**written[key], **value} if isinstance(written.get(key), dict) and value else value
        file = bench.path / "sums.yaml"
        file.write_text(yaml.safe_dump(written))
        prepared = prepare(load_job(file), "local", load_profile(bench.path / "local.yaml"))
        hand_in(prepared)
        bench.runs.append(prepared.run)
        return prepared.run

    return act


def records(run: RunDir) -> dict[int, dict[str, Any]]:
    """Of each step the last."""
    file = run.metrics_dir / "steps.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return {record["step"]: record for record in map(json.loads, lines)}


def wait_for_step(run: RunDir, step: int, timeout: float = 120) -> None:
    wait_until(lambda: max(records(run), default=0) >= step, lambda: tell(run), timeout)


def children(pid: int) -> list[int]:
    """Processes that it, or one of its children, has started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    own = [child for child, parent in parents.items() if parent == pid]
    return own + [grandchild for child in own for grandchild in children(child)]


def is_verifier(pid: int) -> bool:
    with suppress(OSError):
        return b"xgen.posttrain.rewards.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def finish(run: RunDir, timeout: float = 120) -> None:
    wait_until(lambda: not local.is_alive(run), lambda: tell(run), timeout)
    assert [event.event for event in read_events(run)][-1] == "finished", tell(run)


def test_a_preempted_run_goes_on_and_finishes(submit: Submit) -> None:
    run = submit(train={"steps": 8})
    wait_for_step(run, 3)
    assert local.send(run, signal.SIGUSR2)
    finish(run)
    assert (status(run, 1), status(run, 2)) == ("stopped", "finished")
    assert [record["first_sample"] for record in records(run).values()] == list(range(0, 64, 8))
    done = xgen("samples", str(run.path), "--best", "--json")
    assert json.loads(done.stdout)[0]["answers"][0]["reward"] == 1.0


def test_a_run_whose_server_is_killed_finishes_with_every_prompt_once(submit: Submit) -> None:
    servers = {"kind": "transformers", "array": {"shards": 2}, "at_once": 4}
    run = submit(rollout={"prompts": 2, "group": 4, "servers": servers}, train={"steps": 6}, evaluation=None)
    wait_for_step(run, 2, timeout=180)
    serving = processes(run, "serve")
    assert serving, tell(run)
    os.kill(serving[0], signal.SIGKILL)
    finish(run, timeout=240)
    found = records(run)
    assert [record["first_sample"] for record in found.values()] == list(range(0, 12, 2))
    assert {record["extra"]["rl_staleness_steps"] for record in found.values()} == {0}


def test_verifiers_that_are_killed_cost_no_verdict(submit: Submit) -> None:
    run = submit(train={"steps": 30}, evaluation=None, checkpoint={"every": 100})
    killed = 0
    for step in (2, 5, 8):
        wait_for_step(run, step)
        for pid in filter(is_verifier, children(task_pids(run)[0])):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    assert killed >= 3
    finish(run)
    assert run.last_attempt() == 1
    assert {record["extra"]["rl_excluded_answers"] for record in records(run).values()} == {0}
