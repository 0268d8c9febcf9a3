"""Two hundred answers that attack their verifier: each ends within its limit, none harms another, all are counted."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.hostile import SECRET, Hostile, hostile_answers
from tests.conftest import ROOT
from tests.posttrain.rewards.conftest import limited, task
from xgen.posttrain.rewards import Task, Verifiers, kernel
from xgen.spec.rewards import Code, Math

SECONDS = 1.0  # of an answer; a right one needs a tenth, and five times that on a busy machine (seen)
GRACE = 2.5  # for a verdict: what a busy machine adds
EVERY = 6  # hostile answers to one that is right
QUICK = 8  # one of so many is in the quick selection


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hostile]]:
    """With the secret where it may be looked for: in the environment, a file and two sockets."""
    monkeypatch.setenv("XGEN_SECRET", SECRET)
    place = tmp_path / "secret"
    place.write_text(SECRET)
    name = str(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as web, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        for listener in (web, abstract):
            threading.Thread(target=_tell, args=(listener,), daemon=True).start()
        yield hostile_answers(str(place), web.getsockname()[1], name)


def _tell(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(SECRET.encode())


def _right(number: int) -> Task:
    if number % 2:
        return task(f"The sum is {number}.", Math(kind="math"), answer=str(number))
    return task(f"def f(x): return x + {number}", Code(kind="code"), tests=[f"assert f(2) == {number + 2}"])


def check(verifiers: Verifiers, answers: Sequence[Hostile]) -> None:
    """Submits all at once, right answers between them."""
    asked: dict[int, Hostile | None] = {}
    for number, answer in enumerate(answers):
        asked[verifiers.submit(task(answer.answer, answer.reward, **answer.record))] = answer
        if number % EVERY == 0:
            asked[verifiers.submit(_right(number))] = None
    expected = len(asked)
    until = time.monotonic() + 30 + len(answers) * SECONDS
    while asked and time.monotonic() < until:
        for number, verdict in verifiers.ready(1.0):
            hostile = asked.pop(number)
            if hostile is None:
                assert verdict.score == 1, verdict
                continue
            assert verdict.score in (0, None), f"{hostile.name} has passed"
            assert verdict.seconds < SECONDS + GRACE, f"{hostile.name} took {verdict.seconds:.1f} s"
            assert (verdict.score is None) == bool(verdict.failures), hostile.name
    assert not asked, [answer.name for answer in asked.values() if answer]
    stats = verifiers.stats()
    assert sum(kind.verdicts + sum(kind.failures.values()) for kind in stats.kinds.values()) == expected
    assert stats.restarts == 0
    assert sum(stats.kinds["code"].failures.values()) == 0  # what a program does is its own fault
    assert stats.kinds["code"].faults["timeout"] > 0
    assert stats.kinds["math"].failures["timeout"] > 0
    assert sum(stats.kinds["math"].failures.values()) + stats.kinds["math"].verdicts >= 3
    _check_that_nothing_is_left(verifiers)


def _check_that_nothing_is_left(verifiers: Verifiers) -> None:
    """Below the server stand its zygotes, their workers, and what code workers fork programs from."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        zygotes = kernel.children(verifiers._link.process.pid)
        workers = [worker for zygote in zygotes for worker in kernel.children(zygote)]
        nurseries = [nursery for worker in workers for nursery in kernel.children(worker)]
        programs = [program for nursery in nurseries for program in kernel.descendants(nursery)]
        if not programs and len(workers) <= 12 and len(nurseries) <= 4:
            break
        time.sleep(0.1)
    assert (len(zygotes), programs) == (5, [])
    assert len(nurseries) <= 4 < len(workers) <= 12
    assert list(Path(verifiers._link._folder).iterdir()) == []
    for folder in ("/", "/usr", "/etc", "/dev", os.path.dirname(os.__file__)):  # noqa: PTH120
        assert not Path(folder, "xgen-was-here").exists()


def test_hostile_answers_of_every_kind_are_contained(answers: list[Hostile]) -> None:
    with limited(workers=4, seconds=SECONDS) as verifiers:
        check(verifiers, answers[::QUICK])


@pytest.mark.slow
def test_two_hundred_hostile_answers_are_contained(answers: list[Hostile]) -> None:
    assert len(answers) >= 200
    with limited(workers=4, seconds=SECONDS) as verifiers:
        check(verifiers, answers)


_NAMESPACES = """
import ctypes, os, platform
c = ctypes.CDLL(None, use_errno=True)
clone = 220 if platform.machine() == "aarch64" else 56
for flags in (0x20000, 0x4000000, 0x8000000, 0x10000000, 0x10020000, 0x20000000, 0x40000000):
    made = c.syscall(clone, flags | 17, 0, 0, 0, 0)
    if made == 0:
        os._exit(0)
    print(made, ctypes.get_errno())
print(c.syscall(435, 0, 0), ctypes.get_errno())
print(c.syscall(430, b"tmpfs", 0), ctypes.get_errno())
"""


def test_an_answer_makes_no_namespace_in_which_it_would_be_root() -> None:
    """Processes and threads it may make (test_code.py)."""
    with limited() as verifiers:
        refused = f"-1 {errno.EPERM}\n"
        printed = 7 * refused + f"-1 {errno.ENOSYS}\n" + refused
        verdict = verifiers.judge([task(_NAMESPACES, Code(kind="code"), tests=[{"input": "", "output": printed}])])[0]
        assert verdict.score == 1, verdict


# Without root: its own mounts let another user find this Python, whose folder may be root's alone.
_AS_ANOTHER = """
set -e
mount --make-rprivate /
mkdir "$1/home"
mount --bind /root "$1/home"
mount -t tmpfs -o mode=755 tmpfs /root
for path in "$1"/home/.[a-z]*/; do
    name=$(basename "$path")
    mkdir "/root/$name"
    mount --bind "$path" "/root/$name"
done
shift
exec setpriv --reuid 1234 --regid 1234 --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""


def _run_as_another(tmp_path: Path, *prefix: str, share: int) -> str:
    command = ["unshare", "-m", "sh", "-c", _AS_ANOTHER, "sh", str(tmp_path), *prefix, sys.executable, "-m"]
    command += [__name__, str(share)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")


@needs_root
def test_without_root_a_user_namespace_contains_them_as_well(tmp_path: Path) -> None:
    said = _run_as_another(tmp_path, share=QUICK)
    assert said.startswith("verifiers: a user namespace\n")
    assert "passed" not in said


def test_in_a_rootless_container_a_user_namespace_contains_them_and_right_answers_pass() -> None:
    """Its root is one user alone, who cannot become another, and as whom all processes of the host's user count."""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-m", __name__, str(QUICK)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("verifiers: a user namespace\n") and "passed" not in done.stdout


@needs_root
def test_without_namespaces_limits_hold_and_what_is_missing_is_said(tmp_path: Path) -> None:
    """A user who stands in no map of users may make no namespace. Files that anybody may read are read."""
    said = _run_as_another(tmp_path, "unshare", "-U", share=QUICK)
    assert said.startswith("verifiers: limits only; NOT on this machine: files of others hidden, processes of others")
    assert said.splitlines()[1:] == []


def _main() -> None:
    """Of another user: says what holds the answers, and who has passed all the same."""
    os.environ["XGEN_SECRET"] = SECRET
    answers = hostile_answers("/nowhere", 9, "nobody")[:: int(sys.argv[1])]
    with limited(workers=4, seconds=SECONDS) as verifiers:
        print(verifiers.isolation)
        check(verifiers, answers)


if __name__ == "__main__":
    _main()
