"""Try rewards on answers: `python -m xgen.posttrain.rewards REWARDS FILE [--seconds N] [--workers N] [--json]`.

REWARDS is what a spec would say, as `{kind: math}` or `[{kind: code}, {kind: length, free: 1k, most: 2k}]`. FILE has a
JSON object a line: the record of a prompt (`prompt`, `answer`, `tests`) with the `response` to be judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from xgen.posttrain.rewards import Task, Verifiers
from xgen.spec.rewards import Limits, Reward, Verification


class _MistakeError(Exception):
    """Of the user: a line that says what to write."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m xgen.posttrain.rewards", description=__doc__)
    parser.add_argument("rewards")
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one verdict")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="a JSON object for each answer")
    options = parser.parse_args()
    try:
        tasks = list(_tasks(_rewards(options.rewards), options.file))
        verification = _verification(options.seconds, options.workers)
    except _MistakeError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    with Verifiers(verification) as verifiers:
        print(verifiers.isolation, file=sys.stderr)
        for number, verdict in enumerate(verifiers.judge(tasks), start=1):
            if options.json:
                print(json.dumps({"line": number, **asdict(verdict)}))
                continue
            score = "no score" if verdict.score is None else f"{verdict.score:g}"
            notes = [
                f"{kind}: {why} {verdict.details.get(kind, '')}".rstrip() for kind, why in verdict.failures.items()
            ]
            notes += [f"{kind} was stopped: {why}" for kind, why in verdict.faults.items()]
            print(f"{number:>6}  {score:<9} {verdict.seconds:7.3f} s  {'; '.join(notes)}".rstrip())


def _rewards(text: str) -> tuple[Reward, ...]:
    try:
        said = yaml.safe_load(text)
        return tuple(TypeAdapter(list[Reward]).validate_python(said if isinstance(said, list) else [said]))
    except yaml.YAMLError as error:
        raise _MistakeError(f"{text!r} is no YAML: {error}") from error
    except ValidationError as error:
        raise _MistakeError("\n".join(f"{text!r}: {one['msg']}" for one in error.errors())) from error


def _verification(seconds: float, workers: int) -> Verification:
    try:
        return Verification(workers=workers, limits=Limits(seconds=seconds))
    except ValidationError as error:
        first = error.errors()[0]
        raise _MistakeError(f"--{first['loc'][-1]} {first['input']}: {first['msg']}") from error


def _tasks(rewards: tuple[Reward, ...], file: Path) -> Iterator[Task]:
    try:
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")  # not what Unicode calls lines
    except OSError as error:
        raise _MistakeError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _MistakeError(f"{file}: is not UTF-8: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(lines, start=1):
        try:
            record: Any = json.loads(line)
            response = record["response"]
        except (ValueError, LookupError, TypeError) as error:
            raise _MistakeError(f"{file}:{number}: write a JSON object with the text `response`") from error
        tokens = record.get("num_tokens", len(str(response).split()))
        if not isinstance(tokens, int):
            raise _MistakeError(f"{file}:{number}: num_tokens is {tokens!r}; write a number, or leave it out")
        yield Task("file", rewards, str(record.get("prompt", "")), str(response), tokens, record)


if __name__ == "__main__":
    main()
