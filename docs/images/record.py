"""The pictures of `xgen watch`, `show` and `top` in docs/, of real runs: `python docs/images/record.py --queue dev`.

Submits two trainings, one of which goes on in a second attempt, and a command that fails; for `top` a job that runs and
one that waits. Takes the pictures at 80 columns while they are there, and cancels what is left: some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
_WAIT = 900.0  # seconds for each step of the play, on a busy laptop
_TRAINING = (
    "jobs/tiny/pretrain.yaml", "resources.nodes=1", "resources.gpus_per_node=1", "stages.0.parallelism.fsdp=1",
    "stages.0.global_batch=512", "stages.0.tokens=400k", "checkpoint.every=20 steps",
)  # fmt: skip
_FAILS = ("jobs/tiny/hello.yaml", "name=broken", "command=[cat, /data/missing]")
_WORKS = ("jobs/tiny/hello.yaml", "name=works", "command=[sleep, '600']", "resources.gpus_per_node=2")
_WAITS = ("jobs/tiny/hello.yaml", "name=wants-all", "resources.nodes=4", "resources.gpus_per_node=8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", default="local", help="where the trainings run (local)")
    parser.add_argument("--queue", help="a cluster with SLURM, for `xgen top`; default: no picture of it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    for play, cluster in ((_trainings, options.cluster), (_queue, options.queue)):
        if cluster:
            runs: list[str] = []
            try:
                play(_Cluster(cluster, runs), options.out)
            finally:
                for run in runs:
                    _xgen(cluster, "cancel", run, check=False)


class _Cluster:
    def __init__(self, name: str, runs: list[str]) -> None:
        self.name, self._runs = name, runs

    def submit(self, spec: str, *settings: str) -> str:
        keys = [part for setting in settings for part in ("--set", setting)]
        self._runs.append(json.loads(_xgen(self.name, "submit", spec, "--json", *keys))["run"])
        return self._runs[-1]

    def watched(self, run: str) -> dict[str, Any]:
        return next(iter(json.loads(_xgen(self.name, "watch", run, "--json"))), {})


def _trainings(on: _Cluster, out: Path) -> None:
    first = on.submit(*_TRAINING, "name=tiny-a")
    _until("its first checkpoint", lambda: on.watched(first)["durable_step"] > 0)
    _xgen(on.name, "requeue", first)
    fails = on.submit(*_FAILS)
    on.submit(*_TRAINING, "name=tiny-b", "stages.0.lr.peak=3e-2")
    _until("a failure", lambda: on.watched(fails)["state"] == "failed")
    _until("its second attempt", lambda: on.watched(first)["attempt"] > 1)
    _until("new steps", lambda: on.watched(first)["phase"] == "train")
    before = on.watched(first)["durable_step"]
    _until("a new checkpoint", lambda: on.watched(first)["durable_step"] > before)
    _picture(out / "watch.svg", "xgen watch", _xgen(on.name, "watch", "--once", colour=True))
    _picture(out / "show.svg", f"xgen show {first}", _xgen(on.name, "show", first))


def _queue(on: _Cluster, out: Path) -> None:
    works = on.submit(*_WORKS)
    _until("a job that runs", lambda: on.watched(works)["state"] == "running")
    on.submit(*_WAITS)
    _picture(out / "top.svg", "xgen top", _xgen(on.name, "top"))


def _until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"not within {_WAIT:.0f} s: {what}")
        time.sleep(1)


def _xgen(cluster: str, *arguments: str, check: bool = True, colour: bool = False) -> str:
    environment = {**os.environ, "COLUMNS": "80", **({"FORCE_COLOR": "1"} if colour else {"NO_COLOR": "1"})}
    command = [sys.executable, "-m", "xgen.cli.main", *arguments, "--cluster", cluster]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=check
    )
    return done.stdout


def _picture(file: Path, title: str, text: str) -> None:
    """Without the web's fonts: a page that may load nothing shows the reader's own."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=80, file=nowhere)
        console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=False)
    svg = console.export_svg(title=title, unique_id=file.stem)
    file.write_text(re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.S), encoding="utf-8")
    print(f"{file}\n{text}")


if __name__ == "__main__":
    main()
