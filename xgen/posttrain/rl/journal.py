"""`rollouts/` of the run directory: answers and verdicts as they come, so that a killed run generates none again.

One file for each step and rank, to which lines are appended; a torn one is passed over. A file goes when a checkpoint
after its step is durable. What is lost with it, or was never written, is generated again from the same seeds.
"""

from __future__ import annotations

import base64
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from xgen.posttrain.rl.answers import Judged, Versions
from xgen.train.records import RecordFile

_FILE = re.compile(r"step-(\d+)\.rank-\d+\.jsonl")
Key = tuple[int, int]  # number of the prompt, and of the answer within its group


@dataclass(frozen=True)
class Begun:
    """Tokens of an answer; `finish` is None where it has not ended."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"] | None
    versions: Versions


@dataclass(frozen=True)
class Known:
    """What the journal has of an answer."""

    begun: Begun
    judged: Judged | None = None


class _Line(BaseModel):
    """An answer, or the verdict on one that was written before. `of`: fingerprint of all that the answers follow
    from."""

    model_config = ConfigDict(frozen=True)

    of: str
    prompt: int
    answer: int
    tokens: str | None = None  # base64 of int32
    logprobs: str | None = None  # base64 of float32
    finish: Literal["stop", "length"] | None = None
    versions: Versions = ()
    reward: float | None = None
    parts: dict[str, float | None] | None = None
    failures: dict[str, str] | None = None
    details: dict[str, str] | None = None
    seconds: float = 0.0


class Journal:
    """Of one rank, thread-safe. Every rank reads what all have written: the next attempt may have others."""

    def __init__(self, folder: Path, rank: int, fingerprint: str) -> None:
        self._folder, self._rank, self._fingerprint = folder, rank, fingerprint
        self._files: dict[int, RecordFile] = {}
        self._failing = False
        self._lock = threading.Lock()  # answers are written beside the training, which lets go of steps
        folder.mkdir(exist_ok=True)

    def add_answer(self, step: int, key: Key, begun: Begun) -> None:
        self._append(
            step,
            _Line(
                of=self._fingerprint,
                prompt=key[0],
                answer=key[1],
                tokens=_packed(begun.tokens, "<i4"),
                logprobs=_packed(begun.logprobs, "<f4"),
                finish=begun.finish,
                versions=begun.versions,
            ),
        )

    def add_verdict(self, step: int, key: Key, judged: Judged) -> None:
        self._append(
            step,
            _Line(
                of=self._fingerprint,
                prompt=key[0],
                answer=key[1],
                reward=judged.reward,
                parts=dict(judged.parts),
                failures=dict(judged.failures),
                details=dict(judged.details) or None,
                seconds=judged.seconds,
            ),
        )

    def steps(self) -> frozenset[int]:
        """Of which some rank has written."""
        names = (_FILE.fullmatch(path.name) for path in self._folder.glob("step-*.jsonl"))
        return frozenset(int(name[1]) for name in names if name)

    def read(self, step: int) -> Mapping[Key, Known]:
        """Answers to the prompts of a step that some rank of some attempt has written, the last of each."""
        found: dict[Key, Known] = {}
        for path in sorted(self._folder.glob(f"step-{step}.rank-*.jsonl")):
            for text in _lines(path):
                try:
                    self._take(_Line.model_validate_json(text), found)
                except ValueError:
                    continue  # torn when its writer died
        return found

    def _take(self, line: _Line, found: dict[Key, Known]) -> None:
        """Raises ValueError for what does not fit together."""
        key = line.prompt, line.answer
        if line.of != self._fingerprint:
            return
        if line.tokens is not None and line.logprobs is not None:
            tokens, logprobs = _unpacked(line.tokens, "<i4"), _unpacked(line.logprobs, "<f4")
            if len(tokens) != len(logprobs) or len(tokens) != sum(count for _, count in line.versions):
                raise ValueError(f"{len(tokens)} tokens")
            if line.finish or key not in found or found[key].begun.finish is None:
                # What was under way at a stop may have been whole by the time that it was written down.
                found[key] = Known(Begun(tokens, logprobs, line.finish, line.versions))
        elif line.parts is not None and key in found:
            judged = Judged(line.reward, line.parts, line.failures or {}, line.seconds, line.details or {})
            found[key] = Known(found[key].begun, judged)

    def prune(self, durable: int) -> None:
        """Let go of the steps up to a durable one."""
        with self._lock:
            for step in [step for step in self._files if step <= durable]:
                self._files.pop(step).close()
        if self._rank:
            return
        for path in self._folder.glob("step-*.jsonl"):
            if (name := _FILE.fullmatch(path.name)) and int(name[1]) <= durable:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def _append(self, step: int, line: _Line) -> None:
        with self._lock:
            self._append_alone(step, line)

    def _append_alone(self, step: int, line: _Line) -> None:
        if step not in self._files:
            path = self._folder / f"step-{step}.rank-{self._rank}.jsonl"
            try:
                self._files[step] = RecordFile(path)
            except OSError as error:  # no room for a file: as for a line, the training goes on
                if not self._failing:
                    print(f"{path}: cannot keep answers, the training goes on: {error}", file=sys.stderr, flush=True)
                self._failing = True
                return
            self._failing = False
        self._files[step].append(line)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return  # just pruned by rank 0


def _packed(values: tuple[int, ...] | tuple[float, ...], kind: str) -> str:
    return base64.b64encode(np.array(values, dtype=kind).tobytes()).decode()


def _unpacked(text: str, kind: str) -> tuple[Any, ...]:
    return tuple(np.frombuffer(base64.b64decode(text), dtype=kind).tolist())
