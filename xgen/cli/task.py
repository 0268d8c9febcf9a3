"""`python -m xgen.cli.task RUN_DIR`: one rank of a run, started by srun.

The stop signals are blocked by the first line and delivered once the flag is armed: one that met Python's
default handler would kill the rank, and importing takes time.
"""

import signal

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGTERM))

import errno
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from xgen.cli.task_evaluate import evaluate
from xgen.cli.task_point import is_point, work_point
from xgen.cli.task_train import work
from xgen.cluster.secrets import KEY_VARIABLE, unseal
from xgen.hang.board import Progress
from xgen.hang.limits import Limits
from xgen.hang.start import start_watchdog
from xgen.runs import (
    EXIT_FAILED,
    EXIT_FINISHED,
    EXIT_REFUSED,
    EXIT_STOPPED,
    STOP_SIGNALS,
    EventWriter,
    RankOutcome,
    Refused,
    RunDir,
    StopFlag,
    TaskContext,
)
from xgen.runs.bond import die_with_parent
from xgen.runs.shards import mark_durable
from xgen.spec import Command, Curate, Evaluate, Export, Job, Pretrain, Regmix, Rl, SpecError, Tuned, load_resolved
from xgen.spec.units import format_bytes

# A collective that gives up: who did not come is what a person wants to know.
_WAITED_IN_VAIN = re.compile(r"Timed out waiting \d+ms|collective operation timeout", re.IGNORECASE)
_LAST_WORDS = 180.0  # seconds for the watchdogs


def main() -> int:
    """Run the rank, write its outcome, return the exit code: 0 unless it crashed or refused."""
    stop = StopFlag()
    stop.arm()
    if len(sys.argv) != 2 or "SLURM_PROCID" not in os.environ:
        print("usage: xgen-task RUN_DIR, started by srun; people write: xgen submit SPEC", file=sys.stderr)
        return 2
    context = _context(RunDir(Path(sys.argv[1])), stop)
    outcome = _work(context)
    outcome.write(context.run, context.attempt, context.rank)
    match outcome.status:
        case "refused":
            print(f"xgen: {outcome.reason}", file=sys.stderr)
            return EXIT_REFUSED
        case "crashed":
            return EXIT_FAILED
        case _:
            return EXIT_FINISHED


def _context(whole: RunDir, stop: StopFlag) -> TaskContext:
    shard = os.environ.get("XGEN_SHARD")
    run = whole if shard is None else RunDir(Path(os.environ["XGEN_RUN_DIR"]))
    rank, attempt, job_id = (
        int(os.environ["SLURM_PROCID"]),
        int(os.environ["XGEN_ATTEMPT"]),
        os.environ["SLURM_JOB_ID"],
    )
    return TaskContext(
        run=run,
        attempt=attempt,
        job_id=job_id,
        rank=rank,
        local_rank=int(os.environ["SLURM_LOCALID"]),
        world_size=int(os.environ["SLURM_NTASKS"]),
        stop=stop,
        events=EventWriter(run, "rank0", attempt, job_id) if rank == 0 else None,
        stage=int(os.environ["XGEN_STAGE"]),
        shard=int(shard or 0),
        num_shards=int(os.environ.get("XGEN_NUM_SHARDS", "1")),
    )


def _work(context: TaskContext) -> RankOutcome:
    try:
        job = load_resolved(context.run.spec_file)
        context = replace(context, progress=_watchdog(context, job))
        _watch_client()
        _settle_home()
        _check_shm(job)
        if key := os.environ.pop(KEY_VARIABLE, ""):
            os.environ.update(unseal(context.run, key))
        if context.events:
            context.events.write("container_ready")
        if is_point(context):
            return work_point(context, job, lambda own: _do(own, job))
        return _do(context, job)
    except (Refused, SpecError) as error:
        return RankOutcome(status="refused", reason=str(error), time=time.time())
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is its outcome
        traceback.print_exc()
        if _WAITED_IN_VAIN.search(str(error)):
            context.progress.lost(_LAST_WORDS)
        return RankOutcome(status="crashed", reason=_one_line(error), time=time.time())


def _do(context: TaskContext, job: Job) -> RankOutcome:
    """The work of a kind. Raises Refused and SpecError for what no other try can help."""
    match job:
        case Rl() if job.serves(context.stage):
            return _serve(context, job)
        case Pretrain() | Tuned():
            return work(context, job)
        case Export():
            return _export(context, job)
        case Curate():
            return _curate(context, job)
        case Regmix():
            return _regmix(context, job)
        case Evaluate():
            return evaluate(context, job)
        case Command():
            return _command(context, job)
        case _:
            raise Refused(f"{type(job).__name__} is no work of a task")


def _watchdog(context: TaskContext, job: Job) -> Progress:
    """Start the process that ends this rank when it hangs. What trains says itself how far it is from its start on."""
    progress = start_watchdog(
        run=context.run.path,
        attempt=context.attempt,
        job_id=context.job_id,
        rank=context.rank,
        local_rank=context.local_rank,
        world_size=context.world_size,
        limits=Limits(job.hang.seconds, job.hang.learns),
        dump_time=job.hang.dump,
        bind=die_with_parent(),
    )
    if isinstance(job, Command):
        progress.enter("command")
    elif not isinstance(job, Pretrain | Tuned) or job.serves(context.stage):
        progress.enter("work")
    return progress


