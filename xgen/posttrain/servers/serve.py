"""The `rollout` stage of an rl run: one shard starts one server, keeps it alive, and gives it the weights that count.

The trainer knows the server by its file in RUN/servers only. It ends with the run, or when it is told to stop: then
its job is queued again, and what it was at is asked for elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from xgen.posttrain.servers.drivers import DRIVERS, BadAnswerError
from xgen.posttrain.servers.process import Ended, ServerProcess
from xgen.posttrain.servers.registry import BEAT, Server, beat, deregister, register
from xgen.posttrain.servers.weights import current, version_of, weights_dir
from xgen.runs import RankOutcome, RunDir, TaskContext
from xgen.spec import Rl

_POLL = 0.2  # seconds
_LOADING = 1800.0  # seconds to have weights at all, from a start or a swap
_CHECK, _UNWELL = 10.0, 6  # seconds between checks of its health, and those in a row that end it
_LASTS = 60.0  # seconds that a server lives which did not fail at once
_FAILURES = 5  # in a row that failed at once, and the shard gives up
_RESTS = (1.0, 2.0, 5.0, 15.0, 30.0)


class _Over(Exception):  # noqa: N818 - a fact
    """The run has ended, or the shard is told to stop."""


def run_server(context: TaskContext, job: Rl, durable: Callable[[int], None]) -> RankOutcome:
    """The one task of a shard. `durable` is told of each version that is served, so that a shard that gets on is not
    given up. Raises RuntimeError for a server that does not come up; another node may start it."""
    return Shard(context, job, durable).run()


class Shard:
    """One server over the attempts of its process."""

    def __init__(self, context: TaskContext, job: Rl, durable: Callable[[int], None]) -> None:
        assert job.rollout.servers
        self._context, self._spec, self._durable = context, job.rollout.servers, durable
        self._run = RunDir(context.run.path.parents[2])  # the shard's own is RUN/shards/STAGE/NUMBER
        self._driver = DRIVERS[self._spec.kind]()
        self._host = os.environ.get("MASTER_ADDR", "127.0.0.1")  # as SLURM itself reaches this node
        self._client = httpx.Client(timeout=_LOADING, trust_env=False)
        self._threads = ThreadPoolExecutor(1)
        self._beaten = self._next_check = 0.0
        self._unwell = 0  # checks in a row
        self._loading = ""  # name of the weights

    def run(self) -> RankOutcome:
        failures = 0
        try:
            while True:
                began = time.monotonic()
                try:
                    self._serve()
                except Ended as ended:
                    failures = 0 if time.monotonic() - began > _LASTS else failures + (not self._is_outrun)
                    if failures >= _FAILURES:
                        raise RuntimeError(f"the server failed {failures} times at once: {ended}") from None
                    print(f"xgen: {ended}; it is started anew", flush=True)
                self._pause(_RESTS[min(failures, len(_RESTS)) - 1] if failures else 0.0)
        except _Over:
            stopped = bool(self._context.stop)
            reason = f"after {self._context.stop.signal}" if stopped else ""
            return RankOutcome(status="stopped" if stopped else "finished", reason=reason, time=time.time())
        finally:
            deregister(self._run, self._context.shard)
            self._client.close()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        """One process, until it ends (raises Ended) or all is over (raises _Over)."""
        name = self._loading = self._first_weights()
        with self._process(name) as process:
            self._await_health(process)
            started = time.time()
            self._register(process, name, started)
            while True:
                self._pause(_POLL, process)
                self._check_health(process)
                if (wanted := current(self._run)) and wanted != name and self._swap(process, wanted):
                    name = wanted
                    self._register(process, name, started)

    def _first_weights(self) -> str:
        while (name := current(self._run)) is None:
            self._pause(_POLL)
        return name

    @contextmanager
    def _process(self, name: str) -> Iterator[ServerProcess]:
        command = [*(self._spec.command or self._driver.command), *self._spec.arguments]
        process = ServerProcess.start(command, self._host, weights_dir(self._run) / name, self._driver.environment)
        try:
            yield process
        finally:
            deregister(self._run, self._context.shard)  # first: nobody is sent to what is about to end
            process.end()

    def _await_health(self, process: ServerProcess) -> None:
        deadline = time.monotonic() + _LOADING
        while not process.is_healthy(self._client):
            self._pause(_POLL, process)
            if time.monotonic() > deadline:
                raise Ended(f"the server is not healthy within {_LOADING:.0f} s")
        self._unwell = 0

    def _check_health(self, process: ServerProcess) -> None:
        """Now and then. Raises Ended for a process that lives and does not answer."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + _CHECK
        self._unwell = 0 if process.is_healthy(self._client) else self._unwell + 1
        if self._unwell >= _UNWELL:
            raise Ended(f"the server has not answered for {_UNWELL * _CHECK:.0f} s")

    def _register(self, process: ServerProcess, name: str, started: float) -> None:
        server = Server(shard=self._context.shard, url=process.url, weights=name, started=started)
        register(self._run, server)
        self._durable(version_of(name) or 0)
        print(f"xgen: serves {name} at {process.url}", flush=True)

    @property
    def _is_outrun(self) -> bool:
        """Whether what it is loading is gone: a trainer that is quicker keeps the newest two versions alone."""
        return not (weights_dir(self._run) / self._loading).exists()

    def _swap(self, process: ServerProcess, name: str) -> bool:
        """In a thread, for it takes long and may hang with its server. False for weights that went as they were read;
        it is registered with older ones, for which nobody asks. Raises Ended where the server has to go."""
        self._loading, folder = name, weights_dir(self._run) / name
        swap = self._threads.submit(self._driver.load, self._client, process.url, folder)
        while not swap.done():
            self._pause(_POLL, process)
        try:
            swap.result()
        except (httpx.HTTPError, BadAnswerError, ValueError) as error:
            if self._is_outrun:
                return False
            raise Ended(f"{name} could not be loaded: {error}") from None
        return True

    def _pause(self, seconds: float, process: ServerProcess | None = None) -> None:
        """Raises _Over when all is over, Ended when the process is."""
        end = time.monotonic() + seconds
        while True:
            self._context.progress.touch()
            if self._context.stop or self._run.ended_file.exists() or self._run.cancelled_file.exists():
                raise _Over
            if process:
                process.check()
                if time.monotonic() - self._beaten > BEAT:
                    self._beaten = time.monotonic()
                    beat(self._run, self._context.shard)
            if (left := end - time.monotonic()) <= 0:
                return
            time.sleep(min(left, _POLL))
