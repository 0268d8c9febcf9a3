"""`make demo`: a run is preempted, resumes, and is compared with one that nobody disturbed.

Everything is real: SLURM, the container, the training, the preemption, Prometheus. Where SLURM cannot be installed,
the local executor plays its part.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from xgen.cli.status import timeline, where_time_went
from xgen.cluster import local
from xgen.runs import Event, EventName, Ledger, RunDir, read_events, replay

ROOT = Path(__file__).resolve().parents[2]
XGEN = [sys.executable, "-m", "xgen.cli.main"]
PROMETHEUS = "http://127.0.0.1:19090"
PREEMPT_AT = 33  # between two periodic checkpoints, so that only the save on the signal can explain the resume


class DemoError(Exception):
    """Something is not as it should be; the demo ends with exit code 1."""


def failed(what: str, error: Exception) -> int:
    """Says so, with what a command of it has said; the exit code."""
    output = (getattr(error, "stderr", None) or "").strip()
    print(f"\n{what} failed: {error}\n{output}", file=sys.stderr)
    return 1


def main() -> int:
    argparse.ArgumentParser(
        prog="python jobs/tiny/demo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    began = time.monotonic()
    os.chdir(ROOT)
    try:
        cluster = bring_up()
        watched = start_monitor(cluster)
        disturbed = train_with_preemption(cluster)
        undisturbed = train_undisturbed(cluster)
        verdict(disturbed, undisturbed)
        if watched:
            draw(disturbed)
    except (DemoError, subprocess.SubprocessError) as error:
        return failed("the demo", error)
    print(f"\ndone in {time.monotonic() - began:.0f} s. Look around: xgen status --cluster {cluster}")
    if cluster == "dev":
        print("The dev SLURM stays up until slurm/dev/down, Prometheus until xgen monitor down.")
    return 0


def headline(text: str) -> None:
    print(f"\n== {text}", flush=True)


def bring_up() -> str:
    """Start the dev SLURM where it can be; returns the name of the cluster profile."""
    headline("a cluster")
    if os.geteuid() == 0 and shutil.which("slurmctld") and Path("/etc/debian_version").exists():
        subprocess.run([ROOT / "slurm/dev/up"], check=True, timeout=180)
        return "dev"
    print("SLURM cannot run here (it needs root on Debian): the local executor runs the same script")
    return "local"


def start_monitor(cluster: str) -> bool:
    if not all(map(shutil.which, ("prometheus", "prometheus-alertmanager"))):
        print("Prometheus or Alertmanager is not installed: no dashboard will be drawn")
        return False
    subprocess.run([*XGEN, "monitor", "up", "--cluster", cluster, "--interval", "1s"], check=True, timeout=120)
    return True


def xgen(*arguments: str) -> dict[str, str]:
    """Run a command of ours and return its JSON."""
    done = subprocess.run([*XGEN, *arguments, "--json"], check=True, capture_output=True, text=True, timeout=120)
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def submit(spec: str, cluster: str, *settings: str) -> RunDir:
    options = [part for setting in settings for part in ("--set", setting)]
    print(" ".join(["$ xgen submit", spec, "--cluster", cluster, *options]))
    answer = xgen("submit", spec, "--cluster", cluster, *options)
    print(f"  {answer['run']}  job {answer['job_id']}")
    return RunDir(Path(answer["path"]))


def find(run: RunDir, name: EventName, attempt: int | None = None) -> Event | None:
    return next((e for e in read_events(run) if e.event == name and attempt in (None, e.attempt)), None)


def wait(run: RunDir, what: str, done: Callable[[Ledger], bool], timeout: float) -> None:
    """Show the run's progress until `done`; a run that ends otherwise, or a time-out, ends the demo."""
    deadline = time.monotonic() + timeout
    shown = ""
    while True:
        ledger = replay(read_events(run))
        step, loss = last_step(run)
        text = f"  {run.name}: {ledger.phase or 'ended'}, attempt {len(ledger.attempts)}, step {step}, loss {loss}"
        if sys.stdout.isatty():
            print(f"\r{text:<90}", end="", flush=True)
        elif text.partition(", step")[0] != shown.partition(", step")[0] or (step % 20 == 0 and text != shown):
            print(text, flush=True)
            shown = text
        if done(ledger):
            break
        if ledger.phase is None:
            raise DemoError(f"{run.name} ended before {what}: see xgen status {run.name}")
        if time.monotonic() > deadline:
            raise DemoError(f"{run.name}: {what} did not come within {timeout:.0f} s: see xgen status {run.name}")
        time.sleep(0.3)
    if sys.stdout.isatty():
        print()


