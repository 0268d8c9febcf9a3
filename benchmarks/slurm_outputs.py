"""What SLURM's commands would print of a large cluster, behind scripts of their names: for benchmarks/exporter.py."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

PARTITIONS, USERS, ACCOUNTS = 12, 400, 60
_OUTPUTS = ROOT / "tests/metrics/slurm_outputs"
_SDIAG = _OUTPUTS / "24.11.7_sdiag_as-captured-by-sckyzo-exporter.txt"
_DETAILS = _OUTPUTS / "22.05.8_scontrol_show-job_as-our-dev-slurm-prints.txt"
_REASONS = (
    "Priority",
    "Resources",
    "Dependency",
    "QOSMaxGRESPerUser",
    "AssocGrpGRES",
    "JobArrayTaskLimit",
    "BeginTime",
)
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


def make_cluster(folder: Path, num_nodes: int, num_jobs: int) -> None:
    """`folder/bin` has the commands, each of which adds a line to `folder/calls`."""
    rng, now = random.Random(1), int(time.time())
    (folder / "bin").mkdir()
    (folder / "calls").touch()
    (folder / "runs").mkdir()
    nodes = [line for number in range(num_nodes) for line in _node(rng, number, now)]
    jobs = [_job(rng, number, now) for number in range(1, num_jobs + 1)]
    shares = [f" a{a}|u{u}|1|0.1|100|0.1|0.5|1.0" for a in range(ACCOUNTS) for u in range(a, USERS, ACCOUNTS)]
    accounts = [f" a{a}||1|0.1|100|0.1||1.0" for a in range(ACCOUNTS)]
    ended = [f"{number}|COMPLETED|p{number % PARTITIONS}|{now + 60}" for number in range(2000)]
    for name, lines in (("sinfo", nodes), ("squeue", jobs), ("sshare", accounts + shares), ("sacct", ended)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "scontrol.txt").write_text(_details(jobs, num_nodes))
    _write_json(folder / "sinfo.json", "sinfo", [_node_entry(line) for line in nodes])
    _write_json(folder / "squeue.json", "jobs", [_job_entry(line) for line in jobs])
    told = "case \"$*\" in *--json*) cat {0}.json ;; *--version*) echo 'slurm 23.11.10' ;; *) cat {0}.txt ;; esac"
    scripts = {name: told.format(folder / name) for name in ("squeue", "sinfo", "sshare", "sacct")}
    ping = f"[ $1 = ping ] && echo 'Slurmctld(primary) at ctl is UP' || cat {folder}/scontrol.txt"
    scripts |= {"scontrol": ping, "sdiag": f"cat {_SDIAG}"}
    for name, script in scripts.items():
        file = folder / "bin" / name
        file.write_text(f"#!/bin/sh\necho {name} >>{folder}/calls\n{script}\n")
        file.chmod(0o755)


def _node(rng: random.Random, number: int, now: int) -> list[str]:
    """A row for each of its two partitions. One in fifty is broken."""
    state = rng.choices(("allocated", "mixed", "idle", "drained", "down*"), (60, 28, 10, 1, 1))[0]
    used = {"allocated": 8, "mixed": rng.randrange(1, 8)}.get(state, 0)
    alloc = 16 * used
    idle = 128 - alloc if state in ("allocated", "mixed", "idle") else 0
    broken = state in ("drained", "down*")
    since, reason = (now - rng.randrange(10**6), f"XID {rng.randrange(100)} seen") if broken else ("Unknown", "none")
    devices = f"(IDX:0-{used - 1})" if used else "(IDX:N/A)"
    own = number % PARTITIONS
    return [
        f"node{number:05}|{partition}|{state}|{alloc}/{idle}/{128 - alloc - idle}/128|{alloc * 4000}|1031000|"
        f"gpu:h100:8(S:0-1)|gpu:h100:{used}{devices}|ib,h100,rack{own}|{since}|{reason}"
        for partition in (f"p{own}", "all")
    ]


def _job(rng: random.Random, number: int, now: int) -> str:
    user = rng.randrange(USERS)
    gpus = rng.choice((0, 1, 4, 8, 64))
    state = rng.choices(("RUNNING", "PENDING", "COMPLETING", "ended"), (50, 35, 1, 14))[0]
    waits = state == "PENDING"
    job = f"{number}_[1-{rng.randrange(2, 500)}%10]" if waits and number % 20 == 0 else str(number)
    partition = f"p{rng.randrange(PARTITIONS)}" + (",all" if waits and number % 3 == 0 else "")
    tres = f"cpu={16 * max(gpus, 1)},mem={64 * max(gpus, 1)}G,node=1,billing={16 * max(gpus, 1)}"
    tres += f",gres/gpu={gpus},gres/gpu:h100={gpus}" if gpus else ""
    return (
        f"{job}|u{user}|a{user % ACCOUNTS}|{partition}|{rng.choice(_ENDED) if state == 'ended' else state}|"
        f"{16 * max(gpus, 1)}|{now - rng.randrange(10**6)}|{tres}|{rng.choice(_REASONS) if waits else 'None'}"
    )


def _details(jobs: list[str], num_nodes: int) -> str:
    """What `scontrol show job --details` prints: running jobs get whole nodes, as long as there are some."""
    first, *rest = _DETAILS.read_text().split("\n\n", maxsplit=1)[0].splitlines()
    text, taken = [], 0
    for line in jobs:
        job, _, _, _, state, *_, tres, _ = line.split("|")
        gpus = int(tres.rpartition("=")[2]) if "gres" in tres and state == "RUNNING" else 0
        nodes = [f"node{taken + n:05}" for n in range(-(-gpus // 8)) if taken + n < num_nodes]
        taken += len(nodes)
        text.append(first.replace("JobId=101", f"JobId={job.partition('_')[0]}"))
        for other in rest:
            if not other.startswith("     Nodes="):
                text.append(other.replace("JobState=RUNNING", f"JobState={state}"))
            elif nodes and "[" in other:
                gres = f"gpu:h100:{min(gpus, 8)}(IDX:0-{min(gpus, 8) - 1})"
                text.append(f"     Nodes={','.join(nodes)} CPU_IDs=0-127 Mem=1024 GRES={gres}")
        text.append("")
    return "\n".join(text) + "\n"


def _number(value: float | None) -> dict[str, Any]:
    return {"set": value is not None, "infinite": False, "number": value or 0}


# What a job of SLURM 23.11 has beside what we read: some 90 keys, most of them numbers as objects.
_OTHERS: dict[str, Any] = {
    **{f"number_{index}": _number(None) for index in range(45)},
    **{f"text_{index}": "" for index in range(30)},
    "command": "/home/somebody/train.sh --config large.yaml",
    "current_working_directory": "/home/somebody/experiments/2026-11",
    "standard_output": "/home/somebody/experiments/2026-11/out.log",
    "standard_error": "/home/somebody/experiments/2026-11/err.log",
    "derived_exit_code": {
        "status": ["SUCCESS"],
        "return_code": _number(0),
        "signal": {"id": _number(None), "name": ""},
    },
    "exit_code": {"status": ["SUCCESS"], "return_code": _number(0), "signal": {"id": _number(None), "name": ""}},
    "flags": ["EXACT_TASK_COUNT_REQUESTED", "USING_DEFAULT_ACCOUNT", "BACKFILL_ATTEMPTED"],
    "job_resources": {
        "nodes": "node00001",
        "allocated_nodes": [{"sockets": {"0": {"cores": {str(core): "allocated" for core in range(16)}}}}],
    },
}


def _job_entry(row: str) -> dict[str, Any]:
    job, user, account, partition, state, cpus, eligible, tres, reason = row.split("|")
    number, _, tasks = job.partition("_")
    return {
        **_OTHERS,
        "job_id": int(number),
        "array_job_id": _number(int(number) if tasks else 0),
        "array_task_id": _number(None),
        "array_task_string": tasks.strip("[]"),
        "user_name": user,
        "account": account,
        "partition": partition,
        "job_state": [state],
        "cpus": _number(int(cpus)),
        "eligible_time": _number(int(eligible)),
        "tres_alloc_str": "" if state == "PENDING" else tres,
        "tres_req_str": tres,
        "state_description": "",
        "state_reason": reason,
    }


def _node_entry(row: str) -> dict[str, Any]:
    name, partition, state, cpus, alloc, memory, gres, used, features, since, reason = row.split("|")
    states = {"drained": ["IDLE", "DRAIN"], "down*": ["DOWN", "NOT_RESPONDING"]}.get(state, [state.upper()])
    kinds = ("allocated", "idle", "other", "total")
    return {
        "node": {"state": states},
        "nodes": {"nodes": [name], "hostnames": [], "addresses": []},
        "cpus": dict(zip(kinds, map(int, cpus.split("/")), strict=True)),
        "memory": {"minimum": int(memory), "maximum": int(memory), "allocated": int(alloc)},
        "gres": {"total": gres, "used": used},
        "features": {"total": features, "active": features},
        "reason": {"description": reason, "time": _number(int(since) if since.isdecimal() else 0), "user": "root"},
        "partition": {"name": partition, **{f"limit_{index}": _number(None) for index in range(20)}},
    }


def _write_json(file: Path, key: str, entries: list[dict[str, Any]]) -> None:
    """As SLURM writes it: indented, so that a fifth of it is spaces."""
    file.write_text(json.dumps({key: entries, "meta": {"slurm": {"release": "23.11.10"}}, "errors": []}, indent=2))
