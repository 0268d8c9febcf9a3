"""An engine, a judge and prompts whose pace a test sets: what they do is real enough to be counted."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xgen.engine import Completion, Partial, Request
from xgen.posttrain.rl.answers import Judged
from xgen.posttrain.rl.desk import Spent


@dataclass(frozen=True)
class ScriptedPrompt:
    number: int
    source: str = "sums"
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> Any:
        return np.array([self.number % 7 + 1], dtype=np.int32)

    @property
    def text(self) -> str:
        return f"prompt {self.number}"


class ScriptedPrompts:
    def at(self, number: int) -> ScriptedPrompt:
        return ScriptedPrompt(number)


class ScriptedEngine:
    """Gives a token to a random part of what is pending at each call, as wide as `seed` says."""

    def __init__(self, seed: int = 0, length: int = 4, pause: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._length, self._pause = length, pause
        self._lock = threading.Lock()
        self._pending: dict[str, tuple[Request, list[int], list[int]]] = {}
        self.version = 0
        self.asked: list[str] = []
        self.closed = False

    def submit(self, request: Request) -> None:
        with self._lock:
            assert request.id not in self._pending
            self.asked.append(request.id)
            begun = request.begun or Partial((), (), ())
            versions = [version for version, count in begun.versions for _ in range(count)]
            self._pending[request.id] = request, list(begun.tokens), versions

    def completed(self, timeout: float | None = None) -> list[Completion]:
        del timeout
        time.sleep(self._pause)
        with self._lock:
            done = []
            for name in list(self._pending):
                if self._random.random() < 0.5:
                    continue
                request, tokens, versions = self._pending[name]
                if len(tokens) < self._length:
                    tokens.append((request.seed >> len(tokens)) % 100)
                    versions.append(self.version)
                if len(tokens) == self._length:
                    del self._pending[name]
                    counted = tuple((v, versions.count(v)) for v in sorted(set(versions)))
                    done.append(Completion(name, tuple(tokens), (-1.0,) * len(tokens), "stop", counted, 0.0))
            return done

    def pending(self) -> dict[str, Partial]:
        with self._lock:
            return {
                name: Partial(tuple(t), (-1.0,) * len(t), tuple((v, vs.count(v)) for v in sorted(set(vs))))
                for name, (_, t, vs) in self._pending.items()
            }

    def cancel(self, ids: Iterable[str]) -> None:
        with self._lock:
            for name in ids:
                self._pending.pop(name, None)

    def load(self, version: int, weights: Iterable[Any]) -> None:
        del weights
        with self._lock:
            self.version = version

    def close(self) -> None:
        self.closed = True


class ScriptedJudge:
    """Right or wrong by the answer's last token; a verdict of `fails` is none."""

    def __init__(self, seed: int = 0, fails: float = 0.0) -> None:
        self._random, self._fails = random.Random(seed), fails
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, Completion]] = []

    def submit(self, key: str, prompt: object, completion: Completion) -> None:
        del prompt
        with self._lock:
            self._waiting.append((key, completion))

    def ready(self, timeout: float) -> list[tuple[str, Judged]]:
        del timeout
        with self._lock:
            self._random.shuffle(self._waiting)
            cut = self._random.randint(0, len(self._waiting))
            done, self._waiting = self._waiting[:cut], self._waiting[cut:]
            return [(key, self._judge(completion)) for key, completion in done]

    def _judge(self, completion: Completion) -> Judged:
        if self._random.random() < self._fails:
            return Judged(None, {"math": None}, {"math": "timeout"}, 1.0)
        right = float(completion.tokens[-1] % 2)
        return Judged(right, {"math": right}, {}, 0.0)

    def spent(self) -> Mapping[str, Spent]:
        return {}

    def close(self) -> None:
        pass