def steps(run: RunDir) -> dict[int, str]:
    """Loss by step, as the exact bits; of a step that was trained twice, the last."""
    lines = (run.metrics_dir / "steps.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["step"]: record["loss_hex"] for record in records}


def last_step(run: RunDir) -> tuple[int, str]:
    try:
        record = json.loads((run.metrics_dir / "steps.jsonl").read_text().splitlines()[-1])
    except (OSError, IndexError, json.JSONDecodeError):
        return 0, "-"
    return record["step"], f"{record['loss']:.4f}"


def train_with_preemption(cluster: str) -> RunDir:
    headline("a training run on a partition that others may preempt")
    run = submit("jobs/tiny/pretrain.yaml", cluster, "resources.partition=preempt")
    wait(run, f"step {PREEMPT_AT}", lambda _: last_step(run)[0] >= PREEMPT_AT, timeout=240)
    headline("somebody with more rights needs the nodes")
    preempt(run, cluster)
    wait(run, "the end", lambda ledger: ledger.phase is None, timeout=300)
    return run


def preempt(run: RunDir, cluster: str) -> None:
    """Returns when the run is in the queue again."""
    ask_to_preempt(run, cluster)
    wait(run, "the requeue", lambda _: find(run, "requeued") is not None, timeout=90)


def ask_to_preempt(run: RunDir, cluster: str) -> None:
    """What runs of it, shards or ranks, has to go."""
    if cluster == "dev":
        submit("jobs/tiny/preemptor.yaml", cluster)
    else:
        local.send(run, signal.SIGUSR2)
        print("  the local executor was told to preempt the run")


def train_undisturbed(cluster: str) -> RunDir:
    headline("the same spec, undisturbed")
    run = submit("jobs/tiny/pretrain.yaml", cluster, "resources.partition=gpu")
    wait(run, "the end", lambda ledger: ledger.phase is None, timeout=300)
    return run


def verdict(disturbed: RunDir, undisturbed: RunDir) -> None:
    from xgen.train.compare import compare_checkpoints

    headline(f"what happened to {disturbed.name}")
    events = read_events(disturbed)
    for line in timeline(events):
        print(f"  {line}")
    ledger = replay(events)
    for line in where_time_went(ledger, time.time()):
        print(f"  {line}")

    headline("is it the same training?")
    first = ledger.attempts[0]
    saved, resumed = first.durable_step, ledger.attempts[-1].resumed_step
    check(len(ledger.attempts) == 2, "the run had two attempts", f"it had {len(ledger.attempts)}")
    check(
        resumed == saved and saved >= PREEMPT_AT,
        f"resumed at the step that was saved: {saved}",
        f"saved {saved}, resumed {resumed}",
    )
    mine, theirs = steps(disturbed), steps(undisturbed)
    after = [step for step in theirs if step > resumed]
    differing = [step for step in theirs if mine.get(step) != theirs[step]]
    check(
        not differing and len(mine) == len(theirs),
        f"losses identical to the uninterrupted run, bit for bit: {len(theirs)} steps, {len(after)} after the resume",
        f"losses differ at steps {differing[:5]}",
    )
    final = f"step-{max(theirs)}"
    count, unequal = compare_checkpoints(disturbed.checkpoints_dir / final, undisturbed.checkpoints_dir / final)
    check(not unequal, f"final checkpoints equal in every tensor: {count} entries", f"they differ in {unequal[:5]}")


def check(holds: bool, claim: str, otherwise: str) -> None:
    print(f"  {'yes' if holds else 'NO'}: {claim if holds else otherwise}")
    if not holds:
        raise DemoError(otherwise)


def draw(run: RunDir) -> None:
    headline("the dashboard, every panel from that Prometheus")
    events = read_events(run)
    out = ROOT / ".cache" / "demo" / "dashboard.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "monitoring/draw.py", "--prometheus", PROMETHEUS, "--run", run.name]
    # As it was seen while the run was there: at the end of a run its series end too.
    last = [event.time for event in events if event.event == "progress"][-1]
    times = ["--start", str(events[0].time), "--end", str(last)]
    done = subprocess.run(
        [*command, *times, "--out", str(out)], check=False, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise DemoError(f"the dashboard has gaps: {done.stdout}{done.stderr}")
    print(f"  {out}")


if __name__ == "__main__":
    sys.exit(main())
