"""The campaign: runs are submitted, faults come at their steps and at random moments, until every run has ended."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.alarms.lab import Bench
from benchmarks.alarms.watch import LabError
from benchmarks.chaos.inject import mend_all, on_cluster, on_run
from benchmarks.chaos.plan import ClusterFault, Kind, Planned, RunFault
from benchmarks.common import ROOT
from xgen.cluster.prepare import prepare
from xgen.cluster.settle import is_not_launched
from xgen.cluster.slurm import SchedulerError
from xgen.cluster.status import QueueView, ask_queue, run_status
from xgen.cluster.submit import submit
from xgen.runs import RunDir
from xgen.spec import load_job, load_profile

TRAINING_STEPS = 40
# How many may not have ended: two cores bear no more trainings, and of commands some have to wait for a controller that
# is killed under their submission.
_AT_ONCE: dict[Kind, int] = {"command": 24, "training": 3}
# Of one thing that is done, while a controller is away: the campaign goes on.
_FAILURES = (LabError, OSError, ValueError, subprocess.SubprocessError)
_ENDED = ("finished", "failed", "cancelled")
_ASK_EVERY = 3.0  # seconds between two squeue
_TEND_EVERY = 20.0  # seconds between two looks of a person at runs that are lost, or that SLURM holds
_TRAINING = (
    "resources.nodes=1", "resources.gpus_per_node=2", "resources.memory=3GB", "resources.partition=preempt",
    "stages.0.parallelism.fsdp=2", "stages.0.seq_len=64", "stages.0.global_batch=128", "stages.0.lr.warmup=4",
    "checkpoint.every=8", "data.max_epochs=1000", "guard.non_finite=stop",
)  # fmt: skip
_PATIENT = ("lead=20s", "restart.max_failures=4", "restart.backoff.first=1s", "restart.backoff.most=4s")


@dataclass
class Injection:
    """One fault: when it came, and the runs that it hit."""

    fault: RunFault | ClusterFault
    time: float
    runs: tuple[str, ...] = ()


@dataclass
class Live:
    """A run on its way."""

    planned: Planned
    run: RunDir
    left: list[tuple[RunFault, int]]
    state: str = "pending"
    held: bool = False

    @property
    def job(self) -> str:
        return self.run.job_file(0).read_text().strip()

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED

    @property
    def rightly_stopped(self) -> bool:
        return self.state == "failed" and self.planned.lasting is not None

    def ends_itself(self, fault: RunFault) -> bool:
        return self.planned.kind == "command" and fault in ("NaN", "crash", "time limit")

    def step(self) -> int:
        """The last that any of its ranks has done: those of a command do not wait for one another."""
        with suppress(OSError):
            if self.planned.kind == "training":
                return (self.run.metrics_dir / "steps.jsonl").read_bytes().count(b"\n")
            lines = [line for file in self.run.path.glob("steps.*") for line in file.read_text().splitlines()]
            return max((int(line.split()[0]) for line in lines if line.endswith("step")), default=0)
        return 0


@dataclass
class Campaign:
    """All runs of a plan, on a bench."""

    lab: Bench
    waiting: list[Planned]
    project: Path
    faults: Iterable[tuple[float, ClusterFault, str]] = ()  # of the cluster: seconds before each, and its node
    at_once: Mapping[Kind, int] = field(default_factory=lambda: _AT_ONCE)
    live: dict[str, Live] = field(default_factory=dict)
    injections: list[Injection] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # submissions that said no
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def runs(self) -> list[Live]:
        """Those that were submitted so far; the thread of the faults submits some too."""
        return list(self.live.values())

    def play(self, seconds: float, say: Callable[[str], None]) -> None:
        """Until every run has ended, or for so long."""
        until = time.monotonic() + seconds
        done = threading.Event()
        attack = threading.Thread(target=self._attack, args=(done, say))
        if self.faults:
            attack.start()
        try:
            asked = tended = shown = 0.0
            while time.monotonic() < until and (self.waiting or not all(one.has_ended for one in self.runs)):
                now = time.monotonic()
                if now > shown + 15:
                    say(self._sum())
                    shown = now
                try:
                    self._submit_some(8)
                    if now > asked + _ASK_EVERY:
                        asked = now
                        self._look()
                    if now > tended + _TEND_EVERY:
                        tended = now
                        self._tend()
                    self._strike()
                except _FAILURES as error:
                    say(str(error))
                time.sleep(0.3)
            with suppress(*_FAILURES):
                self._strike()  # what the last ones did to themselves
        finally:
            done.set()
            if self.faults:
                attack.join(timeout=300)
        say(self._sum())

    def _submit_some(self, most: int) -> None:
        """The next of those that wait, as far as there is room for them."""
        with self._lock:
            room = {kind: limit - self._num_on_their_way(kind) for kind, limit in self.at_once.items()}
            for planned in list(self.waiting):
                if room[planned.kind] > 0 and most > 0:
                    room[planned.kind] -= 1
                    most -= 1
                    self._submit(planned)

    def _num_on_their_way(self, kind: Kind) -> int:
        return sum(one.planned.kind == kind and not one.has_ended for one in self.runs)

    def _submit_one(self) -> list[str]:
        """The next command that waits, whether there is room or not."""
        with self._lock:
            commands = [planned for planned in self.waiting if planned.kind == "command"]
            return self._submit(commands[0]) if commands else []

    def _submit(self, planned: Planned) -> list[str]:
        """The run's name; nothing where the submission was refused."""
        profile = load_profile(self.lab.cluster.profile)
        if planned.kind == "command":
            loaded = load_job(self.project / "chain.yaml", _chain(planned))
        else:
            tokens = f"stages.0.tokens={128 * planned.steps}"
            settings = [f"name={planned.name}", *_TRAINING, *_PATIENT, "hang.limit=20s", tokens]
            loaded = load_job(ROOT / "jobs/tiny/pretrain.yaml", settings)
        prepared = prepare(loaded, str(self.lab.cluster.profile), profile)
        try:
            submit(prepared, (lambda run: self.lab.prepare(run, step=0.25)) if planned.kind == "training" else _nothing)
        except (SchedulerError, OSError) as error:  # a person would write it again
            self.refused.append(f"{planned.name}: {error}")
            return []
        self.waiting.remove(planned)
        self.live[prepared.run.name] = Live(planned, prepared.run, list(planned.faults))
        return [prepared.run.name]

    def _look(self) -> None:
        view = ask_queue([one.run for one in self.runs]) if self.live else QueueView({})
        if view.jobs is None:
            return  # unknown is not gone
        for one in self.runs:
            if not one.has_ended:
                status = run_status(one.run, view)
                row = view.jobs.get(one.run.name)
                one.state, one.held = status.state, row is not None and is_not_launched(row)

    def _tend(self) -> None:
        """A person looks, which settles what ended without a decision, and lets go what SLURM holds after a start that
        failed."""
        for one in self.runs:
            if one.state == "lost" or one.held:
                self.lab.cluster.xgen("status", one.run.name)

    def _strike(self) -> None:
        for one in [live for live in self.runs if live.left and (live.state == "running" or live.has_ended)]:
            fault, step = one.left[0]
            # What a command does to itself may have ended it before anybody looked.
            if one.step() < step or (one.has_ended and not one.ends_itself(fault)):
                continue
            came = time.time()
            if on_run(fault, self.lab, one.run, one.job):
                one.left.pop(0)
                self.injections.append(Injection(fault, came, (one.run.name,)))

    def _attack(self, done: threading.Event, say: Callable[[str], None]) -> None:
        for pause, fault, node in self.faults:
            if done.wait(pause):
                break
            came = Injection(fault, time.time())
            self.injections.append(came)
            try:
                names = on_cluster(fault, self.lab, node, self._submit_one, self._stop_one)
                came.runs = tuple(name for name in names if name in self.live)
            except _FAILURES as error:
                say(f"{fault} on {node}: {error}")
                with suppress(*_FAILURES):
                    mend_all(self.lab)
        mend_all(self.lab)

    def _stop_one(self) -> list[str]:
        running = [one for one in self.runs if one.state == "running"]
        if not running:
            return []
        one = random.choice(running)
        return [one.run.name] if on_run("signal", self.lab, one.run, one.job) else []

    def _sum(self) -> str:
        states = [one.state for one in self.runs]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"{len(self.waiting)} to submit, {counts}; {len(self.injections)} faults"


