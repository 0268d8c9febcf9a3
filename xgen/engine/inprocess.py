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
from collections.abc import Iterable, Iterator, Sequence

import torch

from xgen.engine.answer import Answer, check
from xgen.engine.attention import Piece
from xgen.engine.cache import Cache
from xgen.engine.decoder import Decoder
from xgen.engine.inputs import Inputs
from xgen.engine.lock import FairLock
from xgen.engine.losses import token_losses
from xgen.engine.protocol import Completion, EngineError, NoNumbersError, Partial, Request
from xgen.engine.room import num_tokens
from xgen.spec import ModelSpec, RopeScaling

_AHEAD = 256  # tokens of an answer that have their room before the first of them is there


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
        fix: str = "write a smaller rollout.at_once",
    ) -> None:
        """For prompts with answers of up to `seq_len` tokens, `at_once` of them at the same time. `dtype`: default
        float32 on CPUs, else bfloat16. `fix`: what to write where their keys and values find no memory."""
        device = torch.device(device)
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        self._seq_len, self._at_once = seq_len, at_once
        self._decoder = Decoder(model, seq_len, rope_theta, rope_scaling, device, dtype)
        self._cache, self._fix = Cache(model, device, dtype, fix), fix
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

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self._decoder.dtype

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

    def losses(self, texts: Iterable[Sequence[int]]) -> Iterator[torch.Tensor]:
        """Of every token of each text but the first (`xgen.engine.losses`). No other weights may be loaded before the
        end."""
        with self._lock:
            self._refuse_closed()
            if self._unusable:
                raise EngineError(self._unusable, retryable=False)
        return token_losses(self._decoder, texts, self._fix)

    def num_tokens(self) -> int:
        """Of answers with their prompts, whose keys and values there is memory for."""
        return num_tokens(self._decoder)

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
        self._reserve(answers, max(min(answer.position + _AHEAD, answer.longest) for answer in answers))
        sources: dict[tuple[int, ...], int] = {}
        for row, answer in enumerate(answers):
            best = sources.setdefault(answer.request.prompt, row)
            if answer.num_shared > answers[best].num_shared:
                sources[answer.request.prompt] = row
        pieces: list[Piece] = []
        begun: set[tuple[int, ...]] = set()
        most = room = self._decoder.at_a_time
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
            tokens = answer.next_tokens(most)
            if len(tokens) > room:
                break
            pieces.append(Piece(row, answer.num_cached, tokens, again=not answer.is_in_prompt))
            room -= len(tokens)
        return pieces

    def _decode(self, answers: list[Answer]) -> None:
        lengths = [1 + answer.position for answer in answers]
        self._reserve(answers, max(lengths))
        tokens, logprobs = self._inputs.draw(
            self._decoder.decode(self._cache, *self._inputs.tokens(len(answers)), lengths)
        )
        if not all(map(math.isfinite, logprobs)):
            self._start_over(answers)
            raise NoNumbersError(f"the weights of version {self._version} give logits that are no numbers")
        now = time.monotonic()
        for row, (answer, token, logprob) in enumerate(zip(answers, tokens, logprobs, strict=True)):
            answer.append(token, logprob)
            if answer.finish:
                answer.seconds = now - answer.taken
                self._ended.append(answer)
                self._rows[row] = None
        self._arrange()

    def _reserve(self, answers: list[Answer], length: int) -> None:
        most = max(answer.longest for answer in answers)
        self._cache.reserve(max(len(answers), self._decoder.fewest), length, most)

    def _start_over(self, answers: list[Answer]) -> None:
        """Forget the cache, not the tokens: what is no number in it would spread to all that is computed from it."""
        self._cache.clear()
        for row, answer in enumerate(answers):
            answer.num_cached, answer.is_pure = 0, True
            self._inputs.place(row, answer)
