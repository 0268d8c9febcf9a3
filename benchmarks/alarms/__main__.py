"""Plant faults on the dev SLURM, and see which alerts come, go, and should not have come.

    python -m benchmarks.alarms [--json] [--out DIR] [--only NAME] [--only NAME]

It takes the whole dev SLURM for some 12 minutes, restarts it, and needs root. Exit code 1: an alert did not come or
did not go, another came, a panel did not show it, a panel was empty, or a ratio was not the ledger's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.alarms import FACTOR
from benchmarks.alarms.faults import FAULTS, LAST
from benchmarks.alarms.lab import Lab, laboratory
from benchmarks.alarms.pictures import EMPTY_HERE, draw_all
from benchmarks.alarms.ratios import Ratio, compare
from benchmarks.alarms.trial import Trial, judge, play
from benchmarks.alarms.watch import LabError
from benchmarks.common import machine
from xgen.runs import RunDir


def main() -> int:
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alarms", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for a picture of every dashboard; default: none")
    parser.add_argument("--only", action="append", choices=names, help="this fault, and no other; repeatable")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if options.only is None or fault.name in options.only]
    began = time.time()
    try:
        with laboratory() as lab:
            trials = play(lab, chosen, _say)
            time.sleep(3)  # what Alertmanager still holds back
            judge(trials)
            runs = [run for trial in trials for run in trial.runs]
            ratios = compare(lab, runs)
            empty = _draw(lab, options.out, began, trials) if options.out else []
    except (LabError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or ""
        print(f"alarms: {error} {said if isinstance(said, str) else said.decode()}".rstrip(), file=sys.stderr)
        return 1
    passed = all(trial.passed for trial in trials) and all(ratio.equal for ratio in ratios) and not empty
    if options.json:
        print(json.dumps(_document(trials, ratios, empty, passed, time.time() - began), indent=2))
    else:
        _print(trials, ratios, empty, bool(options.out))
        print(
            f"{time.time() - began:.0f} s, time {FACTOR} times as fast: {'all as it should be' if passed else 'FAILED'}"
        )
    return 0 if passed else 1


def _say(trial: Trial) -> None:
    """A line as each ends, so that stdout holds the result alone."""
    print(
        f"{trial.name:<11} {trial.ended - trial.began:>4.0f} s  {trial.failure or 'done'}", file=sys.stderr, flush=True
    )


def _draw(lab: Lab, out: Path, start: float, trials: list[Trial]) -> list[str]:
    """As it was before the last faults blinded all."""
    trained = {trial.name: trial.runs[0] for trial in trials if trial.runs and trial.name not in ("finish", "lost")}
    if not trained:
        raise LabError("no fault that was asked for has a training to be drawn")
    end = min((trial.began for trial in trials if trial.name in LAST), default=time.time())
    shown = RunDir(lab.cluster.run_root / trained.get("preemption", next(iter(trained.values()))))
    compared = [run for name, run in trained.items() if name in ("preemption", "kill", "hang", "time-limit")]
    return draw_all(lab.watch, out, shown, compared or list(trained.values()), start, end)


def _print(trials: list[Trial], ratios: list[Ratio], empty: list[str], drawn: bool) -> None:
    print(f"{'fault':<11} {'what':<32} {'alert':<24} {'fired':>7} {'gone':>7}  {'wrong alerts':<24} seen on")
    for trial in trials:
        rows = [
            (alarm.name, _after(alarm.planted, alarm.fired), _after(alarm.planted, alarm.resolved))
            for alarm in trial.alarms
        ] or [("silent", "", "")]
        for number, (name, fired, gone) in enumerate(rows):
            first = (
                (trial.name, trial.what, ", ".join(trial.wrong) or "none", _places(trial)) if not number else [""] * 4
            )
            print(f"{first[0]:<11} {first[1]:<32} {name:<24} {fired:>7} {gone:>7}  {first[2]:<24} {first[3]}")
        if trial.failure:
            print(f"            {trial.failure}")
    print()
    for ratio in ratios:
        differ = "" if ratio.equal else "  DIFFER"
        told = "no answer" if ratio.promql is None else f"{ratio.promql:.4f}"
        print(f"{ratio.run:<18} {ratio.what:<24} PromQL {told}  ledger {ratio.ledger:.4f}{differ}")
    if drawn:
        print(*(f"empty: {text}" for text in empty), sep="\n")
        for reason, panels in EMPTY_HERE.items():
            print(f"not held to data, for {reason}: {', '.join(p for names in panels.values() for p in names)}")


def _after(planted: float, at: float | None) -> str:
    return "never" if at is None else f"{at - planted:.0f} s"


def _places(trial: Trial) -> str:
    return ", ".join(place if shown else f"NOT on {place}" for place, shown in trial.seen.items())


def _document(trials: list[Trial], ratios: list[Ratio], empty: list[str], passed: bool, seconds: float) -> object:
    faults = [
        {
            "name": t.name, "what": t.what, "passed": t.passed, "failure": t.failure, "wrong": t.wrong, "seen": t.seen,
            "alarms": [
                {
                    "name": a.name, "labels": dict(a.labels), "fired": a.fired and a.fired - a.planted,
                    "resolved": a.resolved and a.resolved - a.planted,
                }
                for a in t.alarms
            ],
        }
        for t in trials
    ]  # fmt: skip
    return {
        "name": "alarms", "passed": passed, "seconds": round(seconds), "factor": FACTOR, "faults": faults,
        "ratios": [{**asdict(ratio), "equal": ratio.equal} for ratio in ratios], "empty": empty, "machine": machine(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
