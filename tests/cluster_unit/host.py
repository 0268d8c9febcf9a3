"""A bash that has read the functions of xgen/cluster/host/, and what SLURM answers it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from xgen.cluster.checks import health_settings
from xgen.cluster.host import host_library
from xgen.cluster.slurm import FROM_CLIENT
from xgen.runs import AttemptOutcome, RankOutcome, RunDir, read_attempt_outcome, read_events
from xgen.spec import Command, Partition, Profile, Resources

_PRELUDE = """
RUN={run} RUN_NAME=demo-abc234 NUM_TASKS={tasks} TIME_LIMIT=3600 LEAD=60 MAX_FAILURES={most}
STAGE={stage} LAST_STAGE={last} STAGE_NAME={name}
DISCOVERY_FILE="$RUN/discovery.json" SLURM_JOB_ID=7 SLURM_JOB_NODELIST=localhost ATTEMPT={attempt} FAILURES=0 RESUMED=''
REQUEUE_PAUSE=0.1 NUM_GPUS=4 RESTART_BY={by} BACKOFF_FIRST=30 BACKOFF_MOST=600 MAX_GPU_SECONDS={budget}
TERMINATED={terminated} FROM_CLIENT={kept}
{health}
. {host}
ATTEMPT_DIR=$(attempt_dir "$ATTEMPT")
"""
_HEALTH = "\n".join(
    f"{name}={shlex.quote(str(value))}"
    for name, value in health_settings(
        Command(kind="command", name="demo", command=["work"], resources=Resources.model_validate({"time": "1h"})),
        Profile(run_root="/runs", partitions={"gpu": Partition()}),
        stage=0,
    ).items()
)
_SCONTROL = """#!/bin/sh
case "$1 $2" in
  "show job") [ ! -e "{run}/requeued" ] && echo "{record}" || echo "{record}" | sed 's/Restarts=[0-9]*/Restarts=99/' ;;
  "requeue Incomplete") echo "$*" >>"{run}/calls"; {obeys}; echo "{answer}"; exit {code} ;;
  update*) echo "$*" >>"{run}/calls" ;;
esac
"""


class Host:
    """One attempt of a run, and a bash that has read the host library."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDir(folder / "demo-abc234")
        self.run.create()
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.library = folder / "host.sh"
        self.library.write_text(host_library())
        self.scontrol()

    def scontrol(
        self,
        record: str = "JobState=RUNNING PreemptTime=None",
        answer: str = "",
        code: int = 0,
        *,
        obeys: bool = True,
    ) -> None:
        """What SLURM says of the job, and to a requeue: it may say yes and do nothing."""
        does = f'touch "{self.run.path}/requeued"' if obeys and not code else ":"
        text = _SCONTROL.format(record=record, run=self.run.path, answer=answer, code=code, obeys=does)
        (self.bin / "scontrol").write_text(text)
        (self.bin / "scontrol").chmod(0o755)

    def command(self, name: str, text: str) -> None:
        """A program of SLURM."""
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def sbatch(self, number: int = 8) -> None:
        """Takes every job, as this one."""
        self.command("sbatch", f'echo "sbatch $*" >>"{self.run.path}/calls"; echo "{number};cluster"')

    def calls(self) -> list[str]:
        """What SLURM was told to do."""
        file = self.run.path / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def bash(
        self,
        text: str,
        *,
        attempt: int = 1,
        tasks: int = 2,
        most: int = 3,
        terminated: str = "",
        stage: int = 0,
        last: int = 0,
        name: str = "",
        by: str = "requeue",
        budget: int = 0,
    ) -> subprocess.CompletedProcess[str]:
        self.run.attempt_dir(attempt).mkdir(exist_ok=True)
        prelude = _PRELUDE.format(
            run=shlex.quote(str(self.run.path)), host=shlex.quote(str(self.library)), tasks=tasks,
            most=most, attempt=attempt, terminated=terminated, stage=stage, last=last, name=name,
            by=by, budget=budget, health=_HEALTH, kept=shlex.quote(" ".join(FROM_CLIENT)),
        )  # fmt: skip
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "LC_ALL": "C"}
        return subprocess.run(
            ["bash", "-c", prelude + text], env=environment, capture_output=True, text=True, timeout=60
        )

    def ranks(self, *outcomes: tuple[str, str, float], attempt: int = 1) -> None:
        """(status, reason, time) of rank 0, 1, …"""
        self.run.attempt_dir(attempt).mkdir(exist_ok=True)
        for rank, (status, reason, time) in enumerate(outcomes):
            record: dict[str, Any] = {"status": status, "reason": reason, "time": time}
            RankOutcome.model_validate(record).write(self.run, attempt, rank)

    def checkpoint(self, name: str, manifest: bool = True) -> None:
        (self.run.checkpoints_dir / name).mkdir()
        if manifest:
            (self.run.checkpoints_dir / name / "manifest.json").write_text("{}")

    def outcome(self, attempt: int = 1) -> AttemptOutcome:
        found = read_attempt_outcome(self.run, attempt)
        assert found is not None
        return found

    def said(self) -> list[tuple[str, str | None]]:
        return [(e.event, e.reason) for e in read_events(self.run)]


def decided(host: Host, **keys: Any) -> tuple[int, str, list[str]]:
    done = host.bash("decide", **keys)
    return done.returncode, host.outcome(keys.get("attempt", 1)).status, [name for name, _ in host.said()]
