"""`xgen status --all`: the runs of every known cluster in one list, each asked at the same time."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from xgen.cli.common import EXIT_REMOTE, print_json
from xgen.cli.status import NO_ANSWER, runs_below, table
from xgen.cluster.status import RunStatus
from xgen.remote.client import ask
from xgen.remote.faults import RemoteError
from xgen.spec import ElsewhereError, SpecError, Ssh, load_profile
from xgen.spec.load import known_profiles

_ANSWER_TIME = 30.0  # seconds, for each cluster; XGEN_STATUS_TIMEOUT is another


@dataclass(frozen=True)
class _Answer:
    """`error`: why there are no runs, or no states of the scheduler. `host`: '' for a cluster of this machine."""

    host: str
    rows: list[RunStatus]
    error: str = ""


@dataclass(frozen=True)
class _Place:
    """Where runs lie, and the profiles that say so: more than one may, for parts of a cluster."""

    clusters: list[str]
    ask: Callable[[], _Answer]

    def __str__(self) -> str:
        return ",".join(self.clusters)


def show_all(newest: int | None, as_json: bool) -> None:
    """Leaves with 4 where no cluster has answered."""
    places = list(_places(known_profiles(Path.cwd()), newest))
    answers = _ask_all(places)
    if as_json:
        print_json(
            [
                {
                    "clusters": place.clusters,
                    "host": one.host,
                    "error": one.error,
                    "runs": [asdict(r) for r in one.rows],
                }
                for place, one in zip(places, answers, strict=True)
            ]
        )
    else:
        _print([str(place) for place in places], answers)
    if answers and not any(answer.rows or not answer.error for answer in answers):
        sys.exit(EXIT_REMOTE)


def _print(names: list[str], answers: list[_Answer]) -> None:
    pairs = [(name, row) for name, answer in zip(names, answers, strict=True) for row in answer.rows]
    if pairs:
        clusters, rows = [name for name, _ in pairs], [row for _, row in pairs]
        sys.stdout.write("".join(f"{line}\n" for line in table(rows, shutil.get_terminal_size().columns, clusters)))
    if idle := [name for name, answer in zip(names, answers, strict=True) if not answer.rows and not answer.error]:
        print(f"no runs: {', '.join(idle)}")
    sys.stdout.flush()
    for name, answer in zip(names, answers, strict=True):
        if answer.error:
            print(f"{name}: {answer.error}", file=sys.stderr)


def _places(profiles: dict[str, Path], newest: int | None) -> Iterator[_Place]:
    roots: dict[str, list[str]] = {}
    for name, file in sorted(profiles.items()):
        try:
            roots.setdefault(load_profile(file).run_root, []).append(name)
        except ElsewhereError as error:
            yield _Place([name], partial(_ask_there, error.ssh, name, newest))
        except SpecError as error:
            yield _Place([name], partial(_Answer, "", [], str(error).partition("\n")[0]))
    for root, names in roots.items():
        yield _Place(names, partial(_ask_here, Path(root), newest))


def _ask_all(places: list[_Place]) -> list[_Answer]:
    """What each said. A file system that hangs holds its own thread only."""
    answers: dict[int, _Answer] = {}

    def look(number: int, place: _Place) -> None:
        try:
            answers[number] = place.ask()
        except (OSError, ValueError, TypeError, LookupError, SpecError) as error:
            answers[number] = _Answer("", [], f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=look, args=item, daemon=True) for item in enumerate(places)]
    for thread in threads:
        thread.start()
    seconds = _answer_time()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = _Answer("", [], f"did not answer within {seconds:.0f} s")
    return [answers.get(number, late) for number in range(len(places))]


def _answer_time() -> float:
    return float(os.environ.get("XGEN_STATUS_TIMEOUT") or _ANSWER_TIME)


def _ask_here(root: Path, newest: int | None) -> _Answer:
    try:
        found = runs_below(root, newest)
    except OSError as error:
        return _Answer("", [], f"{root}: {error.strerror or error}")
    return _Answer("", found.rows, f"{NO_ANSWER}{found.error}" if found.error else "")


def _ask_there(ssh: Ssh, name: str, newest: int | None) -> _Answer:
    number = ["--ended"] if newest is None else ["--last", str(newest)]
    try:
        code, out, said = ask(ssh, ["status", "--cluster", name, "--json", *number], name, 0.95 * _answer_time())
    except RemoteError as error:
        return _Answer(ssh.said, [], str(error))
    if code:
        return _Answer(ssh.said, [], said.strip() or f"its xgen ended with {code}")
    return _Answer(ssh.said, [RunStatus(**row) for row in json.loads(out)], said.strip())
