"""One answer on its way through the servers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

from xgen.engine.protocol import Completion, Partial, Request
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
        answer, at = cls(request, time.monotonic(), [], [], []), 0
        begun = request.begun or Partial((), (), ())
        for version, count in begun.versions:
            answer.extend(Piece(begun.tokens[at : at + count], begun.logprobs[at : at + count]), version)
            at += count
        return answer

    def extend(self, piece: Piece, version: int) -> None:
        """Tokens of that version of the weights; what comes after the end is dropped."""
        sampling = self.request.sampling
        for token, logprob in zip(piece.tokens, piece.logprobs, strict=True):
            if self.finish:
                break
            self.tokens.append(token)
            self.logprobs.append(logprob)
            known = self.versions.pop()[1] if self.versions and self.versions[-1][0] == version else 0
            self.versions.append((version, known + 1))
            if token in sampling.stop:
                self.finish = "stop"
            elif len(self.tokens) == sampling.max_tokens:
                self.finish = "length"
        if self.finish:
            self.seconds = time.monotonic() - self.taken

    def partial(self) -> Partial:
        return Partial(tuple(self.tokens), tuple(self.logprobs), tuple(self.versions))

    def completion(self) -> Completion:
        assert self.finish
        done = self.partial()
        return Completion(self.request.id, done.tokens, done.logprobs, self.finish, done.versions, self.seconds)
