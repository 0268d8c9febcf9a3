"""What one rank of `xgen doctor --prove-runtime` does: say what it sees, meet the others, wait for the stop signal.

    python -m xgen.cluster.doctor.prove_task

Standard library only: it runs in whatever image a site has.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PATIENCE = 300  # seconds for the stop signal to come


def main() -> int:
    stopped: list[int] = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda n, _frame: stopped.append(n))
    run, rank = Path(os.environ["XGEN_RUN_DIR"]), int(os.environ["XGEN_RANK"])
    seen = look(run) | {"met": meet(rank, int(os.environ["XGEN_WORLD_SIZE"]))}
    _write(run / f"seen.{rank}.json", seen)
    deadline = time.monotonic() + _PATIENCE
    while not stopped and time.monotonic() < deadline:
        time.sleep(0.05)
    return 75 if stopped else 1


def look(run: Path) -> dict[str, Any]:
    """Facts of this rank, each as plain as JSON."""
    values = {name: value for name, value in os.environ.items() if name.startswith("PROOF_")}
    return {
        "environment": {n: v for n, v in values.items() if n != "PROOF_SECRET"},
        "secret": hashlib.sha256(values.get("PROOF_SECRET", "").encode()).hexdigest(),
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "uid": os.getuid(),
        "python": platform.python_version(),
        "code_is_the_snapshot": Path(__file__).is_relative_to(run / "code"),
        "can_write_code": _can_write(run / "code"),
        "can_write_run": _can_write(run),
        "can_write_system": _can_write(Path("/usr")),
        "home_is_writable": _can_write(Path(os.environ.get("HOME", "/"))),
        "shm_bytes": _size(Path("/dev/shm")),
        "gpus": _gpus(),
        "infiniband": sorted(p.name for p in Path("/dev/infiniband").glob("uverbs*")),
        "memlock": _limit("Max locked memory"),
    }


def meet(rank: int, world_size: int) -> int:
    """All ranks over TCP at MASTER_ADDR, as torch does. Returns how many came, 0 for a rank that found no one."""
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    deadline = time.monotonic() + 60
    if rank == 0:
        with socket.create_server(("", address[1])) as server:
            server.settimeout(60)
            try:
                guests = [server.accept()[0] for _ in range(world_size - 1)]
            except OSError:
                return 0
            for guest in guests:
                guest.close()
        return world_size
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address, timeout=5).close()
            return world_size
        except OSError:
            time.sleep(0.2)
    return 0


def _can_write(folder: Path) -> bool:
    probe = folder / f".proof-{os.getpid()}"
    try:
        probe.write_text("")
        probe.unlink()
    except OSError:
        return False
    return True


def _size(folder: Path) -> int:
    try:
        about = os.statvfs(folder)
    except OSError:
        return 0
    return about.f_blocks * about.f_frsize


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _limit(name: str) -> str:
    for line in Path("/proc/self/limits").read_text().splitlines():
        if line.startswith(name):
            return line[len(name) :].split()[0]
    return ""


def _write(path: Path, value: object) -> None:
    tmp = path.with_suffix(".tmp")
    tmp.write_text(json.dumps(value))
    tmp.rename(path)


if __name__ == "__main__":
    sys.exit(main())
