"""`xgen logs`: what the tasks and the batch script printed, across attempts."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, RunArgument, find_run, printable, usage

# Seconds between two calls of squeue: it says when a run is lost; of any other end the run's own files tell.
_ASK_EVERY = 30.0
_LOOK_EVERY = 0.5  # seconds between two looks at the logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from xgen.runs import RunDir
    from xgen.runs.logs import Choice, Cursor, LogLine


def command(
    run: RunArgument,
    cluster: ClusterOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends; new attempts too.")] = False,
    rank: Annotated[
        list[int] | None, typer.Option("--rank", metavar="N", min=0, help="Of this rank only; may be repeated.")
    ] = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="The last N lines.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DURATION", help="Since so long ago, e.g. 10m; to some seconds.")
    ] = None,
    errors: Annotated[bool, typer.Option("--err", help="The error stream (Python's warnings and tracebacks).")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", metavar="N", help="Default: the newest.")] = None,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="All of them, as with --follow, --since and --after.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="[STAGE/]N", help="One shard of a job array; with its stage if several have."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="PLACE", help="What comes after this place, which --json and Ctrl-C tell."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a line: attempt, stream, rank, text, cursor.")
    ] = False,
) -> None:
    """Print a run's log: both streams in their order. Lines begin with the rank that printed them.

    A connection that was dropped loses nothing: `--after`, with the last place that was told, goes on behind it.
    """
    from xgen.runs.logs import Choice

    found = find_run(run, cluster)
    part, said, has_ended = found, found.name, _never
    if shard is not None:
        part, said, has_ended = _shard(found, shard)
    newest = part.last_attempt()
    if not newest and not follow:
        usage(f"{said} has not started; write xgen status {found.name}")
    if attempt and not part.attempt_dir(attempt).is_dir():
        usage(f"{said} has no attempt {attempt}; it has {newest}")
    if shard is None:
        _refuse_array(found, attempt or newest)
    if rank:
        _refuse_ranks(found, said, rank)
    if sum(option is not None for option in (tail, since, after)) > 1:
        usage("--tail, --since and --after: each says where to begin; write one")
    whole = all_attempts or follow or since is not None or after is not None
    attempts = [attempt] if attempt else [n for n in range(1, newest + 1) if whole or n == newest]
    choice = Choice(("err",) if errors else ("out", "err"), frozenset(rank or ()))
    printer = _Printer(found.name, as_json, _again(sys.argv), "XGEN_LOG_PLACES" in os.environ)
    reader = _Reader(part, choice, _beginning(part, attempts, choice, tail, since, after), printer)
    try:
        if follow:
            _follow(found, reader, has_ended)
        elif reader.cursor:
            for number in attempts:
                reader.read(number, last=True)
    except KeyboardInterrupt:
        printer.interrupted(reader.cursor)
        raise


def _never() -> bool:
    return False


def _shard(run: RunDir, text: str) -> tuple[RunDir, str, Callable[[], bool]]:
    """Where the logs of a shard lie, what to call it, and whether it has ended."""
    from xgen.cli.shards import find_shard
    from xgen.runs.shards import has_ended

    stage, number = find_shard(run, text)
    return run.shard(stage, number), f"shard {text} of {run.name}", lambda: has_ended(run, stage, number)


def _refuse_array(run: RunDir, attempt: int) -> None:
    """Leaves with exit code 2 where an attempt of the run is a job array: its shards have the logs."""
    from xgen.cli.shards import arrays_of, how_to_name
    from xgen.spec import load_resolved

    if not run.shards_dir.is_dir() or (attempt and (run.attempt_dir(attempt) / "out.log").exists()):
        return
    job = load_resolved(run.spec_file)
    if attempt or (job.array_of(0) and not job.serves(0)):
        usage(f"{run.name} is a job array, and each of its shards has a log; {how_to_name(run, arrays_of(job))}")


def _refuse_ranks(run: RunDir, said: str, ranks: list[int]) -> None:
    """Leaves with exit code 2 where no stage has a rank of that number."""
    from xgen.spec import load_resolved

    most = max(resources.world_size for _, resources in load_resolved(run.spec_file).jobs)
    if wrong := [rank for rank in ranks if rank >= most]:
        usage(f"--rank: {said} has ranks 0 to {most - 1}; {wrong[0]} is none")


def _beginning(
    part: RunDir, attempts: list[int], choice: Choice, tail: int | None, since: str | None, after: str | None
) -> Cursor | None:
    """Where to begin; None where there is nothing yet, or nothing so new."""
    from xgen.runs import logs
    from xgen.spec.units import parse_duration

    try:
        if after is not None:
            return logs.Cursor.parse(after)
        if since is not None:
            return logs.since(part, attempts, time.time() - parse_duration(since))
    except ValueError as error:
        usage(f"--{'since' if after is None else 'after'}: {error}")
    if tail is not None and attempts:
        return logs.tail(part, attempts, choice, tail)
    return logs.Cursor(attempts[0]) if attempts else None


def _again(words: list[str]) -> str:
    """This command as it was given, without what said where to begin."""
    import shlex

    from xgen.remote.places import without_beginning

    return shlex.join(["xgen", *without_beginning(words[1:])])


@dataclass
class _Printer:
    """Lines as text that no terminal obeys, or as JSON."""

    run: str
    as_json: bool
    again: str
    tells_places: bool  # to whoever reads over a connection that may break
    attempt: int = 0

    def line(self, line: LogLine) -> None:
        if self.as_json:
            text = line.text.decode(errors="replace")
            facts = {"attempt": line.cursor.attempt, "stream": line.stream, "rank": line.rank, "text": text}
            self._print(json.dumps(facts | {"cursor": str(line.cursor)}), line.cursor)
            return
        # What a progress bar wrote over, a terminal would not show either.
        shown = line.text.rstrip(b"\r").rpartition(b"\r")
        label = shown[0][: shown[0].find(b": ") + 2] if shown[1] and line.rank is not None else b""
        self._print(printable((label + shown[2]).decode(errors="backslashreplace")), line.cursor)

    def _print(self, text: str, cursor: Cursor) -> None:
        print(f"{text}\0{cursor}" if self.tells_places else text)

    def begin(self, attempt: int) -> None:
        from xgen.runs.logs import Cursor

        if self.attempt and not self.as_json:
            self._print(f"--- attempt {attempt}", Cursor(attempt))
        self.attempt = attempt

    def cut(self, stream: str) -> None:
        print(f"--- {stream}.log is shorter than before: read from its beginning", file=sys.stderr)

    def ended(self, state: str, reason: str, cursor: Cursor | None) -> None:
        if self.as_json:
            print(json.dumps({"ended": state, "reason": reason, "cursor": str(cursor) if cursor else None}))
        elif state == "lost":
            print(f"{self.run} is lost: {reason}", file=sys.stderr)

    def interrupted(self, cursor: Cursor | None) -> None:
        if cursor and not self.as_json:
            sys.stdout.flush()
            print(f"\ngo on: {self.again} --after {cursor}", file=sys.stderr)


class _Reader:
    """Prints the attempts of a run, or of a shard, from a place on."""

    def __init__(self, part: RunDir, choice: Choice, cursor: Cursor | None, printer: _Printer) -> None:
        self.part, self.cursor = part, cursor
        self._choice, self._printer = choice, printer
        self._marked = 0  # attempt whose marks have been used

    def read(self, attempt: int, *, last: bool) -> None:
        """What is new of an attempt."""
        from xgen.runs.log_files import read_marks, sizes
        from xgen.runs.logs import Cursor, cut, read_on

        folder = self.part.attempt_dir(attempt)
        cursor = self.cursor or Cursor(attempt)
        if attempt < cursor.attempt:
            return
        if attempt > cursor.attempt:
            cursor = Cursor(attempt)
        if attempt != self._printer.attempt:
            self._printer.begin(attempt)
        for stream in cut(folder, cursor):
            self._printer.cut(stream)
            cursor = cursor.moved(stream, 0)
        self.cursor = cursor
        now = sizes(folder, time.time())
        marks = read_marks(folder) if self._marked != attempt else []
        self._marked = attempt
        for line in read_on(folder, cursor, self._choice.streams, now, last=last, marks=marks):
            if self._choice.counts(line.text):
                self._printer.line(line)
            self.cursor = line.cursor
        sys.stdout.flush()

    def end(self, state: str, reason: str) -> None:
        self._printer.ended(state, reason, self.cursor)


def _follow(run: RunDir, reader: _Reader, has_ended: Callable[[], bool]) -> None:
    """Until the run ends, or the part of it that is read: the run itself, or a shard."""
    from xgen.cluster.local import is_local
    from xgen.cluster.status import QueueView, QueueWatch, last_decision, run_state
    from xgen.runs import EventReader

    events, last = EventReader(run), None
    watch = None if is_local(run) else QueueWatch(run, _ASK_EVERY)
    number = reader.cursor.attempt if reader.cursor else reader.part.last_attempt()
    while True:
        # The queue first: what is gone from it has said how it ended. And the state before the log: what was printed
        # before the end is then still to be copied.
        view = watch.view if watch else QueueView(None)
        last = last_decision(events.new(), last)
        state, reason = run_state(run, last, view)
        ended = has_ended() or state in ("finished", "failed", "cancelled", "lost")
        newest = reader.part.last_attempt()
        if number:
            reader.read(number, last=ended or newest > number)
        if newest > number:
            number += 1
        elif ended:
            reader.end(state, reason)
            return
        else:
            time.sleep(_LOOK_EVERY)
