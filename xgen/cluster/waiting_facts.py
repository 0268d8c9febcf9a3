"""What SLURM knows of a job that waits, beyond its reason: what it asks for, and the limit, the jobs, the nodes or the
reservation that it waits for. Each is asked for only where the reason speaks of it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from xgen.cluster.slurm import QueueRow, SchedulerError, command
from xgen.cluster.values import records
from xgen.cluster.waiting import LIMIT

_MOST = 3  # lines of a kind: the rest is counted
_FOR_NODES = ("Priority", "Resources")
_NODES = ("ReqNodeNotAvail", "NodeDown", "Nodes required for job")
# Of the partition and of the job, as scontrol names them, by the beginning of the reason.
_COMPARED = {
    "PartitionTimeLimit": ("MaxTime", "TimeLimit"),
    "PartitionNodeLimit": ("MaxNodes", "NumNodes"),
    "PartitionDown": ("State", ""),
    "PartitionInactive": ("State", ""),
    "AccountNotAllowed": ("AllowAccounts", "Account"),
    "QOSNotAllowed": ("AllowQos", "QOS"),
}
# How scontrol's assoc_mgr names what a reason's code speaks of (`GRES`, `CPURunMinutes`), by its beginning.
_TRES = {"GRES": "gres/", "Cpu": "cpu", "CPU": "cpu", "Mem": "mem", "Node": "node", "Billing": "billing"}
_FIELDS = {"Jobs": "Jobs", "Submit": "SubmitJobs", "Wall": "Wall"}
_PER = {"PerUser": "PU", "PerAccount": "PA", "PerJob": "PJ", "PerNode": "PN"}


@dataclass
class Facts:
    """Lines for a person. `too_large`: the job alone is over a limit, and would not start if all others had ended."""

    lines: list[str] = field(default_factory=list)
    too_large: bool = False


def facts(row: QueueRow) -> Facts:
    """Of a job that waits; where SLURM does not answer, a line says so."""
    found = Facts()
    try:
        _add(found, row, _job(row))
    except SchedulerError as error:
        found.lines.append(f"SLURM did not say more: {error}")
    return found


def _add(found: Facts, row: QueueRow, job: dict[str, str]) -> None:
    reason = row.reason
    if reason.startswith("Dependency"):
        found.lines += _before(job)
    elif reason in _FOR_NODES:
        found.lines += [_asks(job), *_others(row, job)]
    elif reason.startswith("Reservation") and (name := job["Reservation"]) != "(null)":
        found.lines += map(_reservation, _records("reservation", name))
    elif reason.startswith(_NODES):
        found.lines += [_asks(job), *_nodes(row.partition)]
    elif compared := next((of for known, of in _COMPARED.items() if reason.startswith(known)), None):
        ours, own = compared
        partition = _records("partition", row.partition)[0]
        asked = f"; the job has {own}={job[own]}" if own else ""
        found.lines.append(f"partition {row.partition} has {ours}={partition[ours]}{asked}")
    elif limit := LIMIT.match(reason):
        found.lines.append(_asks(job))
        for whose, name, most, used in _limits(limit, job):
            in_use = f", {used} in use" if used else ""
            found.lines.append(f"{whose} has {name}={most}{in_use}")
            wants, may_have = _amount(_tres(job).get(name.partition(" ")[2], "")), _amount(most)
            if wants and may_have is not None and "Mins" not in name:  # those are minutes, of jobs before it too
                found.too_large |= wants > may_have


def _records(*what: str) -> list[defaultdict[str, str]]:
    """What `scontrol show` says; '' for what this version does not have. Raises SchedulerError."""
    if found := records(command("scontrol", "show", *what[:1], "-o", *what[1:])):
        return found
    raise SchedulerError(f"no {' '.join(what)}")


def _job(row: QueueRow) -> dict[str, str]:
    """Of an array, the shards that wait."""
    records = _records("job", row.job_id.partition("_")[0])
    return next((one for one in records if one["JobState"] == "PENDING"), records[0])


def _tres(job: dict[str, str]) -> dict[str, str]:
    return dict(re.findall(r"([^=,]+)=([^,]+)", job["TRES"] or job["ReqTRES"]))  # from 23.02 on


def _amount(value: str) -> float | None:
    """A count; of memory, which the job has with a unit and a limit without, MB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", value)
    return float(found[1]) * 1024 ** ("KMGTP".index(found[2] or "M") - 1) if found else None


def _asks(job: dict[str, str]) -> str:
    tres = _tres(job)
    words = {"node": "node", "gres/gpu": "GPU", "cpu": "CPU", "mem": "of memory"}
    asked = ", ".join(
        f"{tres[name]} {word}{'s' * (name != 'mem' and tres[name] != '1')}"
        for name, word in words.items() if name in tres
    )  # fmt: skip
    return f"asks for {asked}, time {job['TimeLimit']}; account {job['Account']}, QOS {job['QOS']}"


