"""The proxies of a regmix job, one after the other: each a training by the trainer itself, in a process of its own.

A proxy has a folder (`xgen.data.curate.proxies`): its spec, its metrics, its checkpoints until it is done, and then
result.json. One that has it is left alone; one without goes on from its newest checkpoint, or begins. Where another run
of the same regmix is at one, the next is taken.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from xgen.data.curate.proxies import Proxy, ProxyResult, proxies_of
from xgen.data.curate.steps.folders import write_json
from xgen.data.curate.steps.lock import LOCK_FILE, take
from xgen.runs import Diverged, RankOutcome, Refused, RunDir, TaskContext, write_atomic
from xgen.runs.bond import die_with_parent
from xgen.runs.outcome import RankStatus
from xgen.spec import Regmix, dump
from xgen.train.run import run_training

_POLL = 0.2  # seconds
_WAIT = 1.0  # for what another run, or rank 0, is at


@dataclass(frozen=True)
class _Ended:
    """How the process of a proxy ended; `diverged` says why of a training that came to its end in vain."""

    status: RankStatus
    reason: str = ""
    diverged: str = ""


def run_proxies(context: TaskContext, job: Regmix, durable: Callable[[int], None]) -> RankOutcome:
    """Train what is not done of a shard's proxies; on all ranks alike. `durable` is told of the steps that are safe.

    Raises StoreError for what the stores do not have.
    """
    mine = proxies_of(job).all[context.shard :: context.num_shards]
    num_steps = job.proxy.stages[0].num_steps
    waiting = False
    _share_imports()
    while True:
        done = [proxy.result_file.exists() for proxy in mine]
        steps = sum(num_steps if one else _newest(proxy) for proxy, one in zip(mine, done, strict=True))
        if context.rank == 0:
            durable(steps)
        left = [proxy for proxy, one in zip(mine, done, strict=True) if not one]
        if not left or context.stop:
            status: RankStatus = "stopped" if left else "finished"
            reason = f"after {context.stop.signal}" if left else ""
            return RankOutcome(status=status, reason=reason, step=steps, time=time.time())
        with _taken(context, left) as proxy:
            if proxy is None:
                if not waiting and context.rank == 0:
                    waiting = True
                    print(f"another run is at what is left, {len(left)} of {len(mine)} proxies", flush=True)
                context.progress.touch()  # that run has a watchdog of its own
                time.sleep(_WAIT)
                continue
            ended = _train(context, proxy)
            if ended.status in ("crashed", "refused"):
                reason = f"proxy {proxy.number}: {ended.reason}"
                return RankOutcome(status=ended.status, reason=reason, step=steps, time=time.time())
            if ended.status == "finished":
                _conclude(context, proxy, ended.diverged, num_steps)


@contextmanager
def _taken(context: TaskContext, left: Sequence[Proxy]) -> Iterator[Proxy | None]:
    """The first proxy that no other run is at. Rank 0 takes it, the kernel takes it back from the dead; the other
    ranks find it by what rank 0 has written."""
    own = f"{context.run.path} attempt {context.attempt}"
    for proxy in left:
        file = proxy.folder / LOCK_FILE
        if context.rank:
            if file.exists() and file.read_text(encoding="utf-8") == own:
                yield proxy
                return
            continue
        proxy.folder.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lock:
            if take(proxy.folder, lock.fileno()) and not proxy.result_file.exists():
                lock.truncate(0)
                print(own, end="", file=lock, flush=True)
                yield proxy
                return
    yield None


def _share_imports() -> None:
    """Import once what takes longer than a tiny proxy. A process may use a GPU only if none asked for one before its
    fork: where there is a driver, each imports by itself."""
    if any(next(Path("/dev").glob(name), None) for name in ("nvidia*", "kfd")):
        return
    import xgen.model  # before anything imports torchtitan: it settles the device
    import xgen.train.config  # noqa: F401


def _newest(proxy: Proxy) -> int:
    return max(RunDir(proxy.folder).checkpoint_steps(), default=0)


def _train(context: TaskContext, proxy: Proxy) -> _Ended:
    """In a child: memory, process groups and whatever else a training leaves behind end with it."""
    run = RunDir(proxy.folder)
    for folder in (run.checkpoints_dir, run.metrics_dir):
        folder.mkdir(parents=True, exist_ok=True)
    if context.rank == 0:
        write_atomic(run.spec_file, dump(proxy.job))
        said = ", ".join(f"{name} {weight:g}" for name, weight in proxy.weights.items())
        print(f"proxy {proxy.number}: {said}", flush=True)
    sys.stderr.flush()
    # Its events would be a second run's in the shard's own.
    own = replace(context, run=run, events=None, stage=0, shard=0, num_shards=1)
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_work, args=(own, proxy, sender, die_with_parent()))
    process.start()
    sender.close()
    told = False
    while process.is_alive():
        process.join(_POLL)
        if context.stop and not told and process.is_alive():
            told = True
            assert process.pid
            os.kill(process.pid, signal.Signals[context.stop.signal])
    context.progress.enter("work")  # the child, whose board is the same, has said what it was at
    try:
        ended: _Ended = receiver.recv()
    except EOFError:
        code = process.exitcode or 0
        said = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        return _Ended("crashed", f"its process {said}")
    return ended


def _work(context: TaskContext, proxy: Proxy, sender: Connection, bind: Callable[[], None]) -> None:
    bind()
    code = 0
    try:
        sender.send(_result(context, proxy))
    except BaseException:  # noqa: BLE001 - the parent learns of it by the exit code
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _result(context: TaskContext, proxy: Proxy) -> _Ended:
    try:
        return _Ended(run_training(context, proxy.job).status)
    except Diverged as error:
        return _Ended("finished", diverged=str(error).partition("; look at")[0])
    except Refused as error:
        return _Ended("refused", str(error))


def _conclude(context: TaskContext, proxy: Proxy, diverged: str, num_steps: int) -> None:
    """Rank 0 writes the result; the others wait for it, so that no rank begins the next proxy while the process that
    had the rendezvous of this one may live."""
    if context.rank:
        while not proxy.result_file.exists() and not context.stop:
            time.sleep(_POLL)
        return
    run = RunDir(proxy.folder)
    losses = {} if diverged else _losses(run, num_steps)
    if not diverged:
        diverged = _why_in_vain(run, losses)
    finite = {name: loss for name, loss in losses.items() if math.isfinite(loss)}
    write_json(proxy.result_file, ProxyResult(weights=proxy.weights, losses=finite, diverged=diverged))
    shutil.rmtree(run.checkpoints_dir, ignore_errors=True)
    print(f"proxy {proxy.number}: {f'diverged: {diverged}' if diverged else 'done'}", flush=True)


def _losses(run: RunDir, step: int) -> dict[str, float]:
    """Held-out, by domain, after the last step."""
    last = [record for record in _records(run.metrics_dir / "validation.jsonl") if record["step"] == step][-1]
    return {name: one["loss"] for name, one in last["domains"].items()}


def _why_in_vain(run: RunDir, losses: dict[str, float]) -> str:
    """Of a training that has learnt nothing; '' for one that has."""
    if bad := next((name for name, loss in losses.items() if not math.isfinite(loss)), None):
        return f"the held-out loss of {bad} is {losses[bad]}"
    trained = {record["step"]: record["loss"] for record in _records(run.metrics_dir / "steps.jsonl")}
    inf = math.inf
    in_order = [inf if trained[step] is None else trained[step] for step in sorted(trained)]
    last = in_order[-max(1, len(in_order) // 10) :]
    begin, end = in_order[0], sum(last) / len(last)
    if not end < begin:
        return f"the training loss is {end:.4g} at the end, and was {begin:.4g} at the first step"
    return ""


def _records(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_text(encoding="utf-8").splitlines())
