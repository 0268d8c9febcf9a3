"""A torch-free job under the full contract: counts steps, saves on SIGUSR2 and SIGTERM, resumes, exits 75.

    counter.py STEPS [--every N] [--step SECONDS] [--save SECONDS] [--stop-save SECONDS]
               [--arm SECONDS] [--crash-at N]

Rank 0 keeps checkpoints as `xgen` defines them: a folder renamed into place, complete with its manifest. Every
rank appends the steps it did to `steps.<rank>` in the run directory, so that a test sees what was done twice.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("--every", type=int, default=10)
parser.add_argument("--step", type=float, default=0.1)
parser.add_argument("--save", type=float, default=0.0)
parser.add_argument("--stop-save", type=float, default=0.0)
parser.add_argument("--arm", type=float, default=0.0)
parser.add_argument("--crash-at", type=int, default=-1)
options = parser.parse_args()

run = Path(os.environ["XGEN_RUN_DIR"])
rank = os.environ["XGEN_RANK"]
stop: list[int] = []
time.sleep(options.arm)  # a signal that comes now kills this process: that is the case to test
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda n, _frame: stop.append(n))


def save(step: int) -> None:
    if rank != "0" or (run / f"checkpoints/step-{step}").exists():
        return
    time.sleep(options.save)
    building = run / f"checkpoints/.step-{step}.{os.getpid()}.tmp"
    building.mkdir()
    (building / "manifest.json").write_text("{}\n")
    building.rename(run / f"checkpoints/step-{step}")


done = [int(p.parent.name[5:]) for p in run.glob("checkpoints/step-*/manifest.json")]
with (run / f"steps.{rank}").open("a", buffering=1) as log:
    for step in range(max(done, default=0) + 1, options.steps + 1):
        time.sleep(options.step)
        print(step, os.environ["XGEN_ATTEMPT"], file=log)
        # The one that saves: told to stop because another has crashed, it would, and the attempt had made progress.
        if step == options.crash_at and rank == "0":
            sys.exit("planted crash")
        if step % options.every == 0:
            save(step)
        if stop:
            time.sleep(options.stop_save)
            save(step)
            print(f"stopped at step {step} by {len(stop)} signals {sorted(set(stop))}")
            sys.exit(75)
save(options.steps)
