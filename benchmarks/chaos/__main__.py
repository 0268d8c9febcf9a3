"""Random faults under many runs at once on the dev SLURM, until every run has ended as it should.

    python -m benchmarks.chaos [--seed S] [--runs N] [--minutes M] [--out DIR] [--json]

Thirty of 230 runs are real trainings, the others torch-free commands under the same contract. Each meets up to two
faults of its own (a signal, a killed rank, a killed batch script, a hung rank, its time limit, a value that is no
number, a crash that always comes), and all meet those of the cluster: preemption, slurmd killed, a node taken down, a
node lost, a full disk, slurmctld killed under a submission and under a requeue. Afterwards every run has to have
finished with what an undisturbed one comes to, or to have been stopped rightly; no job is lost or two at once; no
attempt began before what was durable; and Prometheus counts the restarts that the runs' own events tell of.

It takes the whole dev SLURM, restarts it, and needs root. Exit code 1: something was not as it should be.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.alarms.lab import Lab, laboratory
from benchmarks.alarms.watch import LabError
from benchmarks.chaos.campaign import TRAINING_STEPS, Campaign, make_project, undisturbed
from benchmarks.chaos.floor import floors
from benchmarks.chaos.judge import accounting, by_fault, percentile, resumptions, wrongs
from benchmarks.chaos.plan import cluster_faults, plan
from benchmarks.common import machine
from xgen.runs import RunDir, read_events, replay


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=0, help="the same seed is the same plan, not the same moments")
    parser.add_argument("--runs", type=int, default=230, metavar="N", help="of which 30 in 230 are trainings")
    parser.add_argument("--minutes", type=float, default=60, help="after which what has not ended counts as wrong")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="keeps the directories of runs with which something is wrong"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args()
    if options.out and options.out.exists():
        parser.error(f"--out: {options.out} is there already; name a folder that is not")
    num_trainings = round(options.runs * 30 / 230)
    began = time.time()
    try:
        with laboratory() as lab:
            floor = floors(lab.folder / "floor")
            project = make_project(lab.folder / "project")
            reference = undisturbed(lab, project, TRAINING_STEPS, _say) if num_trainings else None
            planned = plan(options.seed, options.runs - num_trainings, num_trainings, TRAINING_STEPS)
            campaign = Campaign(lab, planned, project, cluster_faults(options.seed))
            campaign.play(options.minutes * 60, _say)
            time.sleep(5)  # accounting and Prometheus come a little later
            records = accounting(began)
            wrong = wrongs(campaign, reference, records) + _other_story(lab, campaign)
            report = _report(campaign, floor, wrong, time.time() - began)
            report.print(options.json)
            if wrong and options.out:
                _keep(campaign, reference, wrong, options.out)
                (options.out / "accounting").write_text("".join(f"{record}\n" for record in records))
                (options.out / "refused").write_text("".join(f"{said}\n" for said in campaign.refused))
    except (LabError, OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or ""
        print(f"chaos: {error} {said if isinstance(said, str) else said.decode()}".rstrip(), file=sys.stderr)
        return 1
    return 1 if wrong else 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def _keep(campaign: Campaign, reference: RunDir | None, wrong: Sequence[str], out: Path) -> None:
    """The laboratory takes its disk with it."""
    out.mkdir(parents=True)
    runs = [one.run for one in campaign.runs if any(said.startswith(one.run.name) for said in wrong)]
    for run in [*runs, reference] if reference else runs:
        shutil.copytree(run.path, out / run.name, symlinks=True, ignore=shutil.ignore_patterns("code"))
    _say(f"{len(runs)} runs with which something is wrong, and the undisturbed training, are in {out}")


def _other_story(lab: Lab, campaign: Campaign) -> list[str]:
    """Runs whose restarts Prometheus counts otherwise than their own events do, or that it still holds to be lost."""
    counted: dict[str, float] = {}
    for series in lab.watch.ask("query", query="sum by (run) (xgen_run_restarts_total)"):
        counted[series["metric"]["run"]] = float(series["value"][1])
    found = []
    for one in campaign.runs:
        told = sum(replay(read_events(one.run)).restarts.values())
        if counted.get(one.run.name, 0) != told:
            found.append(f"{one.run.name}: {told} restarts, Prometheus counts {counted.get(one.run.name, 0):.0f}")
    lost = lab.watch.ask("query", query='ALERTS{alertname="XgenRunLost",alertstate="firing"}')
    return found + [f"{series['metric'].get('run')} is lost, says an alert" for series in lost]


@dataclass(frozen=True)
class Report:
    """What came of a campaign: seconds of the resumptions by fault and kind of run, and of SLURM alone."""

    figures: Mapping[str, int]
    faults: Mapping[str, tuple[int, int]]  # how often each came, and hit somebody
    resume: dict[str, Sequence[float]]
    floor: Mapping[str, Sequence[float]]
    wrong: Sequence[str]

    def print(self, as_json: bool) -> None:
        if as_json:
            print(json.dumps(self._document(), indent=2))
            return
        for name, value in self.figures.items():
            print(f"{name:<44} {value}")
        print(f"\n{'fault':<44} came  hit somebody")
        for name, (came, hit) in sorted(self.faults.items()):
            print(f"{name:<44} {came:>4}  {hit:>4}")
        print(f"\n{'end of an attempt to the next first step, s':<44} count  median    p95")
        for name, took in (self.resume | self._peers).items():
            print(f"{name:<44} {len(took):>5}  {percentile(took, 0.5):>6.1f}  {percentile(took, 0.95):>5.1f}")
        for line in self.wrong:
            print(f"WRONG  {line}")

    @property
    def _peers(self) -> dict[str, Sequence[float]]:
        return {f"SLURM alone, {name}": took for name, took in self.floor.items()}

    def _document(self) -> dict[str, object]:
        goal = "not as they should be"
        return {
            "name": "chaos",
            "figures": self.figures,
            "faults": {name: {"came": came, "hit": hit} for name, (came, hit) in self.faults.items()},
            "resume": _spreads(self.resume),
            "peers": _spreads(self._peers),
            "goals": {goal: 0},
            "met": {goal: not self.wrong},
            "wrong": self.wrong,
            "machine": machine(),
        }


def _spreads(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    return {
        name: {"count": len(took), "median": percentile(took, 0.5), "p95": percentile(took, 0.95)}
        for name, took in seconds.items()
    }


def _report(campaign: Campaign, floor: Mapping[str, Sequence[float]], wrong: Sequence[str], seconds: float) -> Report:
    took: dict[str, list[float]] = defaultdict(list)
    for one in campaign.runs:
        for resumption in resumptions(one, campaign.injections):
            took[f"{resumption.why}, {one.planned.kind}"].append(resumption.seconds)
    runs = campaign.runs
    figures = {
        "runs": len(runs),
        "finished": sum(one.state == "finished" for one in runs),
        "rightly stopped": sum(one.rightly_stopped for one in runs),
        "attempts": sum(one.run.last_attempt() for one in runs),
        "faults": len(campaign.injections),
        "faults that hit somebody": sum(bool(one.runs) for one in campaign.injections),
        "recoveries": sum(map(len, took.values())),
        "submissions that were refused, and repeated": len(campaign.refused),
        "not as they should be": len(wrong),
        "seconds": round(seconds),
    }
    return Report(figures, by_fault(campaign.injections), {name: took[name] for name in sorted(took)}, floor, wrong)


if __name__ == "__main__":
    sys.exit(main())
