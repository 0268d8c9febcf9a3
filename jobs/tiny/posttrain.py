"""`make posttrain`: conversations, preference pairs, online RL in a row, from the tiny pipeline's extended checkpoint.

Every training is preempted once and resumes. Then come a table of what was to be shown, and the picture of the curves.
Everything is real: SLURM, the preemption, the training; what is learnt is planted (xgen/posttrain/tiny).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import ROOT, DemoError, bring_up, failed, find, headline, last_step, preempt, submit, wait

from xgen.runs import RunDir, read_events, replay

CORPUS = ".cache/tiny-chat"
# By spec, the step at which it is preempted: between two periodic checkpoints, so that only the save on the signal can
# explain the resume.
STAGES = {"sft": 130, "dpo": 13, "grpo": 13}


@dataclass(frozen=True)
class Chain:
    """The runs of one seed, and the seconds from the first submission to the last end."""

    seed: int
    runs: dict[str, RunDir]
    seconds: float


@dataclass(frozen=True)
class Goal:
    """What was measured on held-out records, before and after."""

    what: str
    before: float
    after: float
    reached: bool

    def __str__(self) -> str:
        return f"{'yes' if self.reached else 'NO'}: {self.what}: {self.before:.3f} -> {self.after:.3f}"


def main() -> int:
    """Exit code: 0 where all goals are reached."""
    parser = argparse.ArgumentParser(prog="python jobs/tiny/posttrain.py", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--cluster", metavar="NAME", help="default: dev, brought up here; local without SLURM")
    parser.add_argument("--init", metavar="RUN", help="of pretrain-stages.yaml; default: one that is made now")
    parser.add_argument("--out", type=Path, default=Path(".cache/demo/posttrain.png"), help="default: %(default)s")
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        cluster = options.cluster or bring_up()
        subprocess.run([sys.executable, "-m", "xgen.posttrain.tiny", CORPUS], check=True, timeout=120)
        base = options.init or pretrain(cluster)
        chains: list[Chain] = []
        reached: list[bool] = []
        for seed in options.seeds:
            chains.append(train(base, seed, cluster))
            reached.append(verdict(chains[-1]))
        draw(chains, options.out)
    except (DemoError, subprocess.SubprocessError) as error:
        return failed("posttrain", error)
    return 0 if all(reached) else 1


def pretrain(cluster: str) -> str:
    headline("the extended checkpoint")
    run = submit("jobs/tiny/pretrain-stages.yaml", cluster)
    _until_the_end(run, 1200)
    return run.name


def train(base: str, seed: int, cluster: str) -> Chain:
    began, runs, init = time.monotonic(), dict[str, RunDir](), base
    for name, step in STAGES.items():
        headline(f"seed {seed}: {name}")
        run = submit(f"jobs/tiny/{name}.yaml", cluster, f"init={init}", f"seed={seed}")
        wait(run, f"step {step}", _has_step(run, step), timeout=400)
        preempt(run, cluster)
        _until_the_end(run, 400)
        runs[name], init = run, run.name
    return Chain(seed, runs, time.monotonic() - began)


def _has_step(run: RunDir, step: int) -> Callable[[object], bool]:
    return lambda _: last_step(run)[0] >= step


def _until_the_end(run: RunDir, timeout: float) -> None:
    wait(run, "the end", lambda ledger: ledger.phase is None, timeout)
    if not find(run, "finished"):
        raise DemoError(f"{run.name} did not finish: see xgen status {run.name}")


def verdict(chain: Chain) -> bool:
    """Print what was to be shown; whether all of it was."""
    headline(f"seed {chain.seed}: {chain.seconds:.0f} s")
    resumed = [_resumed_where_it_stopped(name, run) for name, run in chain.runs.items()]
    goals = _goals(chain.runs)
    for goal in goals:
        print(f"  {goal}")
    return all(resumed) and all(goal.reached for goal in goals)


def _resumed_where_it_stopped(name: str, run: RunDir) -> bool:
    before, after = replay(read_events(run)).attempts[-2:]
    holds = after.resumed_step == before.durable_step >= STAGES[name]
    said = f"preempted, saved step {before.durable_step}, resumed at step {after.resumed_step}"
    print(f"  {'yes' if holds else 'NO'}: {name}: {said}")
    return holds


def _goals(runs: dict[str, RunDir]) -> list[Goal]:
    losses, hits = (
        [
            statistics.fmean(domain[key] for domain in line["domains"].values())
            for line in _lines(runs[name], "validation.jsonl")
        ]
        for name, key in (("sft", "loss"), ("dpo", "accuracy"))
    )
    rates = [line["sources"]["math"]["pass_rate"] for line in _lines(runs["grpo"], "evaluation.jsonl")]
    return [
        Goal("held-out loss falls", losses[0], losses[-1], losses[-1] < losses[0]),
        Goal(
            "held-out preference accuracy, about 0.5 to at least 0.8",
            hits[0],
            hits[-1],
            abs(hits[0] - 0.5) < 0.1 and hits[-1] >= 0.8,
        ),
        Goal("held-out pass rate, under 0.2 to over 0.8", rates[0], rates[-1], rates[0] < 0.2 and rates[-1] > 0.8),
    ]


def _lines(run: RunDir, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.metrics_dir / name).read_text().splitlines()]


def draw(chains: list[Chain], out: Path) -> None:
    headline("the curves")
    runs = [str(run.path) for chain in chains for run in chain.runs.values()]
    command = [sys.executable, "monitoring/draw_posttrain.py", *runs, "--out", str(out)]
    subprocess.run(command, check=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main())
