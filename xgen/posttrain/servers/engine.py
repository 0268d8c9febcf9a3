"""The engine that asks servers: answers are streamed, so that what is there survives the server that gave it.

One thread runs the requests of all servers; the methods of the engine, called from any thread, only touch the answers.
An answer is asked for at one server at a time, from its last token on, and leaves once: when it is whole.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import httpx

from xgen.engine.protocol import Completion, EngineError, Partial, Request
from xgen.posttrain.servers.answer import Answer
from xgen.posttrain.servers.drivers import DRIVERS, BadAnswerError, read_line
from xgen.posttrain.servers.fleet import Fleet, Host
from xgen.posttrain.servers.registry import BEAT, Watch
from xgen.posttrain.servers.weights import current, version_of, weights_dir
from xgen.runs import RunDir
from xgen.spec import Rl

if TYPE_CHECKING:
    import torch

_LOOK = 0.5  # seconds between looks at the run directory, for as long as something is about to change
_CONNECT = 10.0
_TRIES = 20  # of an answer without a single new token
_PATIENCE = 3600.0  # seconds without any server
_SAY = 60.0  # seconds between lines about that
_REFUSED = range(400, 500)
_PASSING = (404, 408, 425, 429)  # of those: a server that is starting, or has too much to do


class HttpEngine:
    """Asks the servers of a run. Of the ranks that have one, a single one is the `writer` of the weights."""

    def __init__(self, run: RunDir, job: Rl, dtype: Literal["bfloat16", "float32"], *, writer: bool = True) -> None:
        assert job.rollout.servers
        self._run, self._job, self._dtype, self._writer = run, job, dtype, writer
        self._spec = job.rollout.servers
        self._driver = DRIVERS[self._spec.kind]()
        self._fleet = Fleet(self._spec.at_once)
        self._watch = Watch(run)
        self._version = -1  # nothing is generated before the first `load`
        self._answers: dict[str, Answer] = {}  # in the order of submission; all that `completed` has not given out
        self._whole = 0  # of them
        self._failed: dict[str, EngineError] = {}  # answers that no server will ever give; raised until cancelled
        self._broken: EngineError | None = None
        self._changed = threading.Condition()
        self._had_server = self._said = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollout-servers", daemon=True)
        self._thread.start()
        self._wake = asyncio.Event()
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(self._spec.timeout, connect=_CONNECT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=False,  # servers of the cluster are behind no proxy
        )
        self._closed = False
        self._wait_for(self._begin())

    @property
    def version(self) -> int:
        return self._version

    def submit(self, request: Request) -> None:
        answer = Answer.of(request)
        with self._changed:
            self._check()
            if request.id in self._answers:
                raise EngineError(f"request {request.id} is pending already", retryable=False)
            self._answers[request.id] = answer
            self._count(answer)
        self._poke()

    def completed(self, timeout: float | None = None) -> list[Completion]:
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                self._check()
                if self._whole or not self._answers:
                    break
                left = _LOOK if end is None else end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _LOOK))
            done = [answer.completion() for answer in self._answers.values() if answer.finish]
            for completion in done:
                del self._answers[completion.id]
            self._whole = 0
        return done

    def pending(self) -> dict[str, Partial]:
        with self._changed:
            return {name: answer.partial() for name, answer in self._answers.items()}

    def cancel(self, ids: Iterable[str]) -> None:
        with self._changed:
            for name in ids:
                if (answer := self._answers.pop(name, None)) is None:
                    continue
                self._whole -= answer.finish is not None
                self._failed.pop(name, None)
                if answer.task:
                    self._loop.call_soon_threadsafe(answer.task.cancel)

    def load(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Every rank calls it, for whole weights are gathered by all: none generates any more once the writer has the
        last of them. The servers follow by themselves, and are asked as soon as they have."""
        with self._changed:
            self._check()
            self._version = -1
        self._wait_for(self._suspend())
        try:
            if self._writer:
                from xgen.posttrain.servers.publish import publish

                publish(self._run, self._job, version, weights, self._dtype)
            else:
                for _ in weights:
                    pass
        except OSError as error:
            place = weights_dir(self._run)
            raise EngineError(f"{place}: {error.strerror or error}; make room there", retryable=True) from error
        self._version = version
        self._poke()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(TimeoutError, EngineError):
            self._wait_for(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        with self._changed:
            self._answers.clear()
            self._changed.notify_all()

    def _check(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed", retryable=False)
        if error := self._broken or next(iter(self._failed.values()), None):
            raise error

    def _poke(self) -> None:
        self._loop.call_soon_threadsafe(self._wake.set)

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def _count(self, answer: Answer) -> None:
        """With the lock held: after something was added to it."""
        if answer.finish:
            self._whole += 1
            self._changed.notify_all()

    # What follows runs in the loop's thread.

    async def _begin(self) -> None:
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def _end(self) -> None:
        self._dispatcher.cancel()
        await asyncio.gather(self._dispatcher, return_exceptions=True)
        await self._suspend()
        await self._client.aclose()

    async def _suspend(self) -> None:
        """End the requests under way; what has come of them stays."""
        with self._changed:
            tasks = [answer.task for answer in self._answers.values() if answer.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _dispatch(self) -> None:
        try:
            looked = -_LOOK
            while True:
                # A thousand ranks and a hundred servers: 200,000 files a second are looked at, or a tenth of that.
                if time.monotonic() - looked >= (BEAT if self._fleet.is_settled(self._version) else _LOOK):
                    await asyncio.to_thread(self._look)
                    looked = time.monotonic()
                self._start()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):  # wait_for of Python 3.11 may swallow that it is cancelled
                        await self._wake.wait()
                self._wake.clear()
        except Exception as error:  # noqa: BLE001 - whoever waits for answers is told
            with self._changed:
                self._broken = EngineError(f"{type(error).__name__}: {error}", retryable=True)
                self._changed.notify_all()

    def _look(self) -> None:
        """At the run directory, which may be slow: in a thread of its own."""
        name = current(self._run)
        wanted = name if version_of(name) == self._version else None
        self._fleet.update(self._watch.alive(), wanted)
        now = time.monotonic()
        with self._changed:
            waits = len(self._answers) > self._whole and self._version >= 0
            if self._fleet.ready or not waits:
                self._had_server = self._said = now
            elif now - self._had_server > _PATIENCE:
                self._broken = EngineError(self._why_none(now), retryable=True)
                self._changed.notify_all()
            elif now - self._said > _SAY:
                self._said = now
                print(f"waiting: {self._why_none(now)}", file=sys.stderr, flush=True)

    def _why_none(self, now: float) -> str:
        there = f"{len(self._fleet.hosts)} of {self._spec.array.shards} rollout servers are there"
        return (
            f"no answer can be asked for since {now - self._had_server:.0f} s: {there}, none with version "
            f"{self._version} of the weights; write xgen status {self._run.name}"
        )

    def _start(self) -> None:
        """Ask for what nobody is asked for, while a server has room."""
        with self._changed:
            if self._version < 0 or version_of(self._fleet.wanted) != self._version:
                return  # a look at what the servers have is due
            for answer in self._answers.values():
                if answer.finish or answer.task or answer.request.id in self._failed:
                    continue
                if (host := self._fleet.choose(answer.avoid)) is None:
                    break
                host.load += 1
                answer.task = self._loop.create_task(self._ask(answer, host, self._version))
                answer.task.add_done_callback(partial(self._release, answer, host))

    def _release(self, answer: Answer, host: Host, _: asyncio.Task[None]) -> None:
        """Also of what was cancelled before it began."""
        host.load -= 1
        with self._changed:
            answer.task = None
        self._wake.set()

    async def _ask(self, answer: Answer, host: Host, version: int) -> None:
        """One try at one server. Whatever ends it, what has come stays with the answer."""
        before = len(answer.tokens)
        try:
            async with asyncio.timeout(self._spec.timeout):
                await self._stream(answer, host, version)
            host.succeeded()
            error = "" if answer.finish else "it ended the answer before its end"
        except EngineError as failure:
            self._give_up(answer, failure)
            return
        except (BadAnswerError, httpx.HTTPError) as failure:
            error = f"{type(failure).__name__}: {failure}"
            host.failed()
        except TimeoutError:
            error = f"no whole answer within {self._spec.timeout} s"
            if len(answer.tokens) == before:
                host.failed()
        answer.avoid = host.server if error else None
        answer.tries = answer.tries + 1 if error and len(answer.tokens) == before else 0
        if answer.tries >= _TRIES:
            said = f"request {answer.request.id}: {_TRIES} tries in a row brought no token"
            self._give_up(answer, EngineError(f"{said}, the last at {host.server.url}: {error}", retryable=True))

    def _give_up(self, answer: Answer, error: EngineError) -> None:
        with self._changed:
            if self._answers.get(answer.request.id) is answer:
                self._failed[answer.request.id] = error
                self._changed.notify_all()

    async def _stream(self, answer: Answer, host: Host, version: int) -> None:
        model = weights_dir(self._run) / host.server.weights
        body = self._driver.body(answer.request, tuple(answer.tokens), model)
        async with self._client.stream("POST", f"{host.server.url}/v1/completions", json=body) as response:
            if response.status_code != 200:
                said = (await response.aread()).decode(errors="replace")[:500]
                if response.status_code in _REFUSED and response.status_code not in _PASSING:
                    what = f"request {answer.request.id}: {host.server.url} refuses it ({response.status_code}): {said}"
                    raise EngineError(what, retryable=False)
                raise BadAnswerError(f"status {response.status_code}: {said}")
            whole = False
            async for line in response.aiter_lines():
                if (piece := read_line(self._driver, line)) is None or whole:
                    continue  # the connection is of use again only when all is read
                with self._changed:
                    if self._answers.get(answer.request.id) is not answer:
                        return  # cancelled
                    answer.extend(piece, version)
                    whole = answer.finish is not None
                    self._count(answer)
