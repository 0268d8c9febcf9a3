"""Which run holds which GPU, from what SLURM prints of its jobs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.metrics.fake_slurm import DOWN, OUTPUTS, FakeSlurm, read_page, slurm
from tests.metrics.fleet_runs import PRETRAIN, FleetRun, fleet, polled, root
from xgen.cluster.values import gpu_numbers, hosts
from xgen.metrics.exporter import CollectorError
from xgen.metrics.exporter.page import render
from xgen.metrics.gpu import Allocated
from xgen.metrics.gpu.allocated import Held, parse
from xgen.metrics.slurm import Queue

__all__ = ["root", "slurm"]
PRINTED = OUTPUTS / "22.05.8_scontrol_show-job_as-our-dev-slurm-prints.txt"
HELD = {
    *((101, f"n{node}", gpu) for node in (1, 2) for gpu in (0, 1, 3)), (101, "n5", 7),
    ("103_3", "n3", 0), (105, "n3", 1), (105, "n3", 2),
}  # fmt: skip


def allocated(slurm: FakeSlurm, root: Path) -> Allocated:
    queue = Queue()
    list(queue.poll())
    runs = fleet(root, queue)
    polled(runs)
    return Allocated(queue, runs)


def info(collector: Allocated) -> set[tuple[str, ...]]:
    series = read_page(render(collector.poll()).text.decode())
    assert set(series.values()) <= {1.0}
    assert {name for name, _ in series} <= {"xgen_gpu_info"}
    return {tuple(dict(labels)[key] for key in ("job_id", "hostname", "gpu", "run")) for _, labels in series}


def test_each_gpu_of_a_job_that_holds_some_and_its_run(slurm: FakeSlurm, root: Path) -> None:
    FleetRun(root, "tiny-aaaaaa", PRETRAIN, "101").told(1000, "submitted")
    FleetRun(root, "shards-bbbbbb", PRETRAIN, "103").told(1000, "submitted")
    runs = {"101": "tiny-aaaaaa", "103_3": "shards-bbbbbb", "105": ""}  # 105 is not xgen's
    expected = {(str(job), node, str(gpu), runs[str(job)]) for job, node, gpu in HELD}
    assert info(allocated(slurm, root)) == expected


def test_nothing_private_of_a_job_is_shown(slurm: FakeSlurm, root: Path) -> None:
    assert b"hunter2" in PRINTED.read_bytes()
    text = render(allocated(slurm, root).poll()).text
    assert b"hunter2" not in text
    assert b"alice" not in text


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_however_it_is_cut(size: int) -> None:
    text = PRINTED.read_bytes()
    found = set(parse(text[at : at + size] for at in range(0, len(text), size)))
    assert found == {Held(str(job), node, str(gpu)) for job, node, gpu in HELD}


def test_slurm_is_not_asked_where_no_job_has_a_gpu(slurm: FakeSlurm, root: Path) -> None:
    slurm.say(
        "squeue", "echo '1|a|x|cpu|RUNNING|1|1795687000|cpu=1|None'\necho '2|a|x|gpu|PENDING|1|N/A|gres/gpu=1|None'"
    )
    assert info(allocated(slurm, root)) == set()
    assert slurm.count("scontrol") == 0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (DOWN, "exit"),
        ("echo garbage", "malformed"),
        ("printf 'JobId=1 JobName=x\\n   JobState=RUNN'", "malformed"),
        ("exec sleep 60", "timeout"),
    ],
)
def test_an_answer_that_is_none(slurm: FakeSlurm, root: Path, script: str, reason: str) -> None:
    collector = allocated(slurm, root)
    collector.timeout = 0.5
    slurm.say("scontrol", script)
    with pytest.raises(CollectorError) as failed:
        info(collector)
    assert failed.value.reason == reason


def test_no_jobs_at_all(slurm: FakeSlurm, root: Path) -> None:
    collector = allocated(slurm, root)
    slurm.say("scontrol", "echo 'No jobs in the system'")
    assert info(collector) == set()


def test_a_job_is_nobodys_only_when_the_runs_are_known(slurm: FakeSlurm, root: Path) -> None:
    queue = Queue()
    list(queue.poll())
    runs = fleet(root, queue)
    collector = Allocated(queue, runs)
    FleetRun(root, "tiny-aaaaaa", PRETRAIN, "101").told(1000, "submitted")
    threading.Timer(0.2, lambda: polled(runs)).start()
    assert ("101", "n5", "7", "tiny-aaaaaa") in info(collector)
    collector = Allocated(queue, unseen := fleet(root / "none", queue))
    with pytest.raises(CollectorError):
        polled(unseen)
    with pytest.raises(CollectorError, match="the runs are not known yet"):
        info(collector)


def test_lists_of_hosts_and_numbers_of_gpus() -> None:
    assert hosts("g[01-03,7],login,r[1-2]n[1-2],n[9-11]") == (
        "g01", "g02", "g03", "g7", "login", "r1n1", "r1n2", "r2n1", "r2n2", "n9", "n10", "n11",
    )  # fmt: skip
    assert gpu_numbers("gpu:h100:2(IDX:0-1),gpu:a100:2(IDX:5,7)") == (0, 1, 5, 7)
    assert gpu_numbers("gpu:2,shard:2(0/8),mygpu:1(IDX:3)") == ()
