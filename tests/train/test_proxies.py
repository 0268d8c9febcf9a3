"""Proxies of a regmix: real trainings, one after the other, whatever is killed or told to stop in between."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_unit.conftest import Bench, bench, exit_code, task_pids, tell, wait_until
from tests.conftest import ROOT
from tests.train.forked import SPEC
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit
from xgen.data.curate.proxies import Proxy, proxies_of
from xgen.data.curate.regmix_report import FACTS_FILE, PAGE_FILE, write_fit
from xgen.data.curate.weights import WEIGHTS_FILE
from xgen.runs import RankOutcome, RunDir, StopFlag, TaskContext
from xgen.spec import Regmix, load_job, load_profile

__all__ = ["bench"]
STEPS = 6
STAGE: dict[str, Any] = {
    "name": "proxy", "tokens": STEPS * 256, "seq_len": 64, "global_batch": 256, "lr": {"peak": 1e-2, "warmup": 1},
}  # fmt: skip
JOB: dict[str, Any] = {
    "kind": "regmix",
    "name": "mix",
    "resources": {"time": "5m", "gpus_per_node": 1},
    "lead": "30s",
    "proxy": {
        **{key: SPEC[key] for key in ("model", "data", "deterministic")},
        "stages": [STAGE],
        "checkpoint": {"every": 2, "mode": "sync"},
        "validation": {"store": str(ROOT / ".cache/tiny-store"), "tokens": 512},
    },
    "num_proxies": 10,
    "target": {"code": 1, "literature": 1},
}


def load(folder: Path, **keys: Any) -> Regmix:
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB | {"out": str(folder / "out")} | keys))
    job = load_job(folder / "job.yaml").job
    assert isinstance(job, Regmix)
    return job


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Task:
    """Ranks of one attempt on a shard, forked from a process that has imported torch."""

    def __init__(self, job: Regmix, folder: Path, shard: int = 0, count: int = 1, world_size: int = 1) -> None:
        self._job, self._run, self._shard, self._count = job, RunDir(folder / f"shard-{shard}"), shard, count
        self._run.attempt_dir(1).mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self.pids = [self._fork(rank, world_size) for rank in range(world_size)]

    def _fork(self, rank: int, world_size: int) -> int:
        if pid := os.fork():
            return pid
        try:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._port), "GLOO_SOCKET_IFNAME": "lo"}
            log = os.open(self._run.attempt_dir(1) / f"log.{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # not pytest's
            stop = StopFlag()
            stop.arm()
            from xgen.train.proxies import run_proxies

            context = TaskContext(self._run, 1, "1", rank, rank, world_size, stop, None, 0, self._shard, self._count)
            run_proxies(context, self._job, lambda _: None).write(self._run, 1, rank)
        finally:
            os._exit(0)

    def wait(self, timeout: float = 120) -> list[RankOutcome]:
        for pid in self.pids:
            wait_until(partial(_ended, pid), self.log, timeout)
        files = sorted(self._run.attempt_dir(1).glob("outcome.*.json"))
        return [RankOutcome.model_validate_json(file.read_bytes()) for file in files]

    def log(self) -> str:
        return "\n".join(file.read_text()[-3000:] for file in self._run.attempt_dir(1).glob("log.*"))


def _ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def outputs(job: Regmix) -> dict[str, bytes]:
    return {name: (Path(job.out) / name).read_bytes() for name in (WEIGHTS_FILE, FACTS_FILE, PAGE_FILE)}


def steps(proxy: Proxy) -> list[int]:
    file = proxy.folder / "metrics/steps.jsonl"
    return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.exists() else []


def when(condition: Callable[[], object], log: Callable[[], str]) -> None:
    wait_until(condition, log, 90)


def test_weights_are_the_same_with_other_shards_and_after_a_kill(_warm: None, tmp_path: Path, bench: Bench) -> None:
    expected = load(tmp_path)
    assert [outcome.status for outcome in Task(expected, tmp_path).wait()] == ["finished"]
    write_fit(expected)

    job = load(bench.path, array={"shards": 2})
    prepared = prepare(load_job(bench.path / "job.yaml"), "local", load_profile(bench.path / "local.yaml"))
    submit(prepared)
    run = prepared.run
    bench.runs.append(run)
    first, second = proxies_of(job).all[0:4:2]
    when(lambda: len(steps(second)) > 3, lambda: tell(run))  # its checkpoint of step 2 is there
    (pid,) = task_pids(run).values()
    done = first.result_file.stat().st_mtime_ns
    os.kill(pid, signal.SIGKILL)
    when((Path(job.out) / WEIGHTS_FILE).exists, lambda: tell(run))
    assert exit_code(run) == 0
    shard = run.shard("proxies", 0)
    assert shard.last_attempt() == 2 and run.shard("proxies", 1).last_attempt() == 1
    assert shard.checkpoint_steps() == [5 * STEPS]
    assert (first.result_file.stat().st_mtime_ns, steps(first)) == (done, list(range(1, STEPS + 1)))
    assert (steps(second).count(1), max(steps(second))) == (1, STEPS)  # it went on from a checkpoint
    assert outputs(job) == outputs(expected)
    assert not [proxy for proxy in proxies_of(job).all if (proxy.folder / "checkpoints").exists()]


def test_a_stop_saves_the_proxy_under_way_on_all_ranks(_warm: None, tmp_path: Path) -> None:
    job = load(tmp_path, resources={"time": "5m", "gpus_per_node": 2})
    first, second, third = proxies_of(job).all[0:9:4]
    task = Task(job, tmp_path, 0, 4, world_size=2)
    when(lambda: len(steps(second)) > 0, task.log)
    for pid in task.pids:
        os.kill(pid, signal.SIGUSR2)
    assert {outcome.status for outcome in task.wait()} == {"stopped"}, task.log()
    assert first.result() and not second.result() and not third.folder.exists()
    saved = max(RunDir(second.folder).checkpoint_steps())
    task = Task(job, tmp_path, 0, 4, world_size=2)
    assert [outcome.status for outcome in task.wait()] == ["finished"] * 2, task.log()
    assert steps(second) == list(range(1, STEPS + 1)) and saved < STEPS
    assert second.result() and third.result()


def test_what_another_run_is_at_is_left_to_it_and_taken_over_from_the_dead(_warm: None, tmp_path: Path) -> None:
    job = load(tmp_path, resources={"time": "5m", "gpus_per_node": 2})
    first, *others = proxies_of(job).all[::4]
    one = Task(job, tmp_path / "one", 0, 4)
    when(lambda: steps(first), one.log)
    os.kill(one.pids[0], signal.SIGSTOP)  # it holds the first, and never says that it is done
    two = Task(job, tmp_path / "two", 0, 4, world_size=2)
    when(lambda: all(proxy.result() for proxy in others), two.log)
    when(lambda: "another run is at what is left, 1 of 3 proxies\n" in two.log(), two.log)
    assert len(others) == 2 and not first.result()
    assert f"proxy {first.number}" not in two.log()
    os.kill(one.pids[0], signal.SIGKILL)
    assert [outcome.status for outcome in two.wait()] == ["finished"] * 2, two.log()
    os.waitpid(one.pids[0], 0)
    for proxy in (first, *others):
        assert proxy.result() and steps(proxy) == list(range(1, STEPS + 1))


class _Late(StopFlag):
    """Comes in the moment when the process of a proxy has ended."""

    signal = "SIGUSR2"

    def __init__(self) -> None:
        pass

    def __bool__(self) -> bool:
        return not multiprocessing.active_children()


def test_a_stop_in_the_moment_a_proxy_ends_is_no_crash(
    _warm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xgen.train.proxies import _train

    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    context = TaskContext(RunDir(tmp_path / "run"), 1, "1", 0, 0, 1, _Late(), None)
    assert _train(context, proxies_of(load(tmp_path)).all[0]).status == "stopped"


@pytest.mark.parametrize(
    ("peak", "guard", "said"),
    [
        (1e30, {"non_finite": "stop"}, "step 2: "),
        (3.0, {}, "the training loss is "),
    ],
)
def test_a_proxy_that_diverges_says_why(
    _warm: None, tmp_path: Path, peak: float, guard: dict[str, str], said: str
) -> None:
    job = load(tmp_path, proxy=JOB["proxy"] | {"stages": [STAGE | {"lr": {"peak": peak}}], "guard": guard})
    task = Task(job, tmp_path, 3, 10)
    assert [outcome.status for outcome in task.wait()] == ["finished"], task.log()
    result = proxies_of(job).all[3].result()
    assert result and result.diverged.startswith(said), result


def test_what_is_refused_is_the_shards_refusal(_warm: None, tmp_path: Path) -> None:
    job = load(tmp_path, proxy=JOB["proxy"] | {"stages": [STAGE | {"attention": "flash"}]})
    (outcome,) = Task(job, tmp_path, 7, 10).wait()
    assert outcome.status == "refused"
    assert outcome.reason.startswith("proxy 7: stages.proxy.attention: ")
