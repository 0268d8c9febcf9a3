"""One answer on its way: what the engine knows of a request that it has taken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from xgen.engine.protocol import Completion, EngineError, Partial, Request, Versions


@dataclass(eq=False)
class Answer:
    """`num_cached`: tokens whose keys and values the cache has; that of the last one comes when it is fed."""

    request: Request
    taken: float  # time.monotonic()
    tokens: list[int]
    logprobs: list[float]
    closed: Versions  # of tokens whose weights have gone, or that were sampled elsewhere
    num_closed: int
    num_cached: int = 0
    is_pure: bool = True  # all that is cached is of the present weights
    seconds: float = 0.0  # until the last token

    @classmethod
    def of(cls, request: Request) -> Answer:
        begun = request.begun or Partial((), (), ())
        tokens, logprobs = list(begun.tokens), list(begun.logprobs)
        return cls(request, time.monotonic(), tokens, logprobs, begun.versions, num_closed=len(tokens))

    @property
    def position(self) -> int:
        """Of the last token, which is fed next."""
        return len(self.request.prompt) + len(self.tokens) - 1

    @property
    def longest(self) -> int:
        """Tokens that it may come to, with its prompt."""
        return len(self.request.prompt) + self.request.sampling.max_tokens

    @property
    def is_ready(self) -> bool:
        """All but the last token is cached."""
        return self.num_cached == self.position

    @property
    def is_in_prompt(self) -> bool:
        """Some of the prompt is to be cached yet. Its last token is not: that is fed to every answer."""
        return self.num_cached < len(self.request.prompt) - 1

    @property
    def num_shared(self) -> int:
        """Tokens of the prompt that are cached, of use to other answers to it."""
        return min(self.num_cached, len(self.request.prompt) - 1) if self.is_pure else 0

    def next_tokens(self, most: int) -> tuple[int, ...]:
        """To be cached next: of the prompt, and when that is done of what has begun."""
        prompt, start = self.request.prompt, self.num_cached
        stop = len(prompt) - 1 if self.is_in_prompt else self.position
        return (prompt + tuple(self.tokens))[start : min(stop, start + most)]

    def append(self, token: int, logprob: float) -> None:
        """The last token was fed, and this one drawn."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.num_cached += 1

    @property
    def finish(self) -> Literal["stop", "length"] | None:
        """How it has ended; None while it has not."""
        sampling = self.request.sampling
        if self.tokens and self.tokens[-1] in sampling.stop:
            return "stop"
        return "length" if len(self.tokens) >= sampling.max_tokens else None

    def versions(self, present: int) -> Versions:
        """What its tokens were sampled from; `present`: the weights of those since the last `close`."""
        num_open = len(self.tokens) - self.num_closed
        if not num_open:
            return self.closed
        if self.closed and self.closed[-1][0] == present:
            return (*self.closed[:-1], (present, self.closed[-1][1] + num_open))
        return (*self.closed, (present, num_open))

    def close(self, present: int) -> None:
        """The present weights go."""
        self.closed, self.num_closed = self.versions(present), len(self.tokens)
        self.is_pure = self.num_cached == 0

    def partial(self, present: int) -> Partial:
        return Partial(tuple(self.tokens), tuple(self.logprobs), self.versions(present))

    def completion(self, present: int) -> Completion:
        assert self.finish
        so_far = self.partial(present)
        return Completion(
            self.request.id, so_far.tokens, so_far.logprobs, self.finish, so_far.versions, round(self.seconds, 6)
        )


def check(request: Request, vocab_size: int, seq_len: int) -> None:
    """Raises EngineError for what no engine of these sizes can answer."""
    sampling, begun = request.sampling, request.begun or Partial((), (), ())
    longest = len(request.prompt) + sampling.max_tokens
    lengths = {len(begun.tokens), len(begun.logprobs), sum(count for _, count in begun.versions)}
    wrong = (
        ("its prompt has no token", not request.prompt),
        (
            f"a token is outside 0 to {vocab_size - 1}",
            min(request.prompt + begun.tokens, default=0) < 0
            or max(request.prompt + begun.tokens, default=0) >= vocab_size,
        ),
        (f"prompt and answer may be {longest} tokens, and the model sees {seq_len}", longest > seq_len),
        (f"max_tokens is {sampling.max_tokens}", sampling.max_tokens < 1),
        (f"temperature is {sampling.temperature}", not 0 <= sampling.temperature < float("inf")),
        (f"top_p is {sampling.top_p}", not 0 < sampling.top_p <= 1),
        (f"seed is {request.seed}", not 0 <= request.seed < 2**63),
        ("what has begun has unequal numbers of tokens, logprobs and versions", len(lengths) > 1),
        (f"{len(begun.tokens)} tokens have begun", len(begun.tokens) > sampling.max_tokens),
    )
    if said := next((what for what, is_so in wrong if is_so), None):
        raise EngineError(f"request {request.id}: {said}", retryable=False)
