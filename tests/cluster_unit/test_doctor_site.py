"""What `xgen doctor` makes of SLURM's own words, of the profile and of what a spec needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_unit.sites import dev, university
from tests.conftest import ROOT
from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.need import Need
from xgen.cluster.doctor.site import judge_site
from xgen.cluster.doctor.storage import RunRoot, judge_run_root
from xgen.cluster.site import Site
from xgen.spec import Partition, Profile, load_profile

PROFILE = load_profile(ROOT / "slurm/clusters/dev.yaml")
NEED = Need(
    name="tiny", partition="preempt", nodes=2, gpus_per_node=2, cpus_per_node=2, memory=6 << 30, time=600,
    stop_seconds=9.2, save_seconds=1.1, checkpoint_bytes=60 << 20, shards=0, shm=0, account=None, restart_by="requeue",
)  # fmt: skip


def wrong(site: Site, profile: Profile = PROFILE, *needs: Need) -> list[Finding]:
    found = list(judge_site(site, profile, needs))
    assert all(bool(one.fix) == (one.severity != "ok") for one in found)
    return [one for one in found if one.severity != "ok"]


def with_settings(**settings: str) -> Site:
    return replace(dev(), config={**dev().config, **settings})


def with_partition(name: str, **changes: Any) -> Site:
    site = dev()
    return replace(site, partitions=tuple(replace(p, **changes) if p.name == name else p for p in site.partitions))


def profile_with(**changes: Any) -> Profile:
    return PROFILE.model_copy(update=changes)


def graced(grace: str) -> Partition:
    return Partition.model_validate({"preemptible": True, "grace": grace})


def test_nothing_is_wrong_with_the_dev_slurm() -> None:
    assert wrong(dev(), PROFILE, NEED) == []
    assert [one.what for one in judge_site(dev(), PROFILE, [NEED])] == [
        "partition", "time limit", "preemption signal", "preemption mode", "requeue", "grace", "kill wait",
        "GPU request", "GPU isolation", "accounting", "private data",
    ]  # fmt: skip


def test_the_newer_name_of_the_signal_counts_too() -> None:
    assert wrong(with_settings(SlurmctldParameters="", PreemptParameters="send_user_signal"), PROFILE, NEED) == []


def test_what_slurm_does_not_say_is_no_finding() -> None:
    silent = Site(cluster="", version="", config={}, partitions=(), nodes=(), user="ana")
    assert list(judge_site(silent, PROFILE, [NEED])) == []


@pytest.mark.parametrize(
    ("settings", "what", "severity", "fix"),
    [
        (
            {"SlurmctldParameters": "enable_configless"}, "preemption signal", "failed",
            "slurm.conf: SlurmctldParameters=enable_configless,preempt_send_user_signal, then scontrol reconfigure",
        ),
        ({"PreemptType": "preempt/none"}, "preemption mode", "warning", "profile: partitions.preempt: remove"),
        ({"JobRequeue": "0"}, "requeue", "warning", "slurm.conf: JobRequeue=1"),
        ({"KillWait": "5 sec"}, "kill wait", "warning", "slurm.conf: KillWait=10"),
        ({"SelectType": "select/linear"}, "GPU request", "failed", "profile: gpus.request: gres"),
        ({"GresTypes": ""}, "GPU request", "failed", "slurm.conf: GresTypes=gpu"),
        ({"TaskPlugin": "task/affinity"}, "GPU isolation", "warning", "slurm.conf: TaskPlugin=task/cgroup"),
        ({"ConstrainDevices": "no"}, "GPU isolation", "warning", "cgroup.conf: ConstrainDevices=yes"),
        ({"AccountingStorageType": ""}, "accounting", "warning", "slurm.conf: AccountingStorageType="),
        ({"PrivateData": "accounts,jobs,users"}, "private data", "warning", "slurm.conf: PrivateData=accounts,users"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_setting_is_named_with_its_line(settings: dict[str, str], what: str, severity: str, fix: str) -> None:
    (found,) = wrong(with_settings(**settings), PROFILE, NEED)
    assert (found.what, found.severity) == (what, severity)
    assert found.fix.startswith(fix)


@pytest.mark.parametrize(
    ("changes", "what", "severity", "evidence", "fix"),
    [
        ({"preempt_mode": "CANCEL", "grace": 0}, "grace", "failed", "GraceTime=0 in partition preempt; tiny takes 10 s",
         "slurm.conf: PartitionName=preempt … GraceTime=30"),
        ({"preempt_mode": "CANCEL"}, "preemption mode", "warning", "is not requeued", "slurm.conf: Partition"),
        ({"preempt_mode": "SUSPEND"}, "preemption mode", "warning", "stop where they are", "slurm.conf: Partition"),
        ({"preempt_mode": "OFF"}, "preemption mode", "warning", "nobody can preempt", "profile: partitions.preempt"),
        ({"grace": 20}, "grace", "failed", "the profile promises 30s", "or profile: partitions.preempt.grace: 20s"),
        ({"grace": 60}, "grace", "warning", "counts on 30s", "profile: partitions.preempt.grace: 1m"),
        ({"max_time": 300}, "time limit", "failed", "asks for 10m in preempt, and MaxTime=5m",
         "spec: resources.time: 5m or less"),
        ({"max_time": 3600}, "time limit", "failed", "the profile lets 1d pass", "profile: partitions.preempt.max"),
        ({"state": "DRAIN"}, "partition", "failed", "partition preempt is DRAIN", "State=UP"),
        ({"allow_accounts": ("physics",)}, "partition", "failed", "closed to root: AllowAccounts=physics", "remove it"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_partition_is_named_with_its_line(
    changes: dict[str, Any], what: str, severity: str, evidence: str, fix: str
) -> None:
    found = {one.what: one for one in wrong(with_partition("preempt", **changes), PROFILE, NEED)}
    if "grace" in changes and "preempt_mode" in changes:  # two faults at once
        assert found.pop("preemption mode").severity == "failed"
    assert list(found) == [what]
    (one,) = found.values()
    assert one.severity == severity
    assert evidence in one.evidence
    assert fix in one.fix


def test_the_grace_that_the_profile_knows_may_still_be_too_short_for_a_save() -> None:
    short = profile_with(partitions={**PROFILE.partitions, "preempt": graced("5s")})
    (found,) = wrong(with_partition("preempt", grace=5), short, NEED)
    assert (found.what, found.severity) == ("grace", "failed")
    none = profile_with(partitions={**PROFILE.partitions, "preempt": graced("0s")})
    (found,) = wrong(with_partition("preempt", grace=0), none, NEED)
    assert (found.what, found.severity) == ("grace", "warning")  # which periodic checkpoints make bearable
    (found,) = wrong(dev(), PROFILE, replace(NEED, save_seconds=14.5))
    assert (found.what, found.fix) == ("kill wait", "slurm.conf: KillWait=15, then scontrol reconfigure")


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"nodes": 5}, "node size", "spec: resources.nodes: 4 or less"),
        ({"cpus_per_node": 40}, "node size", "spec: resources.cpus_per_task: 8 or less"),
        ({"memory": 64 << 30}, "node size", "spec: resources.memory: 15.6GB or less"),
        ({"gpus_per_node": 9}, "GPU request", "spec: resources.gpus_per_node: 8 or less, on more nodes"),
        ({"shards": 5000}, "job array", "spec: 1001 shards or less"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_spec_that_is_too_large_is_named_with_what_fits(changes: dict[str, Any], what: str, fix: str) -> None:
    (found,) = wrong(dev(), PROFILE, replace(NEED, **changes))
    assert (found.what, found.severity) == (what, "failed")
    assert found.fix.startswith(fix)


def test_a_run_that_goes_on_by_a_successor_needs_no_requeue() -> None:
    assert wrong(with_settings(JobRequeue="0"), profile_with(restart_by="successor")) == []
    assert wrong(with_settings(JobRequeue="0"), PROFILE, replace(NEED, restart_by="successor")) == []


def test_a_partition_that_preempts_unsaid_is_named() -> None:
    quiet = profile_with(partitions={"gpu": PROFILE.partitions["gpu"], "preempt": Partition()})
    (found,) = [one for one in wrong(dev(), quiet) if one.what == "preemption mode"]
    assert found.severity == "failed"
    assert found.fix == "profile: partitions.preempt: {preemptible: true, grace: 30s}"


def test_the_type_of_a_gpu_is_one_that_the_nodes_have() -> None:
    site = university()
    there = [part.name for part in site.partitions if any(node.gpus for node in site.nodes_of(part.name))]
    types = {gpus.type for name in there for node in site.nodes_of(name) for gpus in node.gpus}

    def found(**gpus: Any) -> list[Finding]:
        profile = profile_with(
            partitions={name: Partition() for name in there},
            gpus=PROFILE.gpus.model_copy(update={"request": "gres", **gpus}),
        )
        return [one for one in wrong(site, profile) if one.what == "GPU request"]

    assert types
    assert all(one.severity == "failed" and "gpus.type: tpu" in one.evidence for one in found(type="tpu"))
    assert found(type="tpu")


@pytest.mark.parametrize(
    ("facts", "needs", "wanted"),
    [
        ({}, [NEED], {}),
        ({"free": 2 << 20}, [], {"room": "warning"}),
        ({"free": 2 << 20}, [NEED], {"room": "failed"}),
        ({"error": "Disk quota exceeded", "is_full": True}, [], {"room": "failed"}),
        ({"error": "Permission denied"}, [NEED], {"run root": "failed"}),
        ({"folder": Path("/")}, [NEED], {"run root": "failed"}),
        ({"lock_error": "No locks available"}, [NEED], {"file locks": "failed"}),
    ],
    ids=["sound", "little", "less-than-wanted", "quota", "permission", "not-mounted", "locks"],
)
def test_a_run_root_that_cannot_hold_runs_is_named(
    facts: dict[str, Any], needs: list[Need], wanted: dict[str, str]
) -> None:
    root = RunRoot(**{"path": ROOT, "folder": ROOT, "free": 1 << 40, **facts})
    found = [one for one in judge_run_root(root, needs) if one.severity != "ok"]
    assert {one.what: one.severity for one in found} == wanted
    assert all(one.fix for one in found)
