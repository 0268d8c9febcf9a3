"""A job is submitted once, whatever becomes of the client and of the answer.

`jobs/STAGE.asked` is there before sbatch is called: the key that goes with the submission, as a word of the job's
comment. Where no answer came, SLURM is asked for the key before anything is tried again. The file goes once the number
of the job is on disk. One that is left tells the next command that a client has died in between: it asks, and takes
the job in.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from xgen.cluster import slurm
from xgen.runs import EventWriter, RunDir, new_run_id, read_events, write_atomic

_PATIENCE = float(os.environ.get("XGEN_SUBMIT_PATIENCE") or 180)  # seconds in all, for a controller that restarts
_SETTLE = min(15.0, _PATIENCE / 4)  # seconds in which one that answers again has read all that it was told before
_LONGEST = 30.0  # seconds between two questions
_TRIES = 3


@dataclass(frozen=True)
class Asked:
    """A submission under way: `host` and `pid` are the client's."""

    key: str
    time: float
    host: str
    pid: int

    @property
    def word(self) -> str:
        """In the comment of the job."""
        return f"xgen:{self.key}"

    @property
    def is_under_way(self) -> bool:
        """Whether its client may still be at it. It gives up in time; on this machine its process tells too, as long as
        that number is not another's."""
        if time.time() > self.time + 2 * _PATIENCE:
            return False
        if self.host != os.uname().nodename:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.pid != os.getpid()


def new_key() -> Asked:
    """Of a submission by this process."""
    return Asked(new_run_id(), time.time(), os.uname().nodename, os.getpid())


@dataclass(frozen=True)
class Clock:
    """Time, as the waiting knows it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def submit_once(
    run: RunDir,
    stage: int,
    script: str,
    num_tasks: int,
    environment: Mapping[str, str],
    comment: str = "",
    clock: Clock | None = None,
) -> str:
    """Submit the script of a stage; returns the number of its job, which is in the run's jobs/STAGE then.

    Raises SchedulerError where there is no such job, UnansweredError where nobody says whether there is one: then
    jobs/STAGE.asked stays.
    """
    asked = new_key()
    write_atomic(_file(run, stage), json.dumps(asdict(asked)) + "\n")
    try:
        job_id = submit_keyed(run.name, asked, script, run.path / "submissions", num_tasks, environment, comment, clock)
    except slurm.UnansweredError:
        raise
    except slurm.SchedulerError:
        _file(run, stage).unlink(missing_ok=True)
        raise
    _take_in(run, stage, job_id)
    return job_id


def submit_keyed(
    name: str,
    asked: Asked,
    script: str,
    folder: Path,
    num_tasks: int,
    environment: Mapping[str, str],
    comment: str = "",
    clock: Clock | None = None,
) -> str:
    """Submit a job of that name with its key in the comment, and ask for the key where no answer comes. Returns its
    number. Raises SchedulerError where there is no such job, UnansweredError where nobody says whether there is one."""
    clock = clock or Clock()
    deadline = clock.now() + _PATIENCE
    said = ""
    for _ in range(_TRIES):
        try:
            words = f"{comment} {asked.word}".strip()
            job = slurm.submit_script(script, folder, num_tasks, environment, words)
        except slurm.UnansweredError as error:
            said = str(error)
            print(f"the scheduler: {error}; asking whether it has heard the submission", file=sys.stderr, flush=True)
            found = _await(lambda: slurm.find_commented(name, asked.word), deadline, clock)
            if not found and clock.now() < deadline:
                continue
            if not found:
                break
            return found[0]
        if said:
            _leave_one(name, asked, str(job.job_id))
        return str(job.job_id)
    raise slurm.SchedulerError(f"{said}; it has no such job, and was told {_TRIES} times")


def _await(ask: Callable[[], list[str]], deadline: float, clock: Clock) -> list[str]:
    """The jobs, none where the scheduler has said so for a while. Raises UnansweredError where it does not answer."""
    pause, quiet_since = 1.0, None
    while True:
        try:
            if found := ask():
                return found
            quiet_since = clock.now() if quiet_since is None else quiet_since
            if clock.now() >= quiet_since + _SETTLE:
                return []
        except slurm.SchedulerError as error:
            quiet_since = None
            if clock.now() + pause > deadline:
                said = f"{error}, for {_PATIENCE:.0f} s; whether it has the job is not known"
                raise slurm.UnansweredError(said) from None
        clock.sleep(pause)
        pause = min(2 * pause, _LONGEST if quiet_since is None else _SETTLE / 3)


def _leave_one(name: str, asked: Asked, job_id: str) -> None:
    """What was told more than once, and heard late, is one job. The run's lock would keep two apart, but a job that
    waits in vain helps nobody."""
    with suppress(slurm.SchedulerError):
        if twins := [one for one in slurm.find_commented(name, asked.word) if one != job_id]:
            slurm.command("scancel", *twins)


def _take_in(run: RunDir, stage: int, job_id: str) -> None:
    write_atomic(run.job_file(stage), job_id + "\n")
    _file(run, stage).unlink(missing_ok=True)


def adopt(run: RunDir) -> list[str]:
    """Jobs that a client has submitted and not lived to note, taken in now; what was never heard is forgotten. Raises
    SchedulerError where the scheduler does not say."""
    adopted = []
    for stage, asked in list(asked_of(run)):
        if asked.is_under_way or run.path.stat().st_uid != os.getuid():
            continue
        if found := slurm.find_commented(run.name, asked.word):
            _take_in(run, stage, found[-1])
            reason = "found in the queue: the client that submitted it has died"
            client = EventWriter(run, "client", _attempt_before(run, found[-1]), found[-1])
            client.write("queued", reason=reason, durable=True)
            adopted.append(found[-1])
        elif time.time() > asked.time + _SETTLE + 5:
            _file(run, stage).unlink(missing_ok=True)
    return adopted


def _attempt_before(run: RunDir, job_id: str) -> int:
    """The attempt that a job was submitted after; it may have begun its own meanwhile."""
    began = [e.attempt for e in read_events(run) if e.event == "started" and e.job_id.partition("_")[0] == job_id]
    return min(began) - 1 if began else run.last_attempt()


def asked_of(run: RunDir) -> Iterator[tuple[int, Asked]]:
    """Submissions of a run of which nobody has noted an answer, by their stage."""
    try:
        names = [entry.name for entry in os.scandir(run.job_file(0).parent) if entry.name.endswith(".asked")]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for name in names:
        with suppress(OSError, ValueError, TypeError):
            stage = int(name.removesuffix(".asked"))
            yield stage, Asked(**json.loads(_file(run, stage).read_text(encoding="utf-8")))


def _file(run: RunDir, stage: int) -> Path:
    return run.job_file(stage).with_name(f"{stage}.asked")
