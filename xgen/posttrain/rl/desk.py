"""Where answers are asked for: requests to the engine, what it gives to the verifiers, and both back as one.

Verdicts come while other answers are generated. With `background` a thread does that beside the training; without, it
is done while somebody waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from xgen.engine import Completion, Engine, Partial, Request
from xgen.posttrain.rl.answers import Answer, Judged

if TYPE_CHECKING:
    from xgen.data.chat.prompts import TokenPrompt

_TURN = 0.2  # seconds for which the engine is waited for, while verdicts may come


@dataclass(frozen=True)
class Spent:
    """On verdicts of one kind."""

    count: int
    seconds: float


class Judge(Protocol):
    """The verifiers. Both methods return at once, but for the `timeout` of `ready`."""

    def submit(self, key: str, prompt: TokenPrompt, completion: Completion) -> None: ...

    def ready(self, timeout: float) -> list[tuple[str, Judged]]: ...

    def spent(self) -> Mapping[str, Spent]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Ticket:
    """An answer that is wanted. The two are told when it is whole, and when it is judged: for the journal."""

    request: Request
    prompt: TokenPrompt
    generated: Callable[[Completion], None] = lambda _: None
    judged: Callable[[Judged], None] = lambda _: None


@dataclass(frozen=True)
class Effort:
    """Of this attempt: tokens that were generated, the seconds for which there was something to generate, and verdicts
    by kind."""

    tokens: int
    seconds: float
    verdicts: Mapping[str, Spent]


class Desk:
    """Thread-safe. What a background thread fails with is raised in whoever waits."""

    def __init__(self, engine: Engine, judge: Judge, background: bool = False) -> None:
        self.engine, self._judge = engine, judge
        self._generating: dict[str, Ticket] = {}
        self._judging: dict[str, tuple[Ticket, Completion]] = {}
        self._done: dict[str, Answer] = {}
        self._tokens, self._seconds = 0, 0.0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="rollout", daemon=True) if background else None
        if self._thread:
            self._thread.start()

    def ask(self, ticket: Ticket) -> None:
        """Raises EngineError."""
        with self._changed:
            self._generating[ticket.request.id] = ticket
            self._changed.notify_all()
        self.engine.submit(ticket.request)

    def resume(self, ticket: Ticket, completion: Completion, judged: Judged | None) -> None:
        """Take an answer that was generated before, and with `judged` the verdict on it."""
        with self._changed:
            self._judging[completion.id] = ticket, completion
            self._changed.notify_all()
        if judged:
            self._on_verdict(completion.id, judged, is_new=False)
        else:
            self._judge.submit(completion.id, ticket.prompt, completion)

    def wait(self, keys: Iterable[str], timeout: float) -> bool:
        """Whether all of these are done, after `timeout` seconds at most. Raises what went wrong: EngineError, say."""
        wanted, deadline = set(keys), time.monotonic() + timeout
        while True:
            with self._changed:
                if self._failure:
                    raise self._failure
                if wanted <= self._done.keys():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if self._thread:
                    self._changed.wait(left)
                    continue
            self._turn(min(left, _TURN))

    def take(self, keys: Iterable[str]) -> dict[str, Answer]:
        with self._changed:
            return {key: self._done.pop(key) for key in keys}

    def is_generating(self, keys: Iterable[str]) -> bool:
        with self._changed:
            return any(key in self._generating for key in keys)

    @property
    def effort(self) -> Effort:
        with self._changed:
            return Effort(self._tokens, self._seconds, self._judge.spent())

    def pending(self) -> dict[str, Partial]:
        """What there is of the answers that are not whole."""
        return {key: partial for key, partial in self.engine.pending().items() if partial.tokens}

    def drop(self) -> None:
        """Forget all that was asked for."""
        with self._changed:
            keys = list(self._generating)
            self._generating.clear()
            self._judging.clear()
            self._done.clear()
        self.engine.cancel(keys)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(10)
        self.engine.close()
        self._judge.close()

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._generating or self._judging)
                    if self._closed:
                        return
                self._turn(_TURN)
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            with self._changed:
                self._failure = None if self._closed else error
                self._changed.notify_all()

    def _turn(self, timeout: float) -> None:
        """A while of generating, and the verdicts that have come."""
        if self._generating:
            began = time.monotonic()
            completions = self.engine.completed(timeout)
            self._seconds += time.monotonic() - began
            for completion in completions:
                self._on_completion(completion)
            timeout = 0.0
        if self._judging:
            for key, judged in self._judge.ready(timeout):
                self._on_verdict(key, judged)

    def _on_completion(self, completion: Completion) -> None:
        with self._changed:
            ticket = self._generating.pop(completion.id, None)
            if ticket is None:
                return  # dropped
            begun = ticket.request.begun
            self._tokens += len(completion.tokens) - (len(begun.tokens) if begun else 0)
            self._judging[completion.id] = ticket, completion
        ticket.generated(completion)
        self._judge.submit(completion.id, ticket.prompt, completion)

    def _on_verdict(self, key: str, judged: Judged, is_new: bool = True) -> None:
        with self._changed:
            if key not in self._judging:
                return  # dropped
            ticket, completion = self._judging.pop(key)
        if is_new:
            ticket.judged(judged)
        answer = Answer(
            tokens=np.array(completion.tokens, dtype=np.int32),
            logprobs=np.array(completion.logprobs, dtype=np.float32),
            finish=completion.finish,
            versions=completion.versions,
            judged=judged,
        )
        with self._changed:
            self._done[key] = answer
            self._changed.notify_all()
