"""The engine in the trainer's process: for small models and for tests.

Answers are rows of one batch; a row whose answer has ended is given to the next request at once. A prompt is computed
once for all answers to it that are on their way. Whoever calls `completed` does the work, one token of every row at a
time; other threads get their turn between two of these.

New weights do not touch what is cached: answers go on upon keys and values of the weights before, as in PipelineRL
(arXiv 2509.19128). The versions of their tokens say so.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable

import torch

from xgen.posttrain.engine.answer import Answer, check
from xgen.posttrain.engine.attention import Piece
from xgen.posttrain.engine.cache import Cache
from xgen.posttrain.engine.decoder import FEWEST, Decoder
from xgen.posttrain.engine.inputs import Inputs
from xgen.posttrain.engine.lock import FairLock
from xgen.posttrain.engine.protocol import Completion, EngineError, Partial, Request
from xgen.spec import ModelSpec, RopeScaling

_PREFILL = 2048  # tokens of prompts that are computed together


class InProcessEngine:
    """Has its own copy of the weights, fused for generation; `version` is -1 until the first `load`."""

    def __init__(
        self,
        model: ModelSpec,
        seq_len: int,
        rope_theta: float,
        rope_scaling: RopeScaling | None = None,
        at_once: int = 64,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        """For prompts with answers of up to `seq_len` tokens, `at_once` of them at the same time. `dtype`: default
        float32 on CPUs, else bfloat16."""
        device = torch.device(device)
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        self._seq_len, self._at_once = seq_len, at_once
        self._decoder = Decoder(model, seq_len, rope_theta, rope_scaling, device, dtype)
        self._cache = Cache(model, max(at_once, FEWEST), seq_len, device, dtype)
        self._inputs = Inputs(at_once, device)
        self._version = -1
        self._unusable = "no weights were loaded"
        self._is_closed = False
        self._waiting: deque[Answer] = deque()
        self._rows: list[Answer | None] = []
        self._ended: list[Answer] = []
        self._ids: set[str] = set()  # of all of these
        self._lock = FairLock()

    @property
    def version(self) -> int:
        return self._version

    def submit(self, request: Request) -> None:
        check(request, self._decoder.model.vocab_size, self._seq_len)
        answer = Answer.of(request)
        with self._lock:
            self._refuse_closed()
            if request.id in self._ids:
                raise EngineError(f"request {request.id} is pending already", retryable=False)
            self._ids.add(request.id)
            if answer.finish:
                self._ended.append(answer)
            else:
                self._waiting.append(answer)

    def completed(self, timeout: float | None = None) -> list[Completion]:
        """A call does one step at least, if there is one to do, however short the time."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                self._refuse_closed()
                if not self._ended and (self._waiting or self._rows):
                    if self._unusable:
                        raise EngineError(self._unusable, retryable=False)
                    self._step()
                ended, self._ended = self._ended, []
                self._ids.difference_update(answer.request.id for answer in ended)
                idle = not (self._waiting or self._rows)
                if idle:
                    self._cache.clear()  # the training has use for the memory
                version = self._version
            if ended or idle or time.monotonic() >= deadline:
                return [answer.completion(version) for answer in ended]

    def pending(self) -> dict[str, Partial]:
        with self._lock:
            return {answer.request.id: answer.partial(self._version) for answer in self._all()}

    def cancel(self, ids: Iterable[str]) -> None:
        dropped = set(ids)
        with self._lock:
            self._ids -= dropped
            self._waiting = deque(answer for answer in self._waiting if answer.request.id not in dropped)
            self._rows = [answer if answer and answer.request.id not in dropped else None for answer in self._rows]
            self._ended = [answer for answer in self._ended if answer.request.id not in dropped]
            self._arrange()

    def load(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        with self._lock:
            self._refuse_closed()
            for answer in self._all():
                answer.close(self._version)
            self._unusable = f"the weights of version {version} were not loaded to the end"
            self._decoder.load(weights)
            self._unusable, self._version = "", version

    def close(self) -> None:
        with self._lock:
            self._waiting, self._rows, self._ended, self._ids = deque(), [], [], set()
            self._cache.clear()
            self._is_closed = True

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise EngineError("the engine is closed", retryable=False)

    def _all(self) -> list[Answer]:
        return [*self._waiting, *filter(None, self._rows), *self._ended]

    def _step(self) -> None:
        """A batch of prompts, or a token of every row."""
        self._arrange()
        answers = [answer for answer in self._rows if answer]
        if pieces := self._unfilled(answers):
            self._decoder.prefill(self._cache, pieces)
            for piece in pieces:
                answers[piece.row].num_cached = piece.stop
        else:
            self._decode(answers)

    def _arrange(self) -> None:
        """Gaps go to those that wait; where none does, the last answers move into them."""
        rows, waiting = self._rows, self._waiting
        if None not in rows and not (waiting and len(rows) < self._at_once):
            return
        rows += [None] * min(len(waiting), self._at_once - len(rows))
        for row in (row for row, answer in enumerate(rows) if answer is None):
            if waiting:
                rows[row] = answer = waiting.popleft()
                self._inputs.place(row, answer)
        for row in reversed([row for row, answer in enumerate(rows) if answer is None]):
            if last := rows.pop():
                self._cache.copy(len(rows), row, 0, last.num_cached)
                self._inputs.move(len(rows), row)
                rows[row] = last
        self._inputs.arranged([answer for answer in rows if answer])

    def _unfilled(self, answers: list[Answer]) -> list[Piece]:
        """What has to be in the cache before every row can go on, as much of it as goes together; [] once all is there.
        Where another row has more of the same prompt, it is copied from there, and where one begins with it, waited
        for. How a prompt is split depends on nothing else, for the same bits in any company."""
        if all(answer.is_ready for answer in answers):
            return []
        self._cache.reserve(len(answers), max(answer.position for answer in answers))
        sources: dict[tuple[int, ...], int] = {}
        for row, answer in enumerate(answers):
            best = sources.setdefault(answer.request.prompt, row)
            if answer.num_shared > answers[best].num_shared:
                sources[answer.request.prompt] = row
        pieces: list[Piece] = []
        begun: set[tuple[int, ...]] = set()
        room = _PREFILL
        for row, answer in enumerate(answers):
            prompt = answer.request.prompt
            shared = answers[sources[prompt]].num_shared
            if answer.num_cached < shared:
                self._cache.copy(sources[prompt], row, answer.num_cached, shared)
                answer.num_cached = shared
            if answer.is_ready or (answer.is_in_prompt and prompt in begun):
                continue
            if answer.is_in_prompt:
                begun.add(prompt)
            tokens = answer.next_tokens(_PREFILL)
            if len(tokens) > room:
                break
            pieces.append(Piece(row, answer.num_cached, tokens, again=not answer.is_in_prompt))
            room -= len(tokens)
        return pieces

    def _decode(self, answers: list[Answer]) -> None:
        longest = 1 + max(answer.position for answer in answers)
        self._cache.reserve(max(len(answers), FEWEST), longest)
        tokens, logprobs = self._inputs.draw(
            self._decoder.decode(self._cache, *self._inputs.tokens(len(answers)), longest)
        )
        if not all(map(math.isfinite, logprobs)):
            self._start_over(answers)
            raise EngineError(
                f"the weights of version {self._version} give logits that are no numbers", retryable=False
            )
        now = time.monotonic()
        for row, (answer, token, logprob) in enumerate(zip(answers, tokens, logprobs, strict=True)):
            answer.append(token, logprob)
            if answer.finish:
                answer.seconds = now - answer.taken
                self._ended.append(answer)
                self._rows[row] = None
        self._arrange()

    def _start_over(self, answers: list[Answer]) -> None:
        """Forget the cache, not the tokens: what is no number in it would spread to all that is computed from it."""
        self._cache.clear()
        for row, answer in enumerate(answers):
            answer.num_cached, answer.is_pure = 0, True
            self._inputs.place(row, answer)
