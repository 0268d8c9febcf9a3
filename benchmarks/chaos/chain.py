"""A torch-free job under the full contract: each step's value follows from all before it, as a training's loss does.

    chain.py STEPS [--every N] [--step SECONDS] [--nan-at N] [--crash-at N]

Rank 0 keeps a checkpoint every N steps: the value, and a manifest with its checksum, renamed into place. A checkpoint
that does not verify is passed over. Every rank appends `step attempt time` to `steps.<rank>` in the run directory, and
the first step of each attempt with `resumed`. In the end rank 0 writes the last value to `result`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def following(value: str, step: int) -> str:
    return hashlib.sha256(f"{value}{step}".encode()).hexdigest()


def value_after(steps: int) -> str:
    """What an undisturbed job ends with."""
    value = ""
    for step in range(1, steps + 1):
        value = following(value, step)
    return value


class Store:
    """The checkpoints of a run."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "checkpoints"

    def save(self, step: int, value: str) -> None:
        """Raises OSError; then there is no such checkpoint."""
        final = self._folder / f"step-{step}"
        if final.exists():
            return
        building = self._folder / f".step-{step}.{os.getpid()}.tmp"
        shutil.rmtree(building, ignore_errors=True)
        try:
            building.mkdir()
            for name, text in (("value", value), ("manifest.json", hashlib.sha256(value.encode()).hexdigest())):
                with (building / name).open("w") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            building.rename(final)
        except OSError:
            shutil.rmtree(building, ignore_errors=True)
            raise

    def newest(self) -> tuple[int, str]:
        """Step and value of the newest that verifies; (0, '') when there is none."""
        steps = sorted((int(file.parent.name[5:]) for file in self._folder.glob("step-*/manifest.json")), reverse=True)
        for step in steps:
            value = (self._folder / f"step-{step}/value").read_text()
            if hashlib.sha256(value.encode()).hexdigest() == (self._folder / f"step-{step}/manifest.json").read_text():
                return step, value
            print(f"step-{step} does not verify")
        return 0, ""


class Log:
    """What a rank did. A line that finds no room is not written, and takes none with it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o664)

    def say(self, step: int, what: str) -> None:
        line = f"{step} {os.environ['XGEN_ATTEMPT']} {time.time():.3f} {what}\n"
        try:
            os.write(self._file, line.encode())
        except OSError as error:
            print(f"step {step}: {error}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=int)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--step", type=float, default=0.15)
    parser.add_argument("--nan-at", type=int, default=0)
    parser.add_argument("--crash-at", type=int, default=0)
    options = parser.parse_args()
    stop: list[int] = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda n, _frame: stop.append(n))
    run, rank = Path(os.environ["XGEN_RUN_DIR"]), os.environ["XGEN_RANK"]
    store, log = Store(run), Log(run / f"steps.{rank}")
    saves = rank == "0"
    done, value = store.newest()
    log.say(done, "resumed")
    for step in range(done + 1, options.steps + 1):
        time.sleep(options.step)
        value = following(value, step)
        log.say(step, "step")
        if step == options.nan_at:
            print(f"the value of step {step} is not a number")
            return 78
        if step == options.crash_at:
            raise ValueError(f"planted at step {step}")
        if step % options.every == 0:
            print(f"step {step}", flush=True)
            if saves:
                try:
                    store.save(step, value)
                except OSError as error:
                    print(f"step {step} is not saved: {error}", flush=True)
        if stop:
            if saves:
                store.save(step, value)
            return 75
    if saves:
        store.save(options.steps, value)
        (run / ".result.tmp").write_text(value)
        (run / ".result.tmp").rename(run / "result")
    return 0


if __name__ == "__main__":
    sys.exit(main())
