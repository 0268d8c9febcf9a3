"""How long a resume takes until its first new step: `python -m benchmarks.startup [--json] [--runs N] [--ranks N ...]`.

Ranks are started as srun starts them, on this machine, on a copy of one run that has a checkpoint. `--against` names
another checkout, say of the commit before, whose attempts run in between: machines differ, and so do their hours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import yaml

from benchmarks.common import ROOT, Figure, Result, free_port
from xgen.runs import RunDir, read_events

_STEPS = 4  # of which the last is trained anew in every attempt
_SEQUENCES = 4
_SPEC = {
    "kind": "pretrain",
    "name": "startup",
    "lead": "30s",
    "model": {
        "name": "tiny", "dim": 128, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 256,
        "vocab_size": 4096,
    },
    "data": {"store": str(ROOT / ".cache/tiny-store")},
    "stages": [
        {
            "name": "only", "tokens": _STEPS * _SEQUENCES * 256, "seq_len": 256, "global_batch": _SEQUENCES * 256,
            "lr": {"peak": 3e-3, "warmup": 2, "shape": "cosine", "to": 3e-4},
        }
    ],
    "checkpoint": {"every": 1, "keep": 2, "mode": "sync"},
    "deterministic": True,
}  # fmt: skip
_TIMEOUT = 600.0  # seconds


def prepare(folder: Path, num_ranks: int, checkout: Path) -> RunDir:
    """A run that has trained to its end."""
    run = RunDir(folder / f"startup-{num_ranks}ranks")
    run.create()
    resources = {"nodes": 1, "gpus_per_node": num_ranks, "time": "10m"}
    run.spec_file.write_text(yaml.safe_dump({**_SPEC, "resources": resources}))
    run.profile_file.write_text(yaml.safe_dump({"run_root": str(folder), "partitions": {"gpu": {}}}))
    attempt(run, num_ranks, checkout)
    return run


def attempt(run: RunDir, num_ranks: int, checkout: Path) -> dict[str, float]:
    """One attempt, from the checkpoint before the last step: seconds until it is done, by part, and CPU seconds.

    Raises RuntimeError with a rank's log when a rank fails.
    """
    shutil.rmtree(run.checkpoints_dir / f"step-{_STEPS}", ignore_errors=True)
    number = run.last_attempt() + 1
    folder = run.attempt_dir(number)
    folder.mkdir()
    environment = os.environ | {
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS": str(num_ranks),
        "XGEN_ATTEMPT": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(checkout),
    }
    command = [sys.executable, "-m", "xgen.cli.task", str(run.path)]
    began = time.time()
    ranks = [_start(command, environment, rank, checkout, folder / f"log.{rank}") for rank in range(num_ranks)]
    cpu = 0.0
    for rank, process in enumerate(ranks):
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError((folder / f"log.{rank}").read_text()[-3000:])
        cpu += usage.ru_utime + usage.ru_stime
    first = next(e for e in read_events(run) if e.attempt == number and e.event == "first_step")
    return {"first new step": first.time - began, **(first.startup or {}), "CPU of a rank": cpu / num_ranks}


def _start(
    command: list[str], environment: Mapping[str, str], rank: int, checkout: Path, log: Path
) -> subprocess.Popen[bytes]:
    own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    with log.open("wb") as file:
        return subprocess.Popen(
            ["timeout", str(_TIMEOUT), *command],
            cwd=checkout,
            env={**environment, **own},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def measure(num_runs: int, ranks: list[int], against: Path | None) -> Result:
    checkouts = {"": ROOT} | ({f" ({against.name})": against} if against else {})
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in checkouts}
    with tempfile.TemporaryDirectory(prefix="xgen-startup-") as folder:
        for num_ranks in ranks:
            run = prepare(Path(folder), num_ranks, ROOT)
            for _ in range(num_runs):
                for name, checkout in checkouts.items():
                    for what, taken in attempt(run, num_ranks, checkout).items():
                        seconds[name][f"{num_ranks} ranks: {what}{name}"].append(taken)
    figures = {what: Figure.of(taken) for what, taken in seconds.pop("").items()}
    peers = {what: Figure.of(taken) for of_peer in seconds.values() for what, taken in of_peer.items()}
    return Result("startup", figures, peers, {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=5, help="attempts of each (5)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4], help="numbers of ranks (1 4)")
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    options = parser.parse_args()
    measure(options.runs, options.ranks, options.against and options.against.resolve()).print(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
