"""Runs on the local executor: a project and a profile per test, and nothing left alive after it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, xgen
from xgen.cluster import local
from xgen.cluster.prepare import prepare
from xgen.cluster.status import QueueView, run_status
from xgen.cluster.submit import submit
from xgen.runs import Event, EventName, RunDir, read_attempt_outcome, read_events
from xgen.spec import load_job, load_profile

COUNTER = ROOT / "tests/cluster/work/counter.py"
PROFILE = f"""\
scheduler: local
run_root: runs
gpus: {{request: none, flops: 12G}}
partitions:
  gpu: {{max_time: 1h, default: true}}
  preempt: {{max_time: 1h, preemptible: true, grace: 20s}}
container: {{python: {sys.executable}}}
kill_wait: 2s
"""


def wait_until(condition: Callable[[], object], what: Callable[[], str], timeout: float = 90) -> None:
    """Poll until the condition holds; fails the test with `what` when it does not in time (seconds)."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:.0f} s: {what()}")
        time.sleep(0.02)


@dataclass
class Bench:
    """Submits jobs to the local executor from one project folder."""

    path: Path
    runs: list[RunDir] = field(default_factory=list)

    def submit(self, command: list[str], **keys: Any) -> RunDir:
        resources = {"nodes": 1, "gpus_per_node": 2, "time": "5m"} | keys.pop("resources", {})
        spec = {"kind": "command", "name": "job", "command": command, "lead": "10s", "resources": resources} | keys
        (self.path / "job.yaml").write_text(yaml.safe_dump(spec))
        prepared = prepare(load_job(self.path / "job.yaml"), "local", load_profile(self.path / "local.yaml"))
        submit(prepared)
        self.runs.append(prepared.run)
        return prepared.run

    def count(self, *arguments: object, **keys: Any) -> RunDir:
        """The torch-free job of tests/cluster: counts, saves when told to stop, resumes."""
        return self.submit([sys.executable, str(COUNTER), *map(str, arguments)], **keys)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "local.yaml").write_text(PROFILE)
    made = Bench(folder)
    yield made
    for run in made.runs:
        local.send(run, signal.SIGTERM)
    for run in made.runs:
        wait_until(lambda run=run: not local.is_alive(run), lambda run=run: f"the end of {run.name}: {tell(run)}", 15)


def events(run: RunDir, name: EventName) -> list[Event]:
    return [e for e in read_events(run) if e.event == name]


def wait_for(run: RunDir, name: EventName, attempt: int | None = None) -> Event:
    def found() -> Event | None:
        return next((e for e in events(run, name) if attempt in (None, e.attempt)), None)

    wait_until(found, lambda: f"{name} of attempt {attempt}: {tell(run)}")
    event = found()
    assert event is not None
    return event


def exit_code(run: RunDir) -> int:
    """Waits for the supervisor of a run, which is a child of this process, and returns its exit code."""
    pid, ended = int((run.path / "local/pid").read_text()), []

    def has_ended() -> bool:
        ended.extend([os.waitpid(pid, os.WNOHANG)] if not ended else [])
        if ended[-1][0] != pid:
            ended.clear()
        return bool(ended)

    wait_until(has_ended, lambda: f"the end of {run.name}: {tell(run)}")
    return os.waitstatus_to_exitcode(ended[0][1])


def steps(run: RunDir, rank: int = 0) -> list[tuple[int, int]]:
    """(step, attempt) of every step that a rank of a counter job has done."""
    file = run.path / f"steps.{rank}"
    rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(int(row[0]), int(row[1])) for row in rows if len(row) == 2]


def wait_for_steps(run: RunDir, number: int) -> None:
    wait_until(lambda: len(steps(run)) >= number, lambda: f"{number} steps: {tell(run)}")


def tell(run: RunDir) -> str:
    """What a person would look at when a test fails."""
    logs = sorted([*run.attempts_dir.glob("*/*.log"), *run.path.glob("local/*.log")])
    texts = [f"{p.parent.name}/{p.name}: {p.read_text(errors='replace')[-600:]}" for p in logs[-5:]]
    return "\n".join([*(e.to_line().strip() for e in read_events(run)[-8:]), *texts])


def status(run: RunDir, attempt: int) -> str:
    outcome = read_attempt_outcome(run, attempt)
    return outcome.status if outcome else "none"


def reason(run: RunDir, attempt: int) -> str:
    outcome = read_attempt_outcome(run, attempt)
    return outcome.reason if outcome else "none"


def assert_every_step_once(run: RunDir, total: int) -> None:
    assert [step for step, _ in steps(run)] == list(range(1, total + 1))


def task_pids(run: RunDir) -> dict[int, int]:
    """Process id by rank of the tasks of a run."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"xgen.cli.task" in words and os.fsencode(run.path) in words and b"local_srun" not in b"".join(words):
                env = dict(p.split(b"=", 1) for p in (folder / "environ").read_bytes().split(b"\0") if b"=" in p)
                found[int(env[b"SLURM_PROCID"])] = int(folder.name)
        except (OSError, KeyError, ValueError):
            continue
    return found


def processes(run: RunDir, word: str = "") -> list[int]:
    """What lives of a run's work, by its environment: srun, tasks and commands; those whose command line has `word`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            environment = (folder / "environ").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if f"XGEN_RUN_DIR={run.path}".encode() in environment:
                found.append((int(folder.name), (folder / "cmdline").read_text()))
        except OSError:
            continue
    return [pid for pid, line in found if word in line]


def batch_script(run: RunDir) -> int:
    """Process id of the bash that runs the script."""
    for folder in Path("/proc").iterdir():
        try:
            if (folder / "cmdline").read_text().split("\0")[:2] == ["bash", f"{run.path}/local/script-0.sh"]:
                return int(folder.name)
        except OSError:
            continue
    pytest.fail(f"no batch script: {tell(run)}")


def supervisor(run: RunDir) -> int:
    return int((run.path / "local/pid").read_text())


def state(run: RunDir) -> str:
    return run_status(run, QueueView(None)).state


def assert_all_gone(run: RunDir, seconds: float = 5) -> None:
    wait_until(lambda: not processes(run), lambda: f"the end of {processes(run)}: {tell(run)}", seconds)


def assert_resumes_alone(bench: Bench, run: RunDir) -> None:
    """After a resume every step is of the new attempt."""
    attempt = run.last_attempt() + 1  # it may have begun before the command has ended
    done = xgen("resume", run.name, "--cluster", str(bench.path / "local.yaml"))
    assert done.returncode == 0, done.stderr
    wait_for(run, "started", attempt)
    before = len(steps(run))
    wait_until(lambda: len(steps(run)) >= before + 20, lambda: tell(run))
    assert {attempt for _, attempt in steps(run)[before:]} == {run.last_attempt()}
