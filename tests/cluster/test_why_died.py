"""`xgen why` about deaths that are planted on a real SLURM, each in a run of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import Cluster, empty_the_queue, scontrol, wait_for_event, wait_until
from tests.cluster.test_why import why
from tests.conftest import ROOT
from xgen.cluster.slurm import queue
from xgen.runs import EventName, RunDir

pytestmark = pytest.mark.cluster
PYTHON = str(ROOT / ".venv/bin/python")
# Rank 1 dies; the others see that it has, and die of that before srun ends them.
NOISE = """
import os, time
if os.environ["XGEN_RANK"] == "1":
    {}["loss"]
while not os.path.exists(os.environ["XGEN_RUN_DIR"] + "/attempts/0001/outcome.1.json"):
    time.sleep(0.01)
raise ConnectionResetError("peer closed")
"""
# A file in /dev/shm that is longer than there is room.
SHM = "import mmap; n = 1 << 20; f = open('/dev/shm/x', 'w+b'); f.truncate(n); mmap.mmap(f.fileno(), n)[:] = bytes(n)"
SMALL = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$0" -c "$1"'


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def stop_now(job: str) -> None:
    """SLURM looks at time limits twice a minute."""
    scontrol("update", f"JobId={job}", "EndTime=now+2")


def scancel(job: str) -> None:
    subprocess.run(["scancel", job], check=True, timeout=60)


@dataclass(frozen=True)
class Death:
    """`act`: what is done to its job once it runs."""

    command: list[str]
    said: tuple[str, ...]
    settings: tuple[str, ...] = ()
    act: Callable[[str], None] | None = None
    interpreter: str = PYTHON


DEATHS: Mapping[str, Death] = {
    "first-of-many-errors": Death(
        python(NOISE),
        (
            "RUN died in attempt 1. The first error of rank 1 on n",
            ": KeyError: 'loss' (the command exited with 1)",
            'File "<string>", line 4, in <module>',
            "do: mend what xgen logs RUN shows; then xgen resume RUN",
        ),
        ("resources.gpus_per_node=4",),
    ),
    "node-memory": Death(
        python("x = b'x' * (1 << 30)"),
        (
            "RUN died in attempt 1: the node's memory for the job is used up. The first error of rank 0 on n",
            "the command was killed by signal 9 (Killed)",
            "Detected 1 oom-kill event(s)",
            "the spec has resources.memory: 200MB",
            "do: write more resources.memory",
        ),
        ("resources.memory=200MB",),
    ),
    "time-limit": Death(
        ["sleep", "300"],
        (
            "RUN died in attempt 1: it came to its time limit, and had saved nothing new",
            "the spec has resources.time: 1m",
            "do: let it save more often, or xgen resume RUN --set resources.time=N",
        ),
        ("resources.time=1m",),
        stop_now,
    ),
    "cancelled": Death(
        ["sleep", "300"],
        ("RUN was cancelled by a person", "scancel by root, of job JOB", "do: nothing; xgen resume RUN lets it go on"),
        act=scancel,
    ),
    "full-disk": Death(
        python("f = open('/dev/full', 'w'); f.write('x'); f.flush()"),
        (
            "RUN died in attempt 1: a disk is full, or a quota. The first error of rank 0 on n",
            "OSError: [Errno 28] No space left on device",
            "do: make room in the run root",
        ),
    ),
    "small-shm": Death(
        ["unshare", "-m", "sh", "-c", SMALL, PYTHON, SHM],
        (
            "RUN died in attempt 1: /dev/shm is too small. The first error of rank 0 on n",
            "the command was killed by signal 7 (Bus error)",
            "the spec has no container.shm",
            "do: write container.shm: 16GB; then xgen resume RUN",
        ),
    ),
    "native-crash": Death(
        python("import ctypes; ctypes.string_at(0)"),
        (
            "RUN died in attempt 1: a library crashed. The first error of rank 0 on n",
            "the command was killed by signal 11 (Segmentation fault)",
            "do: xgen logs RUN --err shows where",
        ),
    ),
    "missing-module": Death(
        python("import no_such_module"),
        (
            "RUN died in attempt 1: a module or a program is not there. The first error of rank 0 on n",
            "ModuleNotFoundError: No module named 'no_such_module'",
            "do: xgen image check IMAGE says what an image lacks; build it anew, or correct the name",
        ),
    ),
    "missing-program": Death(
        ["no-such-program"],
        (
            "RUN was refused in attempt 1: no try can help. The first error of rank 0 on n",
            "command[0]: cannot start 'no-such-program': No such file or directory do: correct the spec",
        ),
    ),
    "missing-interpreter": Death(
        ["true"],
        (
            "RUN died in attempt 1: the program that starts the tasks is not there. The first error of rank 0: ",
            "task 0 on n",
            "execve(): /opt/venv/bin/python: No such file or directory",
            "do: correct container.python in the profile",
        ),
        interpreter="/opt/venv/bin/python",
    ),
    "killed-task": Death(
        ["sh", "-c", "kill -9 $PPID; sleep 60"],
        (
            "RUN died in attempt 1: something outside killed it: a person, or the system for want of memory. "
            "The first error of rank 0: task 0 on n",
            ": Killed srun: error: n",
            "do: ask who did, and for the system's word: dmesg on the node; then xgen resume RUN",
        ),
    ),
    "silent": Death(
        ["sh", "-c", "echo loading shard 7; exit 3"],
        (
            "RUN died in attempt 1. The first error of rank 0 on n",
            "the command exited with 3 loading shard 7 do: mend what xgen logs RUN shows; then xgen resume RUN",
        ),
    ),
    "hang": Death(
        python("import time\ndef stands():\n    time.sleep(300)\nstands()"),
        (
            "RUN died in attempt 1: it stood still. The first error of rank 0",
            "hung: no sign of progress for ",
            "do: all stacks: attempts/0001/hang/summary.txt; then xgen resume RUN",
        ),
        ("hang.limit=5s",),
    ),
}  # fmt: skip


def submit(cluster: Cluster, folder: Path, command: list[str], *settings: str, **resources: Any) -> RunDir:
    spec = {
        "kind": "command", "name": "dies", "command": command, "lead": "5s",
        "resources": {"gpus_per_node": 1, "time": "5m"} | resources,
    }  # fmt: skip
    (folder / "dies.yaml").write_text(yaml.safe_dump(spec))
    return cluster.submit(folder / "dies.yaml", *settings)


@pytest.mark.together
@pytest.mark.parametrize("name", DEATHS)
def test_a_death_is_told_by_its_first_error_with_what_to_do(cluster: Cluster, tmp_path: Path, name: str) -> None:
    death = DEATHS[name]
    if name == "node-memory" and "task/cgroup" not in scontrol("show", "config"):
        pytest.skip("SLURM limits no memory where slurm/dev/up finds no cgroup v1 to write to")
    profile = yaml.safe_load(cluster.profile.read_text())
    profile["container"]["python"] = death.interpreter
    cluster.profile.write_text(yaml.safe_dump(profile))
    run = submit(cluster, tmp_path, death.command, *death.settings)
    job = (run.path / "jobs/0").read_text().strip()
    if death.act:
        wait_for_event(run, "container_ready")
        death.act(job)
    end: EventName = "cancelled" if name == "cancelled" else "failed"
    wait_for_event(run, end, timeout=120)
    told = ""

    def missing() -> list[str]:
        nonlocal told
        told = why(cluster, run).replace(f"job {job}", "job JOB")
        return [one for one in death.said if one not in told]

    if name == "cancelled":  # of which the accounting hears some seconds later
        wait_until(lambda: not missing(), 60, "the accounting")
    assert not missing(), told


def test_a_run_that_lost_its_node_says_so_and_what_it_waits_for(cluster: Cluster, tmp_path: Path) -> None:
    profile = yaml.safe_load(cluster.profile.read_text())
    profile["partitions"]["why-one"] = {}
    cluster.profile.write_text(yaml.safe_dump(profile))
    scontrol("delete", "PartitionName=why-one", check=False)  # that of a run that was aborted
    try:
        scontrol("create", "PartitionName=why-one", "Nodes=n4")
        run = submit(cluster, tmp_path, ["sleep", "300"], "resources.partition=why-one")
        wait_for_event(run, "container_ready")
        for state in ("down", "drain"):  # down alone it would come back by itself
            scontrol("update", "nodename=n4", f"state={state}", "reason=planted")
        wait_until(
            lambda: any(row.name == run.name and row.reason.startswith("Nodes required") for row in queue()),
            90, "a job that waits for its node",
        )  # fmt: skip
        told = why(cluster, run)
        assert "nodes that it needs are down, drained, reserved or in another's use" in told
        assert "node n4 is drained: planted (root) attempt 1: told to stop: SLURM lost a node do: nothing, if" in told
    finally:
        scontrol("update", "nodename=n4", "state=resume", check=False)
        try:
            empty_the_queue("--partition=why-one")
        finally:
            scontrol("delete", "PartitionName=why-one", check=False)
