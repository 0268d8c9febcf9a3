"""One answer on its way through the servers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

from xgen.posttrain.engine.protocol import Completion, Partial, Request
from xgen.posttrain.servers.drivers import Piece
from xgen.posttrain.servers.registry import Server


@dataclass(eq=False)
class Answer:
    """What has come of it so far, and who is at it."""

    request: Request
    taken: float  # time.monotonic()
    tokens: list[int]
    logprobs: list[float]
    versions: list[tuple[int, int]]
    finish: Literal["stop", "length"] | None = None
    seconds: float = 0.0  # until the last token
    task: asyncio.Task[None] | None = None  # while a server is asked
    avoid: Server | None = None  # that failed at it last
    tries: int = 0  # in a row, without a new token

    @classmethod
    def of(cls, request: Request) -> Answer:
        begun = request.begun or Partial((), (), ())
        answer = cls(request, time.monotonic(), list(begun.tokens), list(begun.logprobs), list(begun.versions))
        answer._settle(0)
        return answer

    def extend(self, piece: Piece, version: int) -> None:
        """Tokens of a server with that version of the weights; what a server sends after the end is dropped."""
        before = len(self.tokens)
        self.tokens += piece.tokens
        self.logprobs += piece.logprobs
        self._settle(before)
        if added := len(self.tokens) - before:
            if self.versions and self.versions[-1][0] == version:
                added += self.versions.pop()[1]
            self.versions.append((version, added))

    def _settle(self, before: int) -> None:
        """Cut it where it ends, if that is beyond its first `before` tokens."""
        sampling = self.request.sampling
        stops = set(sampling.stop)
        end = next((at + 1 for at in range(before, len(self.tokens)) if self.tokens[at] in stops), None)
        if end is not None and end <= sampling.max_tokens:
            self.finish = "stop"
        elif len(self.tokens) >= sampling.max_tokens:
            self.finish, end = "length", sampling.max_tokens
        if self.finish:
            del self.tokens[end:], self.logprobs[end:]
            self.seconds = time.monotonic() - self.taken

    def partial(self) -> Partial:
        return Partial(tuple(self.tokens), tuple(self.logprobs), tuple(self.versions))

    def completion(self) -> Completion:
        assert self.finish
        done = self.partial()
        return Completion(self.request.id, done.tokens, done.logprobs, self.finish, done.versions, self.seconds)
