"""Prompts of online RL: tokens up to where the assistant begins, with the record that its answer is verified by.

They are held in memory, each process its own, and packed: the tests of a hundred thousand programs are gigabytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from xgen.data.chat.encode import ChatEncoder, choose_engine
from xgen.data.chat.inputs import read_plan
from xgen.data.chat.records import Row, read_as
from xgen.data.chat.schema import Prompt, prompt_of
from xgen.data.chat.template import Rendered, unquoted
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.encode import Resolved
from xgen.data.errors import StoreError
from xgen.data.permutation import permute, shuffle_keys
from xgen.data.readers import kind_of, place_of
from xgen.data.samples import order_fingerprint
from xgen.spec import Rl

_CYCLE = 1024  # prompts in which every source has its share, to within one
_BATCH = 256


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """`number`: in its set, whatever the order; `ids` [num_tokens] of uint32; `text`: as the template renders it;
    `packed`: all other keys of the line, as `packed_record` has them."""

    number: int
    source: str
    ids: NDArray[np.uint32]
    text: str
    packed: bytes

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(self.ids.tolist())

    @property
    def json(self) -> bytes:
        """The record."""
        return zstandard.decompress(self.packed)

    @property
    def record(self) -> Mapping[str, Any]:
        """All other keys of the line; unpacked each time."""
        found: dict[str, Any] = json.loads(self.json)
        return found

    @property
    def answer(self) -> str:
        """What the record says the right one is; '' where it says none."""
        answer = self.record.get("answer", "")
        return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def packed_record(record: Mapping[str, Any]) -> bytes:
    """What JSON does not know is text in it, as verifiers get it."""
    packed = zstandard.compress(json.dumps(record, sort_keys=True, default=str).encode(), 1)
    return bytes(memoryview(packed))  # a copy: theirs keeps the room of what it was


@dataclass(frozen=True)
class PromptSource:
    """The prompts of one source, in the order of its lines; `left_out` counts records by reason: those that are too
    long, and those that are bad; `example` is one."""

    name: str
    prompts: tuple[TokenPrompt, ...]
    left_out: Mapping[str, int]
    example: str

    @property
    def num_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.prompts)


class PromptSet:
    """Prompts of weighted sources without end, as a function of (seed, index). In every 1,024 each source has its
    share; each epoch of a source is in another order."""

    def __init__(
        self,
        sources: Mapping[str, PromptSource],
        weights: Mapping[str, float],
        seed: int,
        origin: str,
        max_epochs: Mapping[str, float | None],
    ) -> None:
        """`origin` names the tokenizer with its template."""
        self.sources, self.seed, self._weights, self._max_epochs = dict(sources), seed, dict(weights), dict(max_epochs)
        self._origin = origin
        self._slots = _slots([weights[name] for name in sources])
        self._cycle = lru_cache(maxsize=4)(self._make_cycle)

    def __len__(self) -> int:
        return sum(len(source.prompts) for source in self.sources.values())

    @property
    def fingerprint(self) -> str:
        """Names the prompts, with what verifies their answers, and their order."""
        content = xxhash.xxh3_128()
        for source in self.sources.values():
            for prompt in source.prompts:
                content.update(prompt.ids.astype("<u4").tobytes())
                content.update(prompt.json)
        weights = [f"{name} {weight}" for name, weight in self._weights.items()]
        return order_fingerprint(["prompts-1", f"seed={self.seed}", self._origin, content.hexdigest(), *weights])

    def at(self, index: int) -> TokenPrompt:
        """The prompt of an index from 0 on."""
        if index < 0:
            raise IndexError(f"prompt {index} is before the first")
        cycle, slot = divmod(index, _CYCLE)
        order, rank = self._cycle(cycle)
        number = int(order[slot])
        source = list(self.sources.values())[number]
        epoch, place = divmod(cycle * self._slots[number] + int(rank[slot]), len(source.prompts))
        return source.prompts[permute(place, len(source.prompts), self.seed, source.name, epoch)]

    def epochs(self, count: int) -> dict[str, float]:
        """How often the prompts of each source are seen in the first `count`, to within a cycle."""
        shares = zip(self.sources.items(), self._slots, strict=True)
        return {name: count * slots / _CYCLE / len(source.prompts) for (name, source), slots in shares}

    def check_caps(self, count: int) -> None:
        """Raises StoreError where `count` prompts show those of a source more often than they may be."""
        for name, epochs in self.epochs(count).items():
            cap = self._max_epochs[name]
            if cap is not None and epochs > cap:
                what = f"its {len(self.sources[name].prompts):,} prompts could be seen {epochs:.2f} times"
                fix = f"write a weight of at most {self._weights[name] * cap / epochs:.3g}, or fewer train.steps"
                raise StoreError(f"prompts.sources.{name}", f"{what}, and max_epochs is {cap:g}", fix)

    def _make_cycle(self, cycle: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source of each slot, and which of that source's in the cycle it is."""
        order = np.repeat(np.arange(len(self._slots)), self._slots)
        order = order[np.argsort(shuffle_keys(_CYCLE, self.seed, "sources", cycle))]
        rank = np.empty(_CYCLE, dtype=np.int64)
        for number, slots in enumerate(self._slots):
            rank[order == number] = np.arange(slots)
        return order, rank


