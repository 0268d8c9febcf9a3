"""From what is asked to records: the answers of a model, in the order in which they end."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.engine import EngineError, NoNumbersError
from xgen.evals.protocol import Item, Prompt, Record, Subject
from xgen.runs import Diverged, Refused

_AHEAD = 8  # samples that are made while the model computes
_SHOWN = 500  # characters of an answer
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A sample as it is asked, and what an answer to it is worth: 0 to 1."""

    item: Item
    ids: Sequence[int]
    max_tokens: int
    worth: Callable[[str], float]
    source: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    asked: Asked
    tokens: int
    digest: str


def answered(subject: Subject, asked: Iterator[Asked], stopped: Callable[[], bool]) -> Iterator[Record]:
    """A record of each as its answer ends. Once `stopped` says so nothing more is asked, and what has no answer yet is
    left."""
    waiting: dict[int, _Waiting] = {}
    tokenizer, stop = subject.tokenizer, subject.stop

    def prompts() -> Iterator[Prompt]:
        for number, one in enumerate(ahead(asked, _AHEAD)):
            if stopped():
                return
            waiting[number] = _Waiting(one, len(one.ids), digest_of(one.ids))
            yield Prompt(one.ids, one.max_tokens, stop)

    for number, answer in subject.model().generate(prompts()):
        one = waiting.pop(number)
        item, text = one.asked.item, tokenizer.decode(list(answer.ids), skip_special_tokens=True)
        yield Record(
            suite=item.suite,
            task=item.task,
            length=item.length,
            index=item.index,
            depth=item.depth,
            score=one.asked.worth(text),
            tokens=one.tokens,
            seconds=answer.seconds,
            answer=text[:_SHOWN],
            source=one.asked.source,
            digest=one.digest,
        )
        if stopped():
            return


def digest_of(ids: Sequence[int]) -> str:
    return hashlib.blake2b(np.asarray(ids, dtype="<u4").tobytes(), digest_size=8).hexdigest()


class _Ended:
    pass


def ahead(values: Iterator[T], count: int) -> Iterator[T]:
    """The same, each made by a thread before it is asked for: up to `count` of them."""
    ended = _Ended()
    thread = ThreadPoolExecutor(1, thread_name_prefix="samples")
    try:
        made: deque[Future[T | _Ended]] = deque(thread.submit(next, values, ended) for _ in range(count))
        while not isinstance(one := made.popleft().result(), _Ended):
            made.append(thread.submit(next, values, ended))
            yield one
    finally:
        thread.shutdown(cancel_futures=True)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raises Refused for what no other try can help: an input, or a request that the engine cannot take; Diverged for
    weights that give no numbers."""
    try:
        yield
    except InterruptedBuildError:
        raise
    except StoreError as error:
        raise Refused(f"{what}: {error}") from None
    except NoNumbersError as error:
        raise Diverged(f"{what}: {error}") from None
    except EngineError as error:
        if error.retryable:
            raise
        raise Refused(f"{what}: {error}") from None
