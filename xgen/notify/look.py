"""One look at all runs: what is new of those that somebody wants to hear of is sent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from xgen.notify import claims
from xgen.notify.channels import Channel, channels_of, is_ours
from xgen.notify.facts import Fact, Facts
from xgen.notify.message import About
from xgen.notify.send import SendError
from xgen.runs import RUN_NAME, EventReader, RunDir, read_attempt_outcome
from xgen.runs.rundir import submitted_at
from xgen.runs.users import user_name
from xgen.spec import Job, Profile, SpecError, load_resolved

RECENT = 86400.0  # seconds: of what is older nobody wants to be told
_SPEC_KEY = b"\nnotify:"
_STUBBORN = 2  # failures in a row of one place, after which the rest waits for the next look


@dataclass(frozen=True)
class Told:
    """One try. `result`: sent, or why not."""

    run: str
    fact: str
    channel: str
    result: str

    @property
    def is_sent(self) -> bool:
        return self.result == claims.SENT


@dataclass
class _Known:
    """What a sender that looks again and again keeps of a run."""

    submitted: float  # time of its spec
    channels: tuple[Channel, ...]
    reader: EventReader
    facts: Facts
    settled: set[tuple[str, str]] = field(default_factory=set)


class Notifier:
    """Looks once, or again and again. What is wrong with one run or one hook is a line of the answer, and no error."""

    def __init__(self, run_root: Path, cluster: str, profile: Profile) -> None:
        self._root, self._cluster, self._profile = run_root, cluster, profile
        self._site = channels_of(profile.notify, profile, site=True)
        self._known: dict[str, _Known] = {}

    def look(self, lost: Mapping[str, str] | None = None) -> list[Told]:
        """`lost`: runs of which the scheduler has no job although nobody decided, with the reason. Returns what was
        tried."""
        told: list[Told] = []
        failures: dict[str, int] = {}
        try:
            with os.scandir(self._root) as entries:
                found = [(entry.name, entry.path) for entry in entries if RUN_NAME.match(entry.name)]
        except OSError:
            return []
        for name in self._known.keys() - {name for name, _ in found}:
            del self._known[name]
        for name, path in found:
            try:
                told += self._look_at(RunDir(self._root / name), path, (lost or {}).get(name), failures)
            except OSError as error:
                if self._known.get(name):  # it was readable, and somebody wants to hear of it
                    told.append(Told(name, "-", "-", f"{error.filename or path}: {error.strerror or error}"))
        return told

    def send_now(self, run: RunDir, fact: Fact) -> list[Told]:
        """A message to all channels of a run, whether or not it was sent before: to try them."""
        found = []
        for channel in self._open(run, 0.0).channels:
            try:
                channel.send(channel.url(), fact, self._about(run))
                found.append(Told(run.name, fact.key, channel.name, claims.SENT))
            except SendError as error:
                found.append(Told(run.name, fact.key, channel.name, str(error)))
        return found

    def _look_at(self, run: RunDir, path: str, lost: str | None, failures: dict[str, int]) -> list[Told]:
        submitted, known = submitted_at(path), self._known.get(run.name)
        if submitted is None:
            return []
        if known is None or known.submitted != submitted:
            known = self._known[run.name] = self._open(run, submitted)
        now = time.time()
        if not known.channels or now - _newest(f"{path}/events") > RECENT:
            return []
        for event in known.reader.new():
            known.facts.add(event)
        facts = [*known.facts.found, *([known.facts.lost(lost, now)] if lost is not None else [])]
        return [
            one
            for fact in facts
            if now - fact.time < RECENT
            for channel in known.channels
            if fact.occasion in channel.on and (fact.key, channel.name) not in known.settled
            for one in self._tell(run, known, fact, channel, failures)
        ]

    def _open(self, run: RunDir, submitted: float) -> _Known:
        def reason_of(attempt: int) -> str:
            with suppress(OSError):
                if outcome := read_attempt_outcome(run, attempt):
                    return outcome.reason
            return ""

        channels = self._site
        if _SPEC_KEY in run.spec_file.read_bytes() and is_ours(run.path) and (job := _spec(run)):
            channels = (*channels, *channels_of(job.notify, self._profile, site=False))
        return _Known(submitted, channels, EventReader(run, thinned=True), Facts(reason_of))

    def _tell(
        self, run: RunDir, known: _Known, fact: Fact, channel: Channel, failures: dict[str, int]
    ) -> Iterator[Told]:
        if failures.get(channel.place, 0) >= _STUBBORN:
            return
        try:
            url = channel.url()
        except SendError as error:  # no try is used up: another sender may be able to
            failures[channel.place] = _STUBBORN
            yield Told(run.name, fact.key, channel.name, str(error))
            return
        file = claims.claim(run, fact.key, channel.name, time.time())
        if file is None:
            if claims.is_settled(run, fact.key, channel.name):
                known.settled.add((fact.key, channel.name))
            return
        result = claims.SENT
        try:
            channel.send(url, fact, self._about(run))
            failures.pop(channel.place, None)
        except SendError as error:
            result = str(error)
            failures[channel.place] = failures.get(channel.place, 0) + 1
        claims.record(file, result, time.time())
        yield Told(run.name, fact.key, channel.name, result)

    def _about(self, run: RunDir) -> About:
        job, user = _spec(run), user_name(run.path.stat().st_uid)
        return About(run.name, user, (job and job.project) or "", self._cluster)


def _spec(run: RunDir) -> Job | None:
    try:
        return load_resolved(run.spec_file)
    except (OSError, SpecError):
        return None


def _newest(folder: str) -> float:
    """When anything was last written there."""
    try:
        with os.scandir(folder) as entries:
            return max((entry.stat().st_mtime for entry in entries), default=0.0)
    except FileNotFoundError:
        return 0.0
