"""Real training on the real SLURM, in the container: preempted in mid-run, and killed, it ends as if nothing was."""

from __future__ import annotations

import json
import os
import signal

import pytest
import yaml

from tests.cluster.conftest import Cluster, has_event, outcome, task_pids, wait_for_event, wait_until
from tests.conftest import ROOT
from xgen.runs import RunDir, read_events, replay

pytestmark = pytest.mark.cluster
SPEC = ROOT / "jobs/tiny/pretrain.yaml"
# Two ranks on two nodes, a fifth of the demo's length: what counts here is the path, not the model.
SMALL = (
    "resources.gpus_per_node=1",
    "stages.0.parallelism.fsdp=2",
    "stages.0.tokens=24k",
    "stages.0.lr.warmup=4",
    "checkpoint.every=5",
)


def losses(run: RunDir) -> dict[int, str]:
    lines = (run.metrics_dir / "steps.jsonl").read_text().splitlines()
    return {record["step"]: record["loss_hex"] for record in map(json.loads, lines)}


def wait_for_step(run: RunDir, step: int, timeout: float = 150) -> None:
    def reached() -> bool:
        file = run.metrics_dir / "steps.jsonl"
        return file.exists() and len(file.read_text().splitlines()) >= step

    wait_until(reached, timeout, f"step {step} of {run.name}")


def test_preempted_and_then_killed_training_equals_the_undisturbed_one(
    container_cluster: Cluster, undisturbed: RunDir
) -> None:
    cluster = container_cluster
    run = cluster.submit(SPEC, *SMALL)
    wait_for_step(run, 7)
    assert not (ROOT / ".cache/images/xgen-cpu/usr/bin/scontrol").exists()
    cluster.preempt()
    wait_for_event(run, "requeued", timeout=60)
    saved = outcome(run, 1).durable_step
    assert outcome(run, 1).status == "stopped"
    assert saved >= 7

    wait_for_event(run, "first_step", attempt=2, timeout=150)
    assert has_event(run, "restore_end", 2).step == saved  # type: ignore[union-attr]
    wait_for_step(run, saved + 3)
    os.kill(task_pids(run)[1], signal.SIGKILL)
    wait_for_event(run, "finished", timeout=180)
    assert outcome(run, 2).status == "crashed"

    assert losses(run) == losses(undisturbed)
    from xgen.train.compare import compare_checkpoints

    final = f"step-{max(losses(run))}"
    count, differing = compare_checkpoints(run.checkpoints_dir / final, undisturbed.checkpoints_dir / final)
    assert count > 100
    assert differing == []

    ledger = replay(read_events(run))
    assert ledger.restarts["preempted"] == 1
    assert ledger.restarts["crashed"] == 1
    events = read_events(run)
    wall = events[-1].time - events[0].time
    assert sum(ledger.totals(events[-1].time).values()) == pytest.approx(wall, rel=0.01)
    assert not run.discovery_file.exists()


def test_the_stages_are_jobs_that_wait_for_one_another(container_cluster: Cluster) -> None:
    """Two stages, preempted in each; the second has other ranks and a longer context."""
    spec = {
        "extends": SPEC.name,
        "name": "staged",
        "stages": [
            {
                "name": "broad", "tokens": "12k", "mixture": "broad", "seq_len": 256, "global_batch": "1k",
                "lr": {"peak": 3e-3, "warmup": 4}, "parallelism": {"fsdp": 2},
                "resources": {"gpus_per_node": 1},
            },
            {
                "name": "long", "tokens": "24k", "seq_len": 512, "global_batch": "2k", "rope_theta": 1e5,
                "lr": {"shape": "linear", "to": 3e-4}, "parallelism": {"fsdp": 1, "cp": 2},
                "resources": {"nodes": 1, "gpus_per_node": 2},
            },
        ],
        "checkpoint": {"every": 5, "keep": 9},
    }  # fmt: skip
    file = ROOT / "jobs/tiny" / f".staged-{os.getpid()}.yaml"
    file.write_text(yaml.safe_dump(spec))
    try:
        run = container_cluster.submit(file)
    finally:
        file.unlink()
    jobs = [run.job_file(stage).read_text().strip() for stage in (0, 1)]
    assert len(set(jobs)) == 2
    for step in (4, 16):
        wait_for_step(run, step)
        container_cluster.preempt()
    wait_for_event(run, "finished", timeout=240)
    events = read_events(run)
    assert [e.stage for e in events if e.event == "stage_finished"] == ["broad"]
    started = [(e.stage, e.job_id) for e in events if e.event == "started"]
    told = "".join(e.to_line() for e in events if e.event != "progress")  # why there was one more, if there was
    assert started == [("broad", jobs[0])] * 2 + [("long", jobs[1])] * 2, told
    assert sorted(losses(run)) == list(range(1, 25))
    ledger = replay(events)
    assert ledger.restarts["preempted"] == sum(ledger.restarts.values()) == 2
    exported = container_cluster.submit(ROOT / "jobs/tiny/export.yaml", f"run={run.name}")
    wait_for_event(exported, "finished", timeout=120)
    assert (run.path / "export/step-24/model.safetensors").stat().st_size > 2**20