def _before(job: dict[str, str]) -> list[str]:
    """The jobs that it waits for; SLURM forgets one some minutes after its end."""
    lines = [f"it waits for {job['Dependency']}"]
    for number in re.findall(r":(\d+)", job["Dependency"])[:_MOST]:
        with suppress(SchedulerError):
            other = _records("job", number)[0]
            state, reason = other["JobState"], other["Reason"]
            why = f" ({reason})" if state == "PENDING" else ""
            lines.append(f"job {number} {other['JobName']} is {state.lower()}{why}")
    return lines


def _others(row: QueueRow, job: dict[str, str]) -> list[str]:
    """Who is before it in its partition, and who of those that run there has to end first."""
    jobs = command(
        "squeue", f"--partition={row.partition}", "--states=PENDING,RUNNING", "--noheader", "--all",
        "--Format=JobID:|,UserName:|,State:|,PriorityLong:|,EndTime:|,Reason:|",
    )  # fmt: skip
    rows = list(_rows(jobs, 6))
    mine = _rank(job["Priority"], job["JobId"])
    first = sorted((_rank(one[3], one[0]), one) for one in rows if one[5] in _FOR_NODES)
    before = [one for rank, one in first if rank < mine]
    running = sorted((one for one in rows if one[2] == "RUNNING"), key=lambda one: one[4])
    lines = []
    if before:
        lines.append(f"{len(before)} waiting before it in {row.partition}: first job {before[0][0]} of {before[0][1]}")
    if running:
        number, user, _, _, end, _ = running[0]
        lines.append(
            f"{len(running)} running in {row.partition}: the first to end is job {number} of {user}, "
            f"by {end.replace('T', ' ')} at the latest"
        )
    return lines


def _rank(priority: str, number: str) -> tuple[int, int]:
    return -int(priority or 0), int(number)


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        if len(parts := line.split("|")) >= columns:
            yield parts[:columns]


def _nodes(partition: str) -> list[str]:
    """Those of the partition that are out of use, and reservations that take some of them."""
    out = command("sinfo", f"--partition={partition}", "--list-reasons", "--noheader", "--format=%N|%T|%u|%E")
    lines = [f"node {node} is {state}: {reason} ({user})" for node, state, user, reason in _rows(out, 4)]
    own = _hosts(_records("partition", partition)[0]["Nodes"])
    taken = []
    with suppress(SchedulerError):  # there is none
        taken = [one for one in _records("reservation") if own & _hosts(one["Nodes"])]
    return [*lines[:_MOST], *map(_reservation, taken[:_MOST])]


def _hosts(nodes: str) -> set[str]:
    return set(command("scontrol", "show", "hostnames", nodes).split())


def _reservation(one: dict[str, str]) -> str:
    times = " to ".join(one[name].replace("T", " ") for name in ("StartTime", "EndTime"))
    return f"reservation {one['ReservationName']} of {one['Nodes']}, {times} ({one['Flags']})"


def _limits(code: re.Match[str], job: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Whose limit, its name, its value and what is used of it, of all that a reason's code may mean."""
    what = code["what"]
    tres = next((word for key, word in _TRES.items() if what.startswith(key)), None)
    minutes = "RunMins" if "RunMinutes" in what else "Mins" if "Minutes" in what else ""
    stem = f"TRES{minutes}" if tres else next((word for key, word in _FIELDS.items() if what.startswith(key)), what)
    wanted = re.compile(rf"{code['kind']}{stem}({_PER.get(code['per'] or '', 'P[A-Z]')})?$")
    for whose, name, value in _assigned(code["of"] or "", job):
        if not wanted.match(name):
            continue
        for of, most, used in re.findall(r"(?:([^=,]+)=)?([^=,()]+)(?:\(([^)]*)\))?(?:,|$)", value):
            if most != "N" and of.startswith(tres or ""):
                yield whose, f"{name} {of}".strip(), most, used


def _assigned(of: str, job: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Whose, name and value of each limit of the job's QOS (`of` is QOS), or of its user, its account and the accounts
    above it (Assoc). The controller knows them, and what is used, without the accounting."""
    user, _, uid = job["UserId"].rstrip(")").partition("(")
    account, seen = job["Account"], set[str]()
    if of != "Assoc":
        whose, owner = f"QOS {job['QOS']}", ""
        for line in command("scontrol", "show", "assoc_mgr", "flags=qos", f"qos={job['QOS']}").splitlines():
            if one := re.match(r" {6}(\S+)$", line):  # of a user, or of an account, whose limits follow
                owner = one[1]
            if owner.partition("(")[0] in ("", user, uid, account):
                yield from ((whose, name, value) for name, value in _pairs(line))
    while of != "QOS" and account and account not in seen:
        seen.add(account)
        above, mine = "", False
        for line in command("scontrol", "show", "assoc_mgr", "flags=assoc", f"accounts={account}").splitlines():
            if "Account=" in line and "ClusterName=" in line:
                who = (re.search(r"UserName=([^ (]*)", line) or [""] * 2)[1]
                mine = who in ("", user)
                whose = f"user {who} in account {account}" if who else f"account {account}"
            if mine:
                above = next(
                    (value.partition("(")[0] for name, value in _pairs(line) if name == "ParentAccount"), above
                )
                yield from ((whose, name, value) for name, value in _pairs(line))
        account = above


def _pairs(line: str) -> list[tuple[str, str]]:
    return re.findall(r"(\w+)=(\S+)", line)
