"""The stop flag: no signal is lost while handlers are not there yet, and the first one stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from xgen.runs import STOP_SIGNALS, StopFlag


@pytest.fixture(autouse=True)
def _handlers_as_they_were() -> Iterator[None]:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    yield
    for number, handler in zip(STOP_SIGNALS, before, strict=True):
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def send(number: signal.Signals) -> None:
    """To this thread: one of another test, which blocks nothing, would take it and end the process."""
    signal.pthread_kill(threading.get_ident(), number)
    time.sleep(0)  # the handler runs between two instructions of this thread


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_sent_while_blocked_arrives_when_armed(number: signal.Signals) -> None:
    flag = StopFlag()
    send(number)
    assert not flag
    assert flag.signal == ""
    before = time.time()
    flag.arm()
    assert flag
    assert flag.signal == number.name
    assert before <= flag.time <= time.time()


def test_a_second_signal_keeps_the_first() -> None:
    flag = StopFlag()
    flag.arm()
    send(signal.SIGUSR2)
    first = flag.time
    send(signal.SIGTERM)
    send(signal.SIGUSR2)
    assert (flag.signal, flag.time) == ("SIGUSR2", first)


def test_without_a_signal_the_flag_is_down() -> None:
    flag = StopFlag()
    flag.arm()
    assert (bool(flag), flag.signal, flag.time) == (False, "", 0.0)


def test_a_signal_at_any_moment_of_the_start_does_not_kill_the_task() -> None:
    """The first line of the task blocks it; python's own start is the only gap, and the host knows it."""
    code = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGTERM));"
        "print('blocked', flush=True);"
        "import time; time.sleep(0.3);"
        "from xgen.runs import StopFlag; flag = StopFlag(); flag.arm(); print(flag.signal)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdout
    assert child.stdout.readline() == "blocked\n"
    child.send_signal(signal.SIGUSR2)
    assert child.communicate(timeout=30)[0] == "SIGUSR2\n"
    assert child.returncode == 0
