"""A torch-free job that says a line every tenth of a second; in its first attempt rank 1 hangs, and the others wait for
it in vain."""

import os
import time
from pathlib import Path

RUN, ATTEMPT, RANK = Path(os.environ["XGEN_RUN_DIR"]), int(os.environ["XGEN_ATTEMPT"]), int(os.environ["XGEN_RANK"])


def planted() -> None:
    while not (RUN / "never").exists():
        time.sleep(0.1)  # the planted line


def others_wait() -> None:
    while not (RUN / "never").exists():
        time.sleep(0.1)


def main() -> None:
    for step in range(5):
        print(f"step {step}", flush=True)
        time.sleep(0.1)
    if RANK == 0:
        (RUN / f"checkpoints/step-{ATTEMPT}").mkdir()
        (RUN / f"checkpoints/step-{ATTEMPT}/manifest.json").write_text("{}")
    if ATTEMPT > 1:
        return
    if RANK == 1:
        planted()
    others_wait()


if __name__ == "__main__":
    main()
