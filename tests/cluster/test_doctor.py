"""`xgen doctor` on the dev SLURM: nothing is wrong with it, and of each planted fault it names that one and its fix."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import Cluster, scontrol
from tests.conftest import ROOT, xgen

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("_dev_slurm")]
STATE = Path("/var/lib/xgen-dev-slurm")
CONF = STATE / "etc/slurm.conf"
TINY = ROOT / "jobs/tiny/pretrain.yaml"
NODE = "n2"  # which has a fault of its own

LONG = {
    "kind": "command", "name": "long", "command": ["true"], "lead": "30s",
    "resources": {"partition": "gpu", "nodes": 1, "gpus_per_node": 1, "time": "2h"},
}  # fmt: skip


def doctor(cluster: Cluster, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    """Its exit code, and the findings that are not ok."""
    done = xgen("doctor", "--json", *arguments, "--cluster", str(cluster.profile), timeout=400)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["unanswered"] == []
    return done.returncode, [one for one in report["findings"] if one["severity"] != "ok"]


def assert_only(found: tuple[int, list[dict[str, str]]], what: str, severity: str, evidence: str, fix: str) -> None:
    code, findings = found
    assert [(one["what"], one["severity"]) for one in findings] == [(what, severity)], findings
    assert evidence in findings[0]["evidence"]
    assert fix in findings[0]["fix"]
    assert code == (1 if severity == "failed" else 0)


@pytest.fixture(scope="module")
def settings(_dev_slurm: None) -> Iterator[str]:
    """slurm.conf as it was, which it is again afterwards."""
    whole = CONF.read_text()
    yield whole
    CONF.write_text(whole)
    scontrol("reconfigure")


def set_in(whole: str, **settings: str) -> None:
    """All others are as they were."""
    lines = [line for line in whole.splitlines() if line.partition("=")[0] not in settings]
    words = [f"{name}={value}" for name, value in settings.items() if value]
    CONF.write_text("\n".join([*lines, *words]) + "\n")
    scontrol("reconfigure")


@contextmanager
def partition(name: str, setting: str, otherwise: str) -> Iterator[None]:
    scontrol("update", f"PartitionName={name}", setting)
    try:
        yield
    finally:
        scontrol("update", f"PartitionName={name}", otherwise)


def changed(cluster: Cluster, **parts: dict[str, Any]) -> Cluster:
    """With another profile: its parts have these keys too."""
    profile = yaml.safe_load(cluster.profile.read_text())
    for name, part in parts.items():
        profile[name] = {**profile.get(name, {}), **part}
    file = cluster.profile.with_name("changed.yaml")
    file.write_text(yaml.safe_dump(profile))
    return replace(cluster, profile=file)


@contextmanager
def mounted_on_node(place: Path, *arguments: str) -> Iterator[None]:
    """In the mount namespace of one slurmd, and of the steps that it starts: the other nodes do not see it."""
    enter = ["nsenter", f"--target={(STATE / f'run/slurmd-{NODE}.pid').read_text().strip()}", "--mount"]
    subprocess.run([*enter, "mount", *arguments, str(place)], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run([*enter, "umount", "--lazy", str(place)], check=True, timeout=20)


def test_nothing_is_wrong_with_the_dev_slurm_nor_with_the_tiny_training_on_it(
    container_cluster: Cluster, settings: str
) -> None:
    del settings
    assert doctor(container_cluster, str(TINY), "--on-node") == (0, [])
    done = container_cluster.xgen("doctor")
    assert done.stdout.splitlines()[-1].endswith(": nothing is wrong")


@pytest.mark.parametrize(
    ("name", "value", "what", "severity", "evidence", "fix"),
    [
        (
            "SlurmctldParameters", "", "preemption signal", "failed",
            "a job that is preempted in preempt is never told to save",
            "slurm.conf: SlurmctldParameters=preempt_send_user_signal",
        ),
        (
            "JobRequeue", "0", "requeue", "warning", "JobRequeue=0",
            "slurm.conf: JobRequeue=1, then scontrol reconfigure; or profile: restart_by: successor",
        ),
        (
            "KillWait", "3", "kill wait", "warning", "KillWait=3, and the profile says kill_wait: 10s",
            "slurm.conf: KillWait=10, then scontrol reconfigure; or profile: kill_wait: 3s",
        ),
        (
            "PrivateData", "jobs", "private data", "warning", "PrivateData=jobs hides jobs of others in xgen top",
            "slurm.conf: PrivateData=none",
        ),
        (
            "AccountingStorageType", "accounting_storage/none", "accounting", "warning",
            "AccountingStorageType=accounting_storage/none",
            "slurm.conf: AccountingStorageType=accounting_storage/slurmdbd",
        ),
    ],
    ids=["signal", "requeue", "kill-wait", "private-data", "accounting"],
)  # fmt: skip
def test_a_setting_of_slurm_is_named_with_its_line(
    cluster: Cluster, settings: str, name: str, value: str, what: str, severity: str, evidence: str, fix: str
) -> None:
    beside = {"AccountingStorageEnforce": ""} if name == "AccountingStorageType" else {}
    set_in(settings, **{name: value}, **beside)
    try:
        assert_only(doctor(cluster), what, severity, evidence, fix)
    finally:
        set_in(settings)


@pytest.mark.parametrize(
    ("name", "setting", "otherwise", "what", "severity", "evidence", "fix"),
    [
        (
            "preempt", "PreemptMode=CANCEL", "PreemptMode=REQUEUE", "preemption mode", "warning",
            "PreemptMode=CANCEL: a preempted job in preempt is not requeued",
            "slurm.conf: PartitionName=preempt … PreemptMode=REQUEUE, then scontrol reconfigure; "
            "or profile: restart_by: successor",
        ),
        (
            "preempt", "GraceTime=0", "GraceTime=30", "grace", "failed",
            "GraceTime=0 in partition preempt, and the profile promises 30s",
            "slurm.conf: PartitionName=preempt … GraceTime=30, then scontrol reconfigure; "
            "or profile: partitions.preempt.grace: 0s",
        ),
        (
            "gpu", "State=DOWN", "State=UP", "partition", "failed", "partition gpu is DOWN",
            "scontrol update PartitionName=gpu State=UP",
        ),
    ],
    ids=["cancel", "grace", "down"],
)  # fmt: skip
def test_a_setting_of_a_partition_is_named_with_its_line(
    cluster: Cluster, name: str, setting: str, otherwise: str, what: str, severity: str, evidence: str, fix: str
) -> None:
    with partition(name, setting, otherwise):
        assert_only(doctor(cluster), what, severity, evidence, fix)


def test_what_a_spec_needs_is_compared_with_slurm_and_not_with_the_profile_alone(
    cluster: Cluster, tmp_path: Path
) -> None:
    spec = tmp_path / "long.yaml"
    spec.write_text(yaml.safe_dump(LONG))
    with partition("gpu", "MaxTime=60", "MaxTime=1-0"):
        assert_only(
            doctor(cluster, str(spec)), "time limit", "failed",
            "long asks for 2h in gpu, and MaxTime=1h", "spec: resources.time: 1h or less",
        )  # fmt: skip
    with partition("preempt", "GraceTime=3", "GraceTime=30"):
        assert_only(
            doctor(cluster, str(TINY)), "grace", "failed",
            "GraceTime=3 in partition preempt; tiny broad takes", "GraceTime=30, then scontrol reconfigure",
        )  # fmt: skip


def test_a_profile_at_odds_with_the_site_is_named_with_its_key(cluster: Cluster) -> None:
    typed = changed(cluster, gpus={"type": "h100"})
    assert_only(
        doctor(typed),
        "GPU request",
        "failed",
        "gpus.type: h100, and SLURM names no type in gpu, preempt",
        "profile: remove gpus.type",
    )
    more = changed(cluster, partitions={"gpus": {"max_time": "1d"}})
    assert_only(doctor(more), "partition", "failed", "SLURM has no partition gpus", "rename or remove it; write gpu")


def test_a_run_root_without_room_is_found_before_a_run_is(cluster: Cluster) -> None:
    cluster.run_root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", cluster.run_root], check=True, timeout=20)
    try:
        assert_only(doctor(cluster), "room", "warning", "64MB free", "make room in")
        (cluster.run_root / "filler").write_bytes(b"x" * (60 << 20))
        assert_only(
            doctor(cluster), "room", "failed", "No space left on device", "profile: run_root: a folder with more"
        )
    finally:
        subprocess.run(["umount", cluster.run_root], check=True, timeout=20)


def test_a_run_root_that_a_node_does_not_share_is_named_with_the_node(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run_root.mkdir()
    with mounted_on_node(cluster.run_root, "-t", "tmpfs", "none"):
        assert_only(
            doctor(cluster, "--on-node", "--nodes", "4"), "shared run root", "failed",
            f"{NODE}: {cluster.run_root} is another folder", "profile: run_root: a folder of the file system",
        )  # fmt: skip
    # A layer over the same folder: files are shared, and locks are not, as with Lustre's -o localflock.
    for folder in ("lower", "work"):
        (tmp_path / folder).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={cluster.run_root},workdir={tmp_path}/work"
    with mounted_on_node(cluster.run_root, "-t", "overlay", "none", "-o", layers):
        assert_only(
            doctor(cluster, "--on-node", "--nodes", "4"), "shared locks", "failed",
            f"{NODE}: takes a lock that this machine holds", "Lustre: -o flock",
        )  # fmt: skip


def test_what_a_node_lacks_is_named_with_the_node(container_cluster: Cluster) -> None:
    asked = ("--on-node", "--nodes", "4", "--image", "xgen-cpu")
    with mounted_on_node(Path("/dev/shm"), "-t", "tmpfs", "-o", "size=64m", "none"):
        found = doctor(container_cluster, *asked)
        assert_only(found, "/dev/shm", "warning", f"{NODE}: 64MB", "mount -o remount,size=50% /dev/shm")
    with mounted_on_node(Path("/usr/bin/ch-run"), "--bind", "/dev/null"):
        found = doctor(container_cluster, *asked)
        assert_only(found, "runtime", "failed", f"{NODE}: ch-run is not on PATH", "install ch-run 0.26 on the nodes")
    images = (ROOT / ".cache/images/xgen-cpu").resolve().parent
    with mounted_on_node(images, "-t", "tmpfs", "none"):
        found = doctor(container_cluster, *asked)
        assert_only(
            found, "image", "failed", f"{NODE}: {images}/", "profile: container.image_dir: a folder of the file"
        )


def test_an_interface_that_is_not_there_is_named_with_the_one_that_is(cluster: Cluster) -> None:
    other = changed(cluster, env={"GLOO_SOCKET_IFNAME": "eth9"})
    assert_only(
        doctor(other, "--on-node"), "network interface", "failed",
        "GLOO_SOCKET_IFNAME=eth9, and there are lo", "profile: env.GLOO_SOCKET_IFNAME: lo",
    )  # fmt: skip


def test_the_network_is_measured_between_nodes_and_held_to_its_floor(cluster: Cluster) -> None:
    fast = changed(cluster, nodes={"bandwidth": "9000GB"})
    assert_only(
        doctor(fast, "--network", "--timeout", "300"), "bandwidth", "failed",
        "over 2 ranks on n1, n2, by gloo; the floor is 8.79TB/s; the slowest link is n1 - n2", "nodes.bandwidth",
    )  # fmt: skip
