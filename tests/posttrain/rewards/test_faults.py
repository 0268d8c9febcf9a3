"""What dies or hangs is replaced, and every task has one verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.posttrain.rewards.conftest import limited, task
from xgen.posttrain.rewards import Task, Verdict, Verifiers, kernel, link, worker
from xgen.posttrain.rewards.jail import Bounds, Isolation
from xgen.spec.rewards import Code, Format, Math

SLOW = "import time\ntime.sleep(0.3)\nprint({number})"


def slow(number: int) -> Task:
    return task(SLOW.format(number=number), Code(kind="code"), tests=[{"input": "", "output": str(number)}])


def collect(verifiers: Verifiers, numbers: set[int], seconds: float = 60.0) -> dict[int, Verdict]:
    """Every number once; an answer that nobody asked for, or a second one, fails."""
    found: dict[int, Verdict] = {}
    until = time.monotonic() + seconds
    while numbers - set(found) and time.monotonic() < until:
        for number, verdict in verifiers.ready(1.0):
            assert number in numbers
            assert number not in found
            found[number] = verdict
    assert set(found) == numbers
    assert verifiers.ready(0.2) == []
    return found


def workers_of(verifiers: Verifiers) -> list[int]:
    server = verifiers._link.process.pid
    return [worker for zygote in kernel.children(server) for worker in kernel.children(zygote)]


def test_generation_goes_on_while_verdicts_are_made() -> None:
    with limited() as verifiers:
        began = time.monotonic()
        numbers = {verifiers.submit(slow(number)) for number in range(4)}
        assert time.monotonic() - began < 0.3
        assert verifiers.ready() == []
        assert {verdict.score for verdict in collect(verifiers, numbers).values()} == {1.0}


def test_what_is_judged_meanwhile_does_not_take_what_was_submitted() -> None:
    with limited() as verifiers:
        numbers = {verifiers.submit(slow(number)) for number in range(3)}
        assert verifiers.judge([task("aa", Format(kind="format", pattern="a+"))])[0].score == 1
        assert len(collect(verifiers, numbers)) == 3


def _kill_workers(verifiers: Verifiers) -> None:
    for pid in workers_of(verifiers):
        os.kill(pid, signal.SIGKILL)


def _kill_server(verifiers: Verifiers) -> None:
    os.kill(verifiers._link.process.pid, signal.SIGKILL)


def _kill_zygotes(verifiers: Verifiers) -> None:
    for pid in kernel.children(verifiers._link.process.pid):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [_kill_workers, _kill_server, _kill_zygotes])
def test_after_kill_9_no_verdict_is_lost_or_given_twice(kill: Callable[[Verifiers], None]) -> None:
    with limited() as verifiers:
        verifiers.judge([task("a", Format(kind="format", pattern="a")), slow(99)])
        numbers = {verifiers.submit(slow(number)) for number in range(6)}
        time.sleep(0.4)
        kill(verifiers)
        found = collect(verifiers, numbers)
        assert {verdict.score for verdict in found.values()} == {1.0}
        assert verifiers.stats().waiting == 0


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_whose_programs_come_from_nowhere_is_replaced(sent: signal.Signals) -> None:
    """All its verdicts failed, for good."""
    with limited(workers=1) as verifiers:
        assert verifiers.judge([slow(0)])[0].score == 1
        (nursery,) = [child for worker in workers_of(verifiers) for child in kernel.children(worker)]
        os.kill(nursery, sent)
        after = [verifiers.judge([slow(number)])[0] for number in (1, 2)]
        assert after[0].failures == ({} if sent == signal.SIGKILL else {"code": "timeout"})
        assert after[1].score == 1


def test_a_worker_that_dies_again_and_again_is_a_failure_of_the_verdict_alone() -> None:
    with limited() as verifiers:
        number = verifiers.submit(slow(1))
        until = time.monotonic() + 20
        found: list[tuple[int, Verdict]] = []
        while not found and time.monotonic() < until:
            _kill_workers(verifiers)
            found = verifiers.ready(0.05)
        ((same, verdict),) = found
        assert same == number
        assert (verdict.score, verdict.failures) == (None, {"code": "crashed"})
        assert verifiers.judge([slow(2)])[0].score == 1


def test_a_server_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_SILENT", 2.0)
    with limited() as verifiers:
        numbers = {verifiers.submit(slow(number)) for number in range(2)}
        stopped = verifiers._link.process
        stopped.send_signal(signal.SIGSTOP)
        assert {verdict.score for verdict in collect(verifiers, numbers).values()} == {1.0}
        assert verifiers.stats().restarts == 1
        assert stopped.poll() is not None


def test_a_worker_that_hangs_is_killed_by_the_clock() -> None:
    with limited(seconds=0.5) as verifiers:
        verifiers.judge([task("a", Format(kind="format", pattern="a"))])
        (worker,) = workers_of(verifiers)
        os.kill(worker, signal.SIGSTOP)
        verdict = verifiers.judge([task("b", Format(kind="format", pattern="b"))])[0]
        assert verdict.failures == {"format": "timeout"}
        assert verifiers.judge([task("c", Format(kind="format", pattern="c"))])[0].score == 1
        assert worker not in workers_of(verifiers)


def test_nothing_is_left_when_the_trainer_is_killed() -> None:
    """Also not what an answer has started."""
    code = (
        "import os, sys, time\nfrom tests.posttrain.rewards.conftest import limited, task\n"
        "from xgen.spec.rewards import Code\nfrom xgen.posttrain.rewards import kernel\nv = limited()\n"
        "bomb = 'import os\\nos.fork()\\nwhile True: pass'\n"
        "v.submit(task(bomb, Code(kind='code'), tests=[{'input': '', 'output': ''}]))\n"
        "time.sleep(1)\nprint(*kernel.descendants(os.getpid()), flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        pids = list(map(int, trainer.stdout.readline().split()))
        trainer.kill()
    assert len(pids) > 8
    until = time.monotonic() + 10
    while time.monotonic() < until and any(_is_alive(pid) for pid in pids):
        time.sleep(0.05)
    assert [pid for pid in pids if _is_alive(pid)] == []


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_after_close_no_process_is_left() -> None:
    verifiers = limited()
    verifiers.judge([slow(1), task("a", Format(kind="format", pattern="a"))])
    pids = [verifiers._link.process.pid, *kernel.descendants(verifiers._link.process.pid)]
    verifiers.submit(slow(2))
    began = time.monotonic()
    verifiers.close()
    assert time.monotonic() - began < 5
    time.sleep(0.2)
    assert [pid for pid in pids if _is_alive(pid)] == []


def test_what_was_judged_is_known_and_failures_are_not() -> None:
    with limited(seconds=0.5) as verifiers:
        right, never = slow(1), task("a" * 50, Format(kind="format", pattern="(a+)+b"))
        first = verifiers.judge([right, right, never])
        again = verifiers.judge([right, never])
        stats = verifiers.stats().kinds
    assert [verdict.score for verdict in first] == [1, 1, None]
    assert again[0].score == 1
    assert again[0].seconds == 0
    assert (stats["code"].verdicts, stats["code"].cached) == (3, 2)
    assert stats["format"].failures == {"timeout": 2}
    assert sum(stats["code"].buckets) == 1
    assert stats["code"].seconds > 0.3


def test_many_submitted_at_once_do_not_block() -> None:
    """More than any socket's buffer holds, with replies that nobody reads meanwhile."""
    with limited() as verifiers:
        tasks = [task(f"{'x' * 20_000}{number}", Format(kind="format", pattern=r"x+\d+")) for number in range(600)]
        numbers = {verifiers.submit(one) for one in tasks}
        found = collect(verifiers, numbers)
        assert {verdict.score for verdict in found.values()} == {1.0}


