"""What the campaigns share: options, a line a case, and the sum of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.common import machine
from tests.train.campaigns import Case


@dataclass(frozen=True)
class Options:
    count: int
    seed: int
    json: bool

    def show(self, case: Case) -> None:
        """One line on stderr, so that stdout holds the result alone."""
        resumed = ", ".join(map(str, case.resumed[1:])) or "-"
        outcome = case.wrong or "equal"
        print(
            f"{case.seed:>4}  {case.what:<20} {case.attempts} attempts, resumed at {resumed:<16} "
            f"lost {case.lost_steps} steps  {case.seconds:>5.1f} s  {outcome}",
            file=sys.stderr,
            flush=True,
        )


def options(name: str, about: str | None, what: str, default: int) -> Options:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument(f"--{what}", type=int, default=default, metavar="N", dest="count")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the same seed is the same case")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    chosen = parser.parse_args()
    return Options(chosen.count, chosen.seed, chosen.json)


def report(name: str, cases: Sequence[Case], facts: Mapping[str, int], as_json: bool) -> int:
    """Print the sum; returns the exit code."""
    wrong = [case for case in cases if case.wrong]
    figures = {
        **facts,
        "runs": len(cases),
        "not as undisturbed": len(wrong),
        "most steps lost at once": max(case.lost_steps for case in cases),
        "checkpoints rejected": sum(case.rejected for case in cases),
        "seconds": round(sum(case.seconds for case in cases)),
    }
    if as_json:
        met = {"all as undisturbed": not wrong}
        document = {"name": name, "figures": figures, "peers": {}, "goals": {"not as undisturbed": 0}, "met": met}
        print(json.dumps({**document, "cases": [asdict(case) for case in cases], "machine": machine()}, indent=2))
    else:
        kinds = Counter(case.what for case in cases)
        print(", ".join(f"{count} {kind}" for kind, count in kinds.items()))
        print("\n".join(f"{key}: {value}" for key, value in figures.items()))
    return 1 if wrong else 0
