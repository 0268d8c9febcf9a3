"""A shard of a job array: lasts some seconds, one when it is tried again or is no shard; stops with 75 when it is told
to, and notes when it began and ended.

    shard.py SECONDS [--fail SHARD]

The shard that is to fail does so until there is a file `mended` in the folder of the whole run.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("seconds", type=float)
parser.add_argument("--fail", default="")
options = parser.parse_args()

run, shard = Path(os.environ["XGEN_RUN_DIR"]), os.environ.get("XGEN_SHARD", "")
stop: list[int] = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda n, _frame: stop.append(n))
print(f"shard {shard} of {os.environ.get('XGEN_NUM_SHARDS')}")
seconds = options.seconds if shard and not (run / "tries").exists() else 1.0
with (run / "tries").open("a", buffering=1) as tries:
    print("begin", time.time(), file=tries)
    deadline = time.monotonic() + seconds
    while not stop and time.monotonic() < deadline:
        time.sleep(0.05)
    print("end", time.time(), file=tries)
if stop:
    sys.exit(75)
if shard and shard == options.fail and not (run.parents[2] / "mended").exists():
    sys.exit("planted failure")
