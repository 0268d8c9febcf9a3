"""One file per run for Prometheus' file_sd, written when an attempt starts, removed when it ends in order.

An attempt that dies without a word leaves its file: the target stays, does not answer, and `up == 0` alarms.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import stat
import sys
from pathlib import Path

from xgen.runs import write_atomic

_ANY_ADDRESS = ("0.0.0.0", "::", "")


def write_target(file: Path, *, address: str, port: int, run: str, attempt: int, job_id: str) -> None:
    """Announce the exporter of an attempt; `file` is `RunDir.discovery_file`.

    The temporary name does not end in .json, so Prometheus never reads half a file. A failure costs the view and not
    the training: it is printed, not raised.
    """
    labels = {"run": run, "attempt": str(attempt), "job_id": job_id, **_surroundings()}
    # This node's name for an exporter that listens on all of its addresses.
    host = socket.gethostname() if address in _ANY_ADDRESS else address
    target = {"targets": [host_port(host, port)], "labels": labels}
    try:
        if not file.parent.is_dir():
            file.parent.mkdir(exist_ok=True)
            # Whoever may make a run here may announce one too, whatever the umask of the first who came.
            file.parent.chmod(stat.S_IMODE(file.parent.parent.stat().st_mode))
        write_atomic(file, json.dumps([target]) + "\n")
    except OSError as error:
        _warn(f"{file}: {error.strerror}: Prometheus will not find this run")


def remove_target(file: Path) -> None:
    """The attempt has ended in order: its series end too, and nothing alarms."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        _warn(f"{file}: {error.strerror}: Prometheus will report a dead run")


def host_port(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _warn(text: str) -> None:
    sys.stderr.write(f"xgen: {text}\n")  # one write, one line of srun's labelled log
    sys.stderr.flush()


def _surroundings() -> dict[str, str]:
    """Who runs it, and where: labels that a team filters by. What is not known is left out."""
    known = {
        "user": os.environ.get("SLURM_JOB_USER") or _user(),
        "partition": os.environ.get("SLURM_JOB_PARTITION", ""),
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
    }
    return {name: value for name, value in known.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without this user in its /etc/passwd
        return ""
