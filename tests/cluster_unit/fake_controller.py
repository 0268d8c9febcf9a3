"""A controller that hears, answers late, not at all, or wrongly: sbatch, squeue, scancel and scontrol on PATH, over a
file with a line a job: NUMBER|NAME|COMMENT|STATE."""

from __future__ import annotations

import os
from pathlib import Path

_SBATCH = """\
[ "$1" = --test-only ] && exit 0
echo "$*" >>"$D/sbatch.calls"
mode=$(head -n 1 "$D/sbatch.modes" 2>/dev/null); sed -i 1d "$D/sbatch.modes" 2>/dev/null
comment= ; for word; do case $word in --comment=*) comment=${word#--comment=} ;; esac; done
eval file=\\${$#}
name=$(sed -n 's/^#SBATCH --job-name=//p' "$file")
hear() { number=$(($(wc -l <"$D/jobs") + 101)); echo "$number|$name|$comment|PENDING" >>"$D/jobs"; }
fail() { echo "sbatch: error: Batch job submission failed: $1" >&2; exit 1; }
case $mode in
  heard) hear; fail "Socket timed out on send/recv operation" ;;
  deaf) fail "Unable to contact slurm controller (connect failure)" ;;
  late)
    echo "$(($(wc -l <"$D/jobs") + 101))|$name|$comment|PENDING" >"$D/late"
    fail "Zero Bytes were transmitted or received" ;;
  hang) hear; exec sleep 60 ;;
  silent) hear; exit 0 ;;
  refused) fail "Invalid account or account/partition combination specified" ;;
  *) hear; echo "Submitted batch job $number" ;;
esac
"""
_SQUEUE = """\
echo "$*" >>"$D/squeue.calls"
mode=$(head -n 1 "$D/squeue.modes" 2>/dev/null); sed -i 1d "$D/squeue.modes" 2>/dev/null
[ -n "$mode" ] || mode=$(cat "$D/squeue.always" 2>/dev/null)
heard_late() { cat "$D/late" >>"$D/jobs" 2>/dev/null && rm "$D/late"; exit "${1-0}"; }
case $mode in
  error) echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; heard_late 1 ;;
  hang) exec sleep 60 ;;
  empty) heard_late ;;
esac
wanted= ; for word; do case $word in --name=*) wanted=${word#--name=} ;; esac; done
while IFS='|' read -r number name comment state; do
  [ -z "$wanted" ] || [ "$wanted" = "$name" ] || continue
  case "$*" in
    *%F*) echo "$number|$comment" ;;
    *) [ "$state" = GONE ] || echo "$number|$name|$state|Priority|gpu||N/A|0|" ;;
  esac
done <"$D/jobs"
heard_late
"""
_SCANCEL = """\
echo "$*" >>"$D/scancel.calls"
[ ! -e "$D/scancel.always" ] || { echo "scancel: error: Unable to contact slurm controller" >&2; exit 1; }
for word; do
  case $word in
    --name=*) sed -i "/|${word#--name=}|/s/[A-Z]*$/GONE/" "$D/jobs" ;;
    [0-9]*) sed -i "/^$word|/s/[A-Z]*$/GONE/" "$D/jobs" ;;
  esac
done
"""


class FakeController:
    """Put `bin` first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "jobs").touch()
        for name, text in (
            ("sbatch", _SBATCH),
            ("squeue", _SQUEUE),
            ("scancel", _SCANCEL),
            ("scontrol", ""),
            ("srun", ""),
        ):
            (self.bin / name).write_text(f"#!/bin/sh\nD='{folder}'\n{text}")
            (self.bin / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.bin}:{os.environ['PATH']}"}

    def next(self, command: str, *modes: str) -> None:
        """What the next calls of a command come to; those after them are well."""
        (self.folder / f"{command}.modes").write_text("".join(f"{mode}\n" for mode in modes))

    def always(self, command: str, mode: str) -> None:
        """The same of every call; '' for none."""
        file = self.folder / f"{command}.always"
        file.write_text(mode + "\n") if mode else file.unlink(missing_ok=True)

    def jobs(self) -> list[str]:
        """Numbers of those that have not been cancelled."""
        lines = (self.folder / "jobs").read_text().splitlines()
        return [line.partition("|")[0] for line in lines if not line.endswith("|GONE")]

    def calls(self, command: str) -> list[str]:
        file = self.folder / f"{command}.calls"
        return file.read_text().splitlines() if file.exists() else []
