"""What goes wrong with a source is that source's alone, is seen at once, and never holds up a scrape."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.core import Metric

from tests.conftest import ROOT
from tests.metrics.fake_slurm import DOWN, FakeSlurm, Series, read_page, slurm, value, wait_for
from tests.metrics.fleet_runs import PRETRAIN, FleetRun, fleet, root
from xgen.metrics.exporter import Collector, CollectorError, Exporter
from xgen.metrics.exporter import poller as poller_module
from xgen.metrics.exporter.collector import REASONS, gauge
from xgen.metrics.exporter.command import output
from xgen.metrics.slurm import collectors

__all__ = ["root", "slurm"]
INTERVAL, TIMEOUT = 0.3, 0.25  # seconds; in place of 30 and 25


class Watched:
    """An exporter with all collectors of SLURM at a hundred times their pace, and what it says."""

    def __init__(self, more: Iterable[Collector] = ()) -> None:
        self.said: list[str] = []
        every = [*collectors(["gpu"]), *more]
        for collector in every:
            collector.interval, collector.timeout = INTERVAL, TIMEOUT
        self.exporter = Exporter(every, "1.2.3", log=self.said.append)
        self.exporter.start()

    def scrape(self) -> Series:
        began = time.monotonic()
        text = self.exporter.page().decode()
        assert time.monotonic() - began < 0.1
        return read_page(text)

    def success(self, collector: str) -> float | None:
        return value(self.scrape(), "xgen_exporter_collector_success", collector=collector)

    def errors(self, collector: str, reason: str) -> float:
        found = value(self.scrape(), "xgen_exporter_collector_errors_total", collector=collector, reason=reason)
        assert found is not None
        return found


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start(*more: Collector) -> Watched:
        started.append(Watched(more))
        wait_for(lambda: all(poller.healthy() for poller in started[-1].exporter.pollers.values()))
        return started[-1]

    yield start
    for watched in started:
        watched.exporter.close()
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("poll-")])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


FAULTS = {
    "hangs": ("sleep 600", "timeout"),
    "hangs in a child": ("sleep 600 & wait", "timeout"),
    "prints and hangs": ("echo '101|alice|ml|gpu'; sleep 600", "timeout"),
    "garbage": ("head -c 20000 /dev/urandom", "malformed"),
    "half a table": ("printf '101|alice|ml|gpu|RUNNING|16|1795687000|cpu=1|None\\n102|bob|ml|gp'", "malformed"),
    "without an end": ("while :; do echo y; sleep 0.02; done", "timeout"),
    "down": (DOWN, "exit"),
    "killed": ("kill -9 $$", "exit"),
}


@pytest.mark.parametrize(("script", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_queue_that_does_not_answer_is_dropped_and_nothing_else_is(
    slurm: FakeSlurm, watch: Callable[..., Watched], script: str, reason: str
) -> None:
    watched = watch()
    assert value(watched.scrape(), "slurm_jobs_pending") == 7
    slurm.say("squeue", script)
    wait_for(lambda: watched.errors("queue", reason) > 0)
    assert watched.success("queue") == 0
    # Not at once: one failure must not make a hole in every curve. After three intervals it is stale.
    wait_for(lambda: value(watched.scrape(), "slurm_jobs_pending") is None, 3 * INTERVAL + 1)
    series = watched.scrape()
    assert value(series, "xgen_exporter_series", collector="queue") == 0
    assert value(series, "slurm_nodes_total") == 6
    others = [name for name in watched.exporter.pollers if name != "queue"]
    wait_for(lambda: all(watched.success(name) for name in others))
    said = [line for line in watched.said if line.startswith("queue: ")]
    assert len(said) == 1  # and not at every poll
    assert said[0].startswith(f"queue: {reason}: ")

    slurm.say("squeue", "true")
    wait_for(lambda: value(watched.scrape(), "slurm_jobs_pending") == 0)
    assert watched.success("queue") == 1
    assert "queue: is back" in watched.said


def test_a_failure_shows_for_as_long_as_it_may_as_what_was_last_true(
    slurm: FakeSlurm, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    slurm.say("squeue", "exit 1")
    wait_for(lambda: watched.errors("queue", "exit") > 0)
    assert value(watched.scrape(), "slurm_jobs_pending") == 7


def test_a_controller_that_is_down_is_seen_as_such_and_every_blindness_too(
    slurm: FakeSlurm, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    assert value(watched.scrape(), "xgen_slurm_controller_up") == 1
    for command in ("squeue", "sinfo", "sdiag", "sshare", "scontrol"):
        slurm.say(command, DOWN)
    wait_for(lambda: value(watched.scrape(), "xgen_slurm_controller_up") == 0)
    wait_for(lambda: not any(watched.success(name) for name in ("queue", "nodes", "scheduler", "shares")))
    wait_for(lambda: watched.success("controller") == watched.success("ended") == 1)
    said = [line for line in watched.said if line.startswith("nodes: ")]
    assert said == ["nodes: exit: sinfo: slurm_load_jobs error: Unable to contact slurm controller (connect failure)"]
    for command in ("squeue", "sinfo", "sdiag", "sshare", "scontrol"):
        slurm.say(command, "sleep 600")
    wait_for(lambda: watched.errors("nodes", "timeout") > 0)
    assert value(watched.scrape(), "xgen_slurm_controller_up") == 0


def test_a_command_that_hangs_is_killed_with_all_that_it_started(slurm: FakeSlurm, tmp_path: Path) -> None:
    script = f"echo $$ >{tmp_path}/parent; sleep 600 & echo $! >{tmp_path}/child; trap '' TERM; wait; wait"
    slurm.say("squeue", script)
    with pytest.raises(CollectorError, match=r"squeue did not answer within 0.5 s"):
        output(("squeue",), 0.5)
    pids = [int((tmp_path / name).read_text()) for name in ("parent", "child")]
    wait_for(lambda: not any(alive(pid) for pid in pids), 2)


def test_one_that_left_its_group_and_keeps_the_pipe_does_not_hold_it_up(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.say("squeue", f"setsid sleep 30 & echo $! >{tmp_path}/child; exit 0")
    began = time.monotonic()
    with pytest.raises(CollectorError, match="did not answer"):
        output(("squeue",), 0.5)
    assert time.monotonic() - began < 2
    os.kill(int((tmp_path / "child").read_text()), 9)


def test_output_without_bound_is_not_kept(slurm: FakeSlurm) -> None:
    from xgen.metrics.exporter import command

    slurm.say("squeue", "yes")
    with pytest.raises(CollectorError, match="more than 1000000 bytes") as caught:
        list(command.chunks(("squeue",), 30, max_output=1_000_000))
    assert caught.value.reason == "malformed"
    assert command._running == set()


def test_closing_kills_what_still_runs(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.say("squeue", f"echo $$ >{tmp_path}/pid; sleep 600")
    exporter = Exporter(collectors([]), "1.2.3", log=lambda _: None)
    exporter.start()
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    exporter.close()
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(pid), 3)


def test_a_machine_without_slurm_says_so(slurm: FakeSlurm, watch: Callable[..., Watched]) -> None:
    watched = watch()
    for command in ("squeue", "scontrol"):
        slurm.remove(command)
    os.environ["PATH"] = str(slurm.bin)
    wait_for(lambda: watched.errors("queue", "missing") > 0 and watched.errors("controller", "missing") > 0)
    assert any("is SLURM's client on PATH" in line for line in watched.said)


class Faulty:
    """A collector with a fault of its own."""

    name, interval, timeout = "faulty", INTERVAL, TIMEOUT

    def __init__(self, poll: Callable[[], Iterable[Metric]] = lambda: [gauge("faulty", "It works.", 1)]) -> None:
        self.poll = poll


def test_a_fault_of_ours_is_one_collectors_too_and_leaves_a_trace(
    slurm: FakeSlurm, watch: Callable[..., Watched]
) -> None:
    faulty = Faulty()
    watched = watch(faulty)

    def half() -> Iterator[Metric]:
        yield gauge("faulty", "Half a result is none.", 2)
        raise ZeroDivisionError("by zero")

    faulty.poll = half
    wait_for(lambda: watched.errors("faulty", "crashed") > 0)
    assert value(watched.scrape(), "faulty") in (1, None)
    [said] = [line for line in watched.said if line.startswith("faulty: ")]
    assert said.startswith("faulty: crashed: ZeroDivisionError")
    assert "Traceback" in said
    faulty.poll = lambda: [gauge("faulty", "It works.", 3)]
    wait_for(lambda: value(watched.scrape(), "faulty") == 3)


def test_a_poll_that_never_comes_back_is_a_failure(slurm: FakeSlurm, watch: Callable[..., Watched]) -> None:
    faulty, release = Faulty(), threading.Event()
    watched = watch(faulty)

    def stuck() -> Iterable[Metric]:
        release.wait(30)  # as a read of a dead file system
        return []

    faulty.poll = stuck
    wait_for(lambda: watched.success("faulty") == 0, 3 * INTERVAL + 2)
    assert value(watched.scrape(), "faulty") is None
    wait_for(lambda: watched.success("queue") == 1)
    release.set()


def test_more_series_than_anybody_wants_are_a_fault(
    slurm: FakeSlurm, watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch()
    monkeypatch.setattr(poller_module, "MAX_SERIES", 50)
    wait_for(lambda: watched.errors("nodes", "too_many_series") > 0)
    wait_for(lambda: watched.success("controller") == 1)


def test_no_label_is_so_long_that_prometheus_refuses_the_page(
    slurm: FakeSlurm, watch: Callable[..., Watched], root: Path
) -> None:
    jobs = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    limit = min(job["label_value_length_limit"] for job in jobs if "label_value_length_limit" in job)
    for project in ("p" * (limit + 1), "é" * (limit - 1)):
        FleetRun(root, f"of-{ord(project[0])}-k3f9ab", PRETRAIN | {"project": project}).told(time.time(), "started")
    watched = watch(fleet(root))
    wait_for(lambda: watched.success("runs") == 1)
    told = {dict(labels)["project"] for name, labels in watched.scrape() if name == "xgen_run_info"}
    assert told == {"p" * (limit - 1), "é" * ((limit - 1) // 2)}


def test_all_reasons_are_there_before_anything_failed(slurm: FakeSlurm, watch: Callable[..., Watched]) -> None:
    series = watch().scrape()
    name = "xgen_exporter_collector_errors_total"
    assert {reason: value(series, name, collector="queue", reason=reason) for reason in REASONS} == dict.fromkeys(
        REASONS, 0
    )


def test_scrapes_ask_slurm_for_nothing(slurm: FakeSlurm) -> None:
    exporter = Exporter(collectors([]), "1.2.3", log=lambda _: None)
    exporter.start()
    wait_for(lambda: all(poller.healthy() for poller in exporter.pollers.values()))
    before = slurm.calls.read_text()

    def scrape() -> None:
        for _ in range(50):
            exporter.page(gzip=True)

    threads = [threading.Thread(target=scrape) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert slurm.calls.read_text() == before
    exporter.close()