def _watch_client() -> None:
    """End with the `docker run` that started this task: the container is dockerd's child, and would outlive it."""
    client = os.environ.get("XGEN_CLIENT")
    if client is None:
        return

    def end_with(pidfd: int) -> None:
        select.select([pidfd], [], [])
        os.killpg(0, signal.SIGKILL)

    try:
        pidfd = os.pidfd_open(int(client))
    except ProcessLookupError:
        os._exit(EXIT_FAILED)
    threading.Thread(target=end_with, args=(pidfd,), daemon=True).start()


def _settle_home() -> None:
    """The home of the host is not in the container; what libraries keep there goes to the node's own disk."""
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK):
        return
    place = Path(tempfile.gettempdir()) / f"xgen-home-{os.getuid()}"
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    if place.stat().st_uid != os.getuid():
        raise PermissionError(f"{place} belongs to somebody else; remove it from {os.uname().nodename}")
    os.environ["HOME"] = str(place)


def _check_shm(job: Job) -> None:
    """Raises OSError: the attempt fails, for another node may have the room."""
    wanted = job.container.shm
    if wanted is None:
        return
    room = os.statvfs("/dev/shm")
    if room.f_bavail * room.f_frsize < wanted:
        raise OSError(
            f"container.shm: /dev/shm of {os.uname().nodename} has {format_bytes(room.f_bavail * room.f_frsize)} free, "
            f"the spec needs {format_bytes(wanted)}; have it enlarged or tidied, or write less"
        )


def _one_line(error: BaseException) -> str:
    """The error as one line of at most 300 characters: the whole of it is in err.log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _export(context: TaskContext, job: Export) -> RankOutcome:
    from xgen.train.export import run_export

    result = run_export(context, job)
    reason = f"after {result.signal}" if result.signal else ""
    return RankOutcome(status=result.status, reason=reason, step=result.step, time=time.time())


def _curate(context: TaskContext, job: Curate) -> RankOutcome:
    """A shard of a step. Each result that is complete counts as a checkpoint: a shard that gets on is not given up."""
    from xgen.data.curate.steps.run import Shard, Watch, run_step
    from xgen.data.errors import InterruptedBuildError, StoreError

    done = 0

    def items(number: int, total: int) -> None:
        nonlocal done
        del total
        done = number
        context.progress.touch()
        if job.array_of(context.stage):
            mark_durable(context.run, number)

    try:
        watch = Watch(stopped=lambda: bool(context.stop), items=items)
        status = run_step(job, job.steps[context.stage], Shard(context.shard, context.num_shards), watch)
    except InterruptedBuildError:
        raise
    except StoreError as error:
        raise Refused(str(error)) from None
    reason = f"after {context.stop.signal}" if status == "stopped" else ""
    return RankOutcome(status=status, reason=reason, step=done, time=time.time())


def _regmix(context: TaskContext, job: Regmix) -> RankOutcome:
    from xgen.data.errors import StoreError

    try:
        if job.array_of(context.stage):
            from xgen.train.proxies import run_proxies

            return run_proxies(context, job, durable=lambda steps: mark_durable(context.run, steps))
        from xgen.data.curate.regmix_report import write_fit

        write_fit(job)
    except StoreError as error:
        raise Refused(str(error)) from None
    return RankOutcome(status="finished", time=time.time())


def _serve(context: TaskContext, job: Rl) -> RankOutcome:
    from xgen.posttrain.servers import run_server

    return run_server(context, job, durable=lambda version: mark_durable(context.run, version))


def _command(context: TaskContext, job: Command) -> RankOutcome:
    """Run the command as a child and pass the stop signal on.

    Whether SLURM signals every process of a step or only the one it started depends on ProctrackType, so the child
    may hear the signal twice; a second one changes nothing by contract.
    """
    names = {
        "XGEN_RANK": context.rank,
        "XGEN_LOCAL_RANK": context.local_rank,
        "XGEN_WORLD_SIZE": context.world_size,
        "XGEN_PYTHON": sys.executable,
    }
    environment = os.environ | {name: str(value) for name, value in names.items()}
    try:
        child = subprocess.Popen(job.command, env=environment)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:  # the same on every node
        raise Refused(f"command[0]: cannot start {job.command[0]!r}: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            raise Refused(f"command[0]: cannot start {job.command[0]!r}: {error.strerror}") from None
        raise
    code = _wait(child, context.stop)
    if code == 0:
        return RankOutcome(status="finished", time=time.time())
    if code == EXIT_REFUSED:
        return RankOutcome(status="refused", reason="the command exited with 78", time=time.time())
    if code == EXIT_STOPPED:
        return RankOutcome(status="stopped", reason="the command exited with 75", time=time.time())
    # A program that knows nothing of the stop signal dies of it: it was stopped, it did not fail.
    if context.stop and -code in STOP_SIGNALS:
        return RankOutcome(status="stopped", reason=f"{context.stop.signal} ended it", time=time.time())
    said = f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exited with {code}"
    return RankOutcome(status="crashed", reason=f"the command {said}", time=time.time())


def _wait(child: subprocess.Popen[bytes], stop: StopFlag) -> int:
    """The child's exit code, -N when signal N ended it. The job's time limit bounds the wait."""
    told = False
    while True:
        try:
            return child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if stop and not told:
                told = True
                child.send_signal(signal.Signals[stop.signal])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is said and on disk; taking torch down in order would cost seconds of the grace