def test_verifiers_work_in_any_thread() -> None:
    """math-verify's own time-outs do not (its issue 55): the main thread alone has alarms."""
    found: list[Verdict] = []

    def judge() -> None:
        with limited() as verifiers:
            found.extend(verifiers.judge([task("$x+1$", Math(kind="math"), answer="1+x")]))

    thread = threading.Thread(target=judge)
    thread.start()
    thread.join(30)
    assert [verdict.score for verdict in found] == [1.0]


def test_neither_server_nor_workers_load_torch_or_pydantic() -> None:
    code = (
        "import sys\nimport xgen.posttrain.rewards.server, xgen.posttrain.rewards.verify.code\n"
        "import xgen.posttrain.rewards.verify.mathematics, xgen.posttrain.rewards.verify.model\n"
        "sys.exit(bool({'torch', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_the_trainers_environment_and_files_stay_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XGEN_SECRET", "s")
    with (tmp_path / "open").open("w"), limited() as verifiers:
        server = Path(f"/proc/{verifiers._link.process.pid}")
        assert b"XGEN_SECRET" not in (server / "environ").read_bytes()
        open_there = [file.stat().st_ino for file in _files(server / "fd")]
        assert (tmp_path / "open").stat().st_ino not in open_there


def _files(folder: Path) -> list[Path]:
    """Of sockets and pipes that go meanwhile there is nothing to see."""
    return [file for file in folder.iterdir() if file.exists()]


def test_without_math_verify_every_verdict_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)  # an import of it fails
    for name in ("mathematics", "faster"):
        monkeypatch.delitem(sys.modules, f"xgen.posttrain.rewards.verify.{name}", raising=False)
    judge = worker._maker("math")(Isolation("none", False, False), 0, Bounds(1, 1, 1, 1, 1))
    reply = judge({})
    assert (reply.score, reply.failure) == (None, "error")
    assert "xgen[rl]" in reply.detail
