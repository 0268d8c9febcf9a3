"""Runs that really run, seen by the exporter's collector: what it says is what `xgen status` says."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from tests.cluster_unit.conftest import Bench, exit_code, wait_for, wait_for_steps, wait_until
from tests.metrics.fake_slurm import Series, read_page, value
from xgen.cluster import local
from xgen.metrics.exporter.page import render
from xgen.metrics.fleet import Runs
from xgen.runs import RunDir, read_events, replay

_STATES = {"queued", "running", "stopping", "finished", "failed", "cancelled", "lost"}


def seen(bench: Bench) -> Runs:
    return Runs(bench.path / "runs", "local", "gpu")


def poll(runs: Runs) -> Series:
    return read_page(render(runs.poll()).text.decode())


def state(series: Series, run: RunDir) -> str:
    [found] = [s for s in _STATES if value(series, "xgen_run_state", run=run.name, state=s)]
    return found


def test_a_run_is_preempted_goes_on_and_finishes(bench: Bench) -> None:
    runs, began = seen(bench), time.time()
    run = bench.count(60, "--step", 0.05)
    wait_for_steps(run, 5)
    series = poll(runs)
    assert state(series, run) == "running"
    assert value(series, "xgen_run_lost", run=run.name) == 0
    assert value(series, "xgen_run_gpus", run=run.name) == 2
    local.send(run, signal.SIGUSR2)
    wait_for(run, "started", attempt=2)
    assert exit_code(run) == 0
    series, spent = poll(runs), replay(read_events(run)).totals(time.time())
    assert state(series, run) == "finished"
    assert value(series, "xgen_run_attempts", run=run.name) == 2
    assert value(series, "xgen_run_restarts_total", run=run.name, reason="preempted") == 1
    assert value(series, "xgen_run_effective_time_ratio", run=run.name) is None  # it is a command
    phases = {"queued": "queued", "work": "start", "stop": "stop"}
    shown = {name: value(series, "xgen_run_time_seconds_total", run=run.name, phase=name) for name in phases}
    assert shown == {name: pytest.approx(spent[phase]) for name, phase in phases.items()}  # type: ignore[index]
    held = value(series, "xgen_run_gpu_seconds_total", run=run.name)
    assert held == pytest.approx(2 * (spent["start"] + spent["stop"]))
    assert 2 < sum(spent.values()) < time.time() - began


def test_a_run_whose_supervisor_is_gone_is_lost(bench: Bench) -> None:
    run = bench.submit(["sleep", "600"])
    wait_for(run, "started")
    runs = seen(bench)
    assert state(poll(runs), run) == "running"
    os.kill(int((run.path / "local/pid").read_text()), signal.SIGKILL)
    wait_until(lambda: not local.is_alive(run), lambda: "the supervisor's end")
    series = poll(runs)
    assert state(series, run) == "lost"
    assert value(series, "xgen_run_lost", run=run.name) == 1
    work = [poll(runs)["xgen_run_time_seconds_total", (("phase", "work"), ("run", run.name))] for _ in range(2)]
    assert work[0] == work[1]  # it has stopped


def test_the_shards_of_an_array_come_to_their_end(bench: Bench) -> None:
    command = [sys.executable, "-c", "import os, sys; sys.exit(os.environ['XGEN_SHARD'] == '1')"]
    run = bench.submit(command, array={"shards": 3}, resources={"gpus_per_node": 1})
    wait_for(run, "failed")
    series = poll(seen(bench))
    states = ("finished", "running", "waiting", "given_up")
    counts = {s: value(series, "xgen_run_shards", run=run.name, stage="", state=s) for s in states}
    assert counts == {"finished": 2, "running": 0, "waiting": 0, "given_up": 1}
    assert state(series, run) == "failed"
    shards = [replay(read_events(run.shard("", number))).totals(time.time()) for number in range(3)]
    held = sum(sum(totals.values()) - totals["queued"] for totals in shards)
    assert held > 0
    assert value(series, "xgen_run_gpu_seconds_total", run=run.name) == pytest.approx(held)