def read_prompts(job: Rl) -> PromptSet:
    """What a job trains on. Raises StoreError for what is missing or broken, and a source of which nothing is left."""
    sources = job.prompts.sources
    tokenizer = load_tokenizer(job)
    found = _read(tokenizer, {name: source.path for name, source in sources.items()}, job.prompts.max_tokens)
    weights = {name: source.weight for name, source in sources.items()}
    caps = {name: source.max_epochs for name, source in sources.items()}
    prompts = PromptSet(found, weights, job.seed, tokenizer.fingerprint, caps)
    rounds = job.max_resampled if job.dynamic_sampling else 1  # at most, of as many prompts each
    prompts.check_caps(job.train.steps * job.rollout.prompts * rounds)
    return prompts


def read_evaluation(job: Rl) -> dict[str, PromptSource]:
    """The held-out prompts of each source, the first `evaluation.prompts` of them. Raises StoreError."""
    if job.evaluation is None:
        return {}
    found = _read(load_tokenizer(job), job.evaluation.sources, job.prompts.max_tokens)
    most = job.evaluation.prompts
    return {
        name: PromptSource(name, source.prompts[:most], source.left_out, source.example)
        for name, source in found.items()
    }


def load_tokenizer(job: Rl) -> ChatTokenizer:
    """Raises StoreError for one with ids that the model does not know."""
    tokenizer = ChatTokenizer.load(job.prompts.tokenizer, job.prompts.template)
    tokenizer.check_vocabulary(job.model.vocab_size)
    return tokenizer


def _read(tokenizer: ChatTokenizer, paths: Mapping[str, str], max_tokens: int) -> dict[str, PromptSource]:
    engine, first, found = choose_engine(tokenizer), 0, dict[str, PromptSource]()
    for name, path in paths.items():
        found[name] = _source(tokenizer, engine, name, path, max_tokens, first)
        first += len(found[name].prompts)
    return found


def _source(
    tokenizer: ChatTokenizer, engine: Resolved, name: str, path: str, max_tokens: int, first: int
) -> PromptSource:
    encoder = ChatEncoder(tokenizer, engine)
    reasons, examples = Counter[str](), list[str]()
    prompts = list[TokenPrompt]()

    def leave_out(file: str, line: int, reason: str) -> None:
        reasons[kind_of(reason)] += 1
        if not examples:
            examples.append(f"{place_of(file, line)}: {reason}")

    def render(row: Row) -> tuple[str, Prompt]:
        prompt = prompt_of(row)
        return tokenizer.template(prompt.conversation).prompt(prompt.conversation), prompt

    found = (one for unit in read_plan(path).units for one in read_as(unit, render, leave_out))
    while batch := list(islice(found, _BATCH)):
        encoded = encoder.encode([Rendered(text, ()) for _, _, (text, _) in batch])
        for (file, line, (text, prompt)), own in zip(batch, encoded, strict=True):
            if len(own.ids) > max_tokens:
                leave_out(file, line, f"is longer than {max_tokens:,} tokens: {len(own.ids):,}")
                continue
            number = first + len(prompts)
            prompts.append(TokenPrompt(number, name, own.ids, unquoted(text), packed_record(prompt.record)))
    if not prompts:
        what = f"no prompt can be used; {examples[0]}" if examples else "holds no prompt"
        raise StoreError(path, what, f"mend it, or leave the source {name} out")
    return PromptSource(name, tuple(prompts), dict(reasons), "".join(examples))


def _slots(weights: list[float]) -> list[int]:
    """Slots of a cycle by weight; each source has one at least, and what is left goes to the largest remainders."""
    whole = sum(map(Fraction, map(str, weights)), Fraction())
    shares = [Fraction(str(weight)) / whole * _CYCLE for weight in weights]
    slots = [max(1, int(share)) for share in shares]
    by_need = sorted(range(len(weights)), key=lambda number: slots[number] - shares[number])
    for number in by_need[: max(0, _CYCLE - sum(slots))]:
        slots[number] += 1
    while sum(slots) > _CYCLE:
        slots[slots.index(max(slots))] -= 1
    return slots
