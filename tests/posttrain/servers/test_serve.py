"""What keeps a server: it follows the weights, starts it anew when it dies, and ends with the run."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.posttrain.servers.conftest import job_of, wait_until
from xgen.posttrain.servers import run_server, serve
from xgen.posttrain.servers.registry import Server, Watch
from xgen.posttrain.servers.weights import point_to, weights_dir
from xgen.runs import RankOutcome, Refused, RunDir, StopFlag, TaskContext

TINY = [sys.executable, str(Path(__file__).with_name("tiny_server.py")), "--host", "{host}", "--port", "{port}"]


@dataclass
class Kept:
    """A shard in a thread of this process."""

    run: RunDir
    stop: StopFlag = field(default_factory=StopFlag)
    outcome: list[RankOutcome | BaseException] = field(default_factory=list)
    durable: list[int] = field(default_factory=list)
    thread: threading.Thread | None = None

    def begin(self, *more: str, command: list[str] | None = None) -> None:
        job = job_of(command=command or [*TINY, "--model", "{model}"], arguments=list(more))
        context = TaskContext(self.run.shard("rollout", 2), 1, "7_2", 0, 0, 1, self.stop, None, 0, 2, 3)

        def work() -> None:
            try:
                self.outcome.append(run_server(context, job, self.durable.append))
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.outcome.append(error)

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def weights(self, version: int, *, good: bool = True) -> str:
        name = f"v{version}-abcd"
        (weights_dir(self.run) / name).mkdir(parents=True)
        if not good:
            (weights_dir(self.run) / name / "FAIL").touch()
        point_to(self.run, name)
        return name

    def server(self) -> Server | None:
        return next(iter(Watch(self.run).alive()), None)

    def serves(self, name: str, but: float = 0.0) -> Server:
        def found() -> bool:
            server = self.server()
            return server is not None and server.weights == name and server.started != but

        wait_until(found, f"a server with {name}")
        server = self.server()
        assert server
        return server

    def end(self) -> RankOutcome | BaseException:
        assert self.thread
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()
        assert self.server() is None
        return self.outcome[0]


def processes(kept: Kept) -> list[int]:
    """Of the tiny servers of this run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_text()
        except OSError:
            continue
        if "tiny_server.py" in line and str(kept.run.path) in line:
            found.append(int(folder.name))
    return found


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr(serve, "_RESTS", (0.05,))
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    run = RunDir(tmp_path / "small-abc234")
    run.create()
    made = Kept(run)
    yield made
    made.stop.signal = "SIGTERM"
    if made.thread:
        made.thread.join(timeout=30)


def status(outcome: RankOutcome | BaseException) -> str:
    assert isinstance(outcome, RankOutcome), outcome
    return outcome.status


def test_it_waits_for_weights_follows_them_and_ends_with_the_run(kept: Kept) -> None:
    kept.begin()
    assert kept.server() is None
    first = kept.serves(kept.weights(4))
    second = kept.serves(kept.weights(5))
    assert (first.shard, first.url, first.started) == (2, second.url, second.started)
    assert len(processes(kept)) == 1
    kept.run.ended_file.touch()
    assert status(kept.end()) == "finished"
    assert kept.durable == [4, 5]
    assert processes(kept) == []


@pytest.mark.parametrize("by", ["signal", "cancel"])
def test_it_leaves_at_once_when_it_is_told_to(kept: Kept, by: str) -> None:
    kept.begin()
    kept.serves(kept.weights(4))
    if by == "signal":
        kept.stop.signal = "SIGUSR2"
    else:
        kept.run.cancelled_file.touch()
    assert status(kept.end()) == ("stopped" if by == "signal" else "finished")
    assert processes(kept) == []


def test_weights_that_are_gone_before_they_are_loaded_cost_no_server(kept: Kept) -> None:
    kept.begin()
    first = kept.serves(kept.weights(4))
    point_to(kept.run, "v5-abcd")  # the trainer has done two steps since, and keeps two versions
    time.sleep(1)
    assert kept.serves(kept.weights(6)).started == first.started


def test_one_that_starts_with_weights_that_go_meanwhile_is_not_given_up(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_FAILURES", 1)
    weights_dir(kept.run).mkdir()
    point_to(kept.run, "v5-abcd")
    kept.begin()
    time.sleep(1.5)
    kept.serves(kept.weights(6))


def test_before_there_are_weights_it_ends_too(kept: Kept) -> None:
    kept.begin()
    kept.run.ended_file.touch()
    assert status(kept.end()) == "finished"


def test_a_server_that_is_killed_is_started_anew_with_the_weights_that_count(kept: Kept) -> None:
    kept.begin()
    first = kept.serves(kept.weights(4))
    [pid] = processes(kept)
    name = kept.weights(5, good=False)  # it cannot be swapped, but started with
    second = kept.serves(name, but=first.started)
    [other] = processes(kept)
    assert other != pid
    os.kill(other, signal.SIGKILL)
    kept.serves(name, but=second.started)
    assert len(processes(kept)) == 1


def test_a_server_that_lives_and_does_not_answer_is_started_anew(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_CHECK", 0.05)
    monkeypatch.setattr(serve, "_UNWELL", 2)
    monkeypatch.setattr("xgen.posttrain.servers.process._HEALTH", 0.3)
    kept.begin()
    name = kept.weights(4)
    first = kept.serves(name)
    [pid] = processes(kept)
    os.kill(pid, signal.SIGSTOP)
    kept.serves(name, but=first.started)
    assert pid not in processes(kept)


def test_a_server_that_never_comes_up_is_a_failure_of_the_shard(kept: Kept) -> None:
    kept.weights(4)
    kept.begin("--fail")
    outcome = kept.end()
    assert isinstance(outcome, RuntimeError)
    assert str(outcome) == "the server failed 5 times at once: the server exited with 3"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/none/vllm", "{port}", "{model}"], "rollout.servers.command: cannot start '/none/vllm': No such file"),
        (["/etc/passwd", "{port}", "{model}"], "cannot start '/etc/passwd': Permission denied"),
    ],
)
def test_a_command_that_no_node_can_start_is_refused(kept: Kept, command: list[str], said: str) -> None:
    kept.weights(4)
    kept.begin(command=command)
    outcome = kept.end()
    assert isinstance(outcome, Refused)
    assert said in str(outcome)


def test_what_it_needs_is_in_the_image_of_a_server_and_torch_is_not_asked_for() -> None:
    """A rollout image has vLLM's packages and nothing of xgen's."""
    import re
    import subprocess

    from tests.conftest import ROOT

    code = "import sys, xgen.cli.task, xgen.posttrain.servers; print(*{n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lock = (ROOT / "docker/rollout/requirements.lock").read_text(encoding="utf-8")
    there = {name.lower().replace("-", "_") for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
    there |= {"yaml" if name == "pyyaml" else name for name in there}
    loaded = {name for name in done.stdout.split() if not name.startswith("_")} - set(sys.stdlib_module_names)
    optional = {"brotli", "zstandard", "cython_runtime"}  # httpx takes them where they are
    assert loaded - there - {"xgen"} - optional - _own_files() == set()
    assert "torch" not in loaded


def _own_files() -> set[str]:
    """Modules that site-packages brings in by .pth files of this environment."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, timeout=60
    )
    return {name.partition(".")[0] for name in done.stdout.split()}