def _nothing(_: RunDir) -> None:
    pass


def _chain(planned: Planned) -> list[str]:
    command = [sys.executable, str(Path(__file__).with_name("chain.py")), str(planned.steps)]
    for fault, option in (("NaN", "--nan-at"), ("crash", "--crash-at")):
        command += [text for name, step in planned.faults if name == fault for text in (option, str(step))]
    limit = "1m" if planned.has("time limit") else "5m"
    words = ", ".join(f'"{word}"' for word in command)
    return [f"name={planned.name}", f"command=[{words}]", f"resources.time={limit}", "hang.limit=15s", *_PATIENT]


def make_project(folder: Path) -> Path:
    """What the torch-free runs are submitted from."""
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "chain.yaml").write_text(
        "kind: command\nname: chain\ncommand: [python3]\n"
        "resources: {partition: preempt, nodes: 1, gpus_per_node: 2, memory: 200MB, time: 5m}\n"
    )
    return folder


def undisturbed(lab: Bench, project: Path, steps: int, say: Callable[[str], None]) -> RunDir:
    """The training that all others have to equal. Raises LabError."""
    campaign = Campaign(lab, [Planned(9999, "training", steps, ())], project)
    campaign.play(300, say)
    for one in campaign.live.values():
        if one.state == "finished":
            return one.run
    raise LabError("the undisturbed training has not finished")
