"""Why a job waits, in words: SLURM's reason codes, what each means for the person who submitted, and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NOTHING = "nothing; it starts by itself"
_NOT_THERE = "nodes that it needs are down, drained, reserved or in another's use"
_IN_TIME = "nothing, if they come back in time; else write another partition, or fewer resources.nodes"
_START_AGAIN = "scontrol release JOB; xgen doctor names nodes"
TOO_LARGE = "write less resources: one job alone is over the limit"
# Codes of slurm's squeue(1), 22.05 to 25.05, and what its controller writes in place of one, by their beginning; the
# first that fits counts. docs/why.md has them too.
REASONS: tuple[tuple[str, str, str], ...] = (
    ("Priority", "jobs of higher priority wait for the same nodes", _NOTHING),
    ("Resources", "it is the next for its nodes, and they are busy", f"{_NOTHING}; xgen top shows who holds them"),
    ("DependencyNeverSatisfied", "the job that it waits for has failed", "xgen resume RUN, once that is mended"),
    ("Dependency", "it waits for the job before it", _NOTHING),
    ("BeginTime", "SLURM holds it back until its start time, after a requeue for some two minutes", _NOTHING),
    ("JobHeldUser", "you, or a job of yours, put it on hold", "xgen release RUN"),
    ("job requeued in held", "you put the run on hold (xgen hold)", "xgen release RUN"),
    (
        "JobHeldAdmin",
        "an administrator put it on hold, or SLURM after a failed start",
        "ask them, or scontrol release JOB where you may",
    ),
    ("JobArrayTaskLimit", "as many shards run as array.at_once allows", "nothing, or write a larger array.at_once"),
    ("JobHoldMaxRequeue", "it was requeued more often than the site allows", "xgen resume RUN submits it anew"),
    ("JobLaunchFailure", "its nodes could not start it", _START_AGAIN),
    ("launch failed requeued held", "its nodes could not start it", _START_AGAIN),
    ("PartitionTimeLimit", "its time is more than the partition allows", "write less resources.time"),
    ("PartitionNodeLimit", "its nodes are more than the partition allows", "write less resources.nodes"),
    ("PartitionDown", "the partition takes jobs and starts none", "wait for the administrators, or another partition"),
    ("PartitionInactive", "the partition starts no jobs", "wait for the administrators, or another partition"),
    ("NodeDown", "a node that it needs is down", "wait for it, or write another partition"),
    ("ReqNodeNotAvail", _NOT_THERE, _IN_TIME),
    ("Nodes required for job", _NOT_THERE, _IN_TIME),
    ("ReservationDeleted", "the reservation that it wanted is gone", "submit without it"),
    ("Reservation", "it waits for a reservation to begin", _NOTHING),
    ("Licenses", "licenses that it needs are in use", _NOTHING),
    ("BadConstraints", "no node can ever fulfil what it asks for", "write resources that a node has; xgen plan SPEC"),
    ("AccountNotAllowed", "the account may not use the partition", "write another project or partition"),
    ("Job's account not permitted", "the account may not use the partition", "write another project or partition"),
    ("User's group not permitted", "your group may not use the partition", "write another partition"),
    ("AssociationTimeLimit", "its account has used up its time", "ask the administrators"),
    ("Association", "its account or user is at its limit", "nothing; it starts when other jobs of them end"),
    ("QOSTimeLimit", "its QOS has used up its time", "ask the administrators"),
    ("QOSJobLimit", "its QOS is at its limit", "nothing; it starts when other jobs of the QOS end"),
    ("QOSResourceLimit", "its QOS is at its limit", "nothing; it starts when other jobs of the QOS end"),
    ("QOSUsageThreshold", "its QOS wants a higher share of fair use", "nothing, or another QOS"),
    ("BurstBuffer", "its burst buffer is not ready", "nothing, or ask the administrators"),
    ("Power", "nodes are switched off, or power is short", _NOTHING),
    ("InvalidAccount", "SLURM does not know its account", "write another project: sacctmgr show assoc user=$USER"),
    ("InvalidQOS", "SLURM does not know its QOS", "ask the administrators"),
    ("QOSNotAllowed", "its QOS may not use the partition", "write another partition"),
    ("Job's QOS not permitted", "its QOS may not use the partition", "write another partition"),
    ("Cleaning", "its attempt before is still being cleaned up on a node", _NOTHING),
    ("Prolog", "the prolog of its nodes runs", _NOTHING),
    ("NonZeroExitCode", "it ended with an error", "xgen logs RUN --err"),
    ("FrontEndDown", "no front end is up to start it", "wait for the administrators"),
)
# QOSMaxGRESPerUser, AssocGrpCPUMinutesLimit, MaxJobsPerAccount …
LIMIT = re.compile(
    r"^(?P<of>QOS|Assoc)?(?P<kind>Grp|Max|Min)(?P<what>\w+?)(?P<per>Per(User|Account|Job|Node|CPU|))?(Limit)?$"
)
_WHAT = {
    "GRESMinutes": "GPU-minutes",
    "GRES": "GPUs",
    "CPURunMinutes": "CPU-minutes under way",
    "CPUMinutes": "CPU-minutes",
    "Cpu": "CPUs",
    "CPU": "CPUs",
    "Mem": "memory",
    "Node": "nodes",
    "Jobs": "jobs at a time",
    "Submit": "jobs in the queue",
    "Wall": "time",
}


@dataclass(frozen=True)
class Waiting:
    """What a reason means and what to do about it."""

    code: str
    meaning: str
    fix: str


def explain(reason: str) -> Waiting:
    """Of SLURM's code, or what squeue prints in its place: `ReqNodeNotAvail, UnavailableNodes:n[1-2]`."""
    code = reason.strip("()")
    name, _, detail = code.partition(",")
    for known, meaning, fix in REASONS:
        if name.startswith(known):
            nodes = re.search(r"UnavailableNodes:(\S+)", detail)
            return Waiting(code, f"{meaning}{f' ({nodes[1]})' if nodes else ''}", fix)
    if limit := LIMIT.match(name):
        return Waiting(code, _limit(limit), _fix_of_limit(limit))
    return Waiting(code, "SLURM gives no other reason", "man squeue, JOB REASON CODES")


def _limit(found: re.Match[str]) -> str:
    whose = {"QOS": "its QOS", "Assoc": "its account or user"}.get(found["of"] or "", "its account, user or QOS")
    if found["kind"] == "Min":
        return f"it asks for fewer {_named(found['what'])} than {whose} has to"
    each = {
        "PerUser": " for one user",
        "PerAccount": " for one account",
        "PerJob": " in one job",
        "PerNode": " on a node",
    }
    return f"{whose} may have no more {_named(found['what'])}{each.get(found['per'] or '', '')}"


def _fix_of_limit(found: re.Match[str]) -> str:
    if found["kind"] == "Grp":
        return "nothing; it starts when other jobs of them end, or, where a budget is used up, when it is renewed"
    if found["per"] in ("PerUser", "PerAccount") or "Jobs" in found["what"]:
        return "nothing; it starts when other jobs of yours end"
    if found["kind"] == "Min":
        return "write more resources, or another QOS or partition"
    return TOO_LARGE


def _named(what: str) -> str:
    return next((word for key, word in _WHAT.items() if what.startswith(key)), what)
