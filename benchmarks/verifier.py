"""Verdicts beside math-verify: `python -m benchmarks.verifier [--json] [--rounds N] [--problems N]`.

Answers to problems of integers, and of integers and algebra in equal parts: sixteen to a problem, as in a step of RL,
each with a reasoning of its own, and one to a problem, where nothing can be known from before. CPU time of all
processes that take part, in turn with math-verify called in process with its own time-outs, in an environment of its
own (.cache/bench). Both must say the same. Then two hundred answers that attack (`benchmarks.hostile`).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT, Figure, Result, peer_python
from benchmarks.formulas import algebra, answered, integers
from benchmarks.hostile import SECRET, hostile_answers
from xgen.posttrain.rewards import Task, Verdict, Verifiers, kernel
from xgen.spec.rewards import Code, Math, Verification

PACKAGES = ("math-verify==0.9.0",)
GROUP = 16
TIMES = 3.0  # of math-verify's rate
SECONDS, GRACE = 1.0, 3.0  # of a hostile answer
_MIXES: dict[str, tuple[Callable[..., tuple[str, list[str]]], int]] = {
    "integers": (integers, GROUP), "algebra": (algebra, GROUP), "algebra, one to a problem": (algebra, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Contained:
    """Of the hostile answers: how many, how many held, and what went wrong beside them."""

    answers: int
    contained: int
    failures: int  # no score
    faults: int  # of programs that were stopped
    neighbours_harmed: int
    seconds: float


@dataclass(frozen=True)
class VerifierResult(Result):
    """`differing`: verdicts that are not math-verify's, by mix."""

    differing: Mapping[str, int]
    hostile: Contained
    isolation: str

    @property
    def met(self) -> dict[str, bool]:
        held = self.hostile.contained == self.hostile.answers >= 200 and not self.hostile.neighbours_harmed
        return super().met | {
            "the verdicts of math-verify": not any(self.differing.values()),
            "hostile contained": held,
        }

    def print(self, as_json: bool) -> None:
        super().print(as_json)
        if as_json:
            return
        print(f"differing verdicts: {sum(self.differing.values())}")
        print(f"{self.isolation}; of hostile answers {self.hostile}")
        for goal, met in self.met.items():
            print(f"{goal}: {'met' if met else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verifier", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--problems", type=int, default=64, help="of each mix of sixteen answers to a problem")
    options = parser.parse_args()
    python = peer_python("verifier", PACKAGES, "some 20 s, 90 MB")
    rates: dict[str, list[float]] = defaultdict(list)
    differing = dict.fromkeys(_MIXES, 0)
    with tempfile.TemporaryDirectory() as name:
        for turn in range(options.rounds):
            for mix, (make, group) in _MIXES.items():
                pairs = answered(make, options.problems * GROUP // group // (1 if group > 1 else 2), group, seed=turn)
                ours, said = _ours(pairs)
                theirs, expected = _math_verify(python, pairs, Path(name))
                rates[mix].append(len(pairs) / ours)
                rates[f"math-verify, {mix}"].append(len(pairs) / theirs)
                differing[mix] += sum(one != other for one, other in zip(said, expected, strict=True))
    figures = {mix: Figure.of(rates[mix], "/s") for mix in _MIXES}
    peers = {name: Figure.of(rates[name], "/s") for name in (f"math-verify, {mix}" for mix in _MIXES)}
    goals = {mix: TIMES * peers[f"math-verify, {mix}"].median for mix in _MIXES}
    hostile, isolation = _contained()
    VerifierResult("verifier", figures, peers, goals, differing, hostile, isolation).print(options.json)


def _ours(pairs: Sequence[tuple[str, str]]) -> tuple[float, list[bool]]:
    """CPU seconds of this process and of all that it started, and the verdicts. Processes are new and warm."""
    rewards = (Math(kind="math"),)
    tasks = [Task("algebra", rewards, "", answer, 0, {"answer": reference}) for reference, answer in pairs]
    with Verifiers(Verification(workers=1)) as verifiers:
        verifiers.judge([Task("warm", rewards, "", f"$x+{number}$", 0, {"answer": "$1+x$"}) for number in range(50)])
        server = verifiers._link.process.pid
        before = time.process_time() + _cpu_seconds(server)
        verdicts = verifiers.judge(tasks)
        seconds = time.process_time() + _cpu_seconds(server) - before
    return seconds, [verdict.score == 1 for verdict in verdicts]


def _cpu_seconds(server: int) -> float:
    total = 0
    for pid in (server, *kernel.descendants(server)):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))  # its own, and of children that have ended
    return total / os.sysconf("SC_CLK_TCK")


def _math_verify(python: Path, pairs: Sequence[tuple[str, str]], folder: Path) -> tuple[float, list[bool]]:
    file = folder / "pairs.json"
    file.write_text(json.dumps(pairs))
    command = [str(python), str(ROOT / "benchmarks/peers/verifier.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        sys.exit(f"math-verify failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return float(result["seconds"]), result["verdicts"]


def _contained() -> tuple[Contained, str]:
    """With right answers between them."""
    os.environ["XGEN_SECRET"] = SECRET
    limits = {"seconds": SECONDS, "memory": "512MB", "processes": 4, "file_size": "1MB", "output": "64KB"}
    with (
        tempfile.NamedTemporaryFile("w") as file,
        socket.create_server(("127.0.0.1", 0)) as web,
        Verifiers(Verification.model_validate({"workers": 2, "limits": limits})) as verifiers,
    ):
        file.write(SECRET)
        file.flush()
        answers = hostile_answers(file.name, web.getsockname()[1], "nobody")
        tasks = [Task("hostile", (one.reward,), "", one.answer, 0, one.record) for one in answers]
        right = [_right(number) for number in range(len(answers) // 10)]
        began = time.monotonic()
        verdicts = verifiers.judge([*tasks, *right])
        seconds = time.monotonic() - began
        attacks, neighbours = verdicts[: len(tasks)], verdicts[len(tasks) :]
        held = sum(verdict.score != 1 and verdict.seconds < SECONDS + GRACE for verdict in attacks)
        harmed = sum(verdict.score != 1 for verdict in neighbours)
        failures, faults = (sum(map(bool, found)) for found in _stopped(attacks))
        return Contained(len(attacks), held, failures, faults, harmed, seconds), str(verifiers.isolation)


def _right(number: int) -> Task:
    record = {"tests": [f"assert f(2) == {number + 2}"]}
    return Task("right", (Code(kind="code"),), "", f"def f(x): return x + {number}", 0, record)


def _stopped(verdicts: Sequence[Verdict]) -> tuple[list[Mapping[str, str]], list[Mapping[str, str]]]:
    return [verdict.failures for verdict in verdicts], [verdict.faults for verdict in verdicts]


if __name__ == "__main__":
    main()
