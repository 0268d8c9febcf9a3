"""The tiny curation on a real SLURM, in arrays: a shard is killed in its work, a node is lost, and no byte differs."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, has_event, scontrol, wait_for_event, wait_until
from tests.conftest import ROOT
from xgen.data.curate.steps.run import run_step
from xgen.data.curate.tiny.corpus import write_corpus
from xgen.runs import RunDir, read_events
from xgen.spec import Curate, load_job

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def small(folder: Path) -> Path:
    """jobs/tiny/curate.yaml on some megabytes."""
    write_corpus(folder / "raw", 3 << 20)
    text = (ROOT / "jobs/tiny/curate.yaml").read_text()
    for old, new in (
        ("base.yaml", f"{ROOT}/jobs/tiny/base.yaml"),
        (".cache/tiny-raw", f"{folder}/raw"),
        (".cache/tiny-corpus", f"{folder}/out"),
        (".cache/tiny-store", f"{ROOT}/.cache/tiny-store"),
        ("tokens: 20M", "tokens: 400k"),
        ("tokens: 4M", "tokens: 100k"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "curate.yaml").write_text(text)
    return folder / "curate.yaml"


def kill_one_at_work(step: Path) -> bool:
    """SIGKILL for a process that is in the middle of a result; the folder that it writes to has its number."""
    for folder in step.glob(".*.tmp"):
        os.kill(int(folder.name.split(".")[-2]), signal.SIGKILL)
        return True
    return False


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def num_starts(run: RunDir, stage: str, shards: int) -> list[int]:
    return [sum(e.event == "started" for e in read_events(run.shard(stage, n))) for n in range(shards)]


def test_a_curation_in_arrays_with_a_kill_and_a_lost_node_is_that_of_one_process(
    cluster: Cluster, tmp_path: Path
) -> None:
    spec = small(tmp_path)
    run = cluster.submit(spec, "array.shards=4", "array.at_once=3", "resources.memory=2GB")
    work = tmp_path / "out.work"
    wait_until(lambda: kill_one_at_work(work / "tag"), 400, "a shard of tag at work")
    selecting = run.shard("select", 1)
    wait_until(lambda: has_event(selecting, "started"), 400, "the start of select")
    lost = str(has_event(selecting, "started").nodes)  # type: ignore[union-attr]
    try:
        scontrol("update", f"nodename={lost}", "state=down", "reason=planted")
        wait_for_event(selecting, "started", attempt=2, timeout=200)
    finally:
        subprocess.run(["scontrol", "update", f"nodename={lost}", "state=resume"], check=False, timeout=60)
    wait_for_event(run, "finished", timeout=400)
    assert sorted(num_starts(run, "tag", 4)) == [1, 1, 1, 2]
    assert num_starts(run, "select", 4)[1] == 2
    assert [e.stage for e in read_events(run) if e.event == "stage_finished"] == list(load_job(spec).job.steps[:-1])  # type: ignore[union-attr]

    of_slurm = tmp_path / "of-slurm"
    (tmp_path / "out").rename(of_slurm)
    job = load_job(spec, [f"work={tmp_path}/work"]).job
    assert isinstance(job, Curate)
    for step in job.steps:
        assert run_step(job, step) == "finished"
    one, other = files(of_slurm), files(tmp_path / "out")
    assert sorted(one) == sorted(other)
    assert [name for name, content in one.items() if other[name] != content] == []
