"""What `xgen doctor` makes of what nodes say of themselves, and the script that makes them say it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROVISIONED, ROOT
from xgen.cluster.doctor.ask import Question, ask_nodes, node_script
from xgen.cluster.doctor.facts import Answer, read_facts
from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.interfaces import nccls_choice
from xgen.cluster.doctor.network import judge_network
from xgen.cluster.doctor.nodes import judge_nodes
from xgen.spec import Profile, load_profile

NOW = 1_790_000_000
SOUND = {
    "here": "yes", "program.ch-run": "0.31", "userns": "yes", "own_address": "10.0.0.1", "nvidia": "yes",
    "interfaces": "lo eth0 ib0", "route.n9": "eth0", "shm": f"{2**35} {2**35}", "run_root": "same", "lock": "held",
}  # fmt: skip


def profile(runtime: str = "charliecloud", **env: str) -> Profile:
    return Profile.model_validate(
        {"run_root": "/shared/runs", "partitions": {"gpu": {}}, "container": {"runtime": runtime}, "env": env}
    )


def lines(node: str, health: tuple[str, ...] = (), time: int = NOW, **said: str | None) -> list[str]:
    """What a node prints that is sound but for what is said otherwise; None: nothing of it."""
    facts = {**SOUND, **said}
    told = [f"xgen-doctor {node} {key} {text}" for key, text in facts.items() if text is not None]
    told += [f"xgen-health {node} {line}" for line in (f"clock time {time}", *health, "all done 1 s")]
    return told


def wrong(*told: list[str], of: Profile | None = None, wanted: int = 2, **answer: Any) -> list[Finding]:
    nodes = read_facts([line for some in told for line in some])
    seen = tuple(one.node for one in nodes)
    whole = Answer(nodes, (NOW - 1.0, NOW + 1.0), **{"seen_here": seen, **answer})
    found = list(judge_nodes(whole, wanted, of or profile(), (), ("/images/a",), ("/data/store",)))
    assert all(bool(one.fix) == (one.severity != "ok") for one in found)
    return [one for one in found if one.severity != "ok"]


def test_sound_nodes_are_sound() -> None:
    assert wrong(lines("n1"), lines("n2")) == []


@pytest.mark.parametrize(
    ("said", "what", "severity", "evidence"),
    [
        ({"run_root": "missing", "lock": None}, "shared run root", "failed", "n2: /shared/runs is not there"),
        ({"run_root": "other", "lock": None}, "shared run root", "failed", "n2: /shared/runs is another folder"),
        ({"run_root": "unwritable Read-only file system"}, "shared run root", "failed", "Read-only file system"),
        ({"lock": "free"}, "shared locks", "failed", "takes a lock that this machine holds"),
        ({"lock": "broken No locks available"}, "shared locks", "failed", "cannot lock: No locks available"),
        ({"program.ch-run": ""}, "runtime", "failed", "n2: ch-run is not on PATH"),
        ({"program.ch-run": "0.9.8"}, "runtime", "failed", "n2: ch-run 0.9.8 is older than 0.26"),
        ({"userns": "no"}, "user namespaces", "failed", "n2: unshare --user is refused"),
        ({"image.1": "unreadable /images/a b"}, "image", "failed", "n2: /images/a b is unreadable"),
        ({"mount.1": "missing /data"}, "mounts", "failed", "n2: /data is missing"),
        ({"input.1": "missing /data/store"}, "inputs", "failed", "n2: /data/store is missing"),
        ({"shm": f"{2**26} {2**26}"}, "/dev/shm", "warning", "n2: 64MB"),
        ({"time": NOW + 40}, "clock", "failed", "n2: +39 s"),
        ({"time": NOW - 40}, "clock", "failed", "n2: -39 s"),
        ({"own_address": "127.0.1.1"}, "network interface", "failed", "n2: its own name means 127.0.1.1"),
        ({"own_address": ""}, "network interface", "failed", "n2: its own name means nothing"),
        ({"interfaces": "lo br-1f2 eth0"}, "network interface", "failed", "n2: NCCL takes br-1f2"),
        ({"health": ("disk bad /tmp cannot be written",)}, "node health", "failed", "n2: disk: /tmp cannot"),
        ({"health": ("memory note 9 of 999 MiB are free",)}, "node health", "warning", "n2: memory: 9 of"),
        ({"health": ("gpus bad 0 of 1 GPUs answer",)}, "GPUs", "failed", "n2: gpus: 0 of 1 GPUs answer"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_node_that_is_wrong_is_named(said: dict[str, Any], what: str, severity: str, evidence: str) -> None:
    (found,) = wrong(lines("n1"), lines("n2", **said))
    assert (found.what, found.severity) == (what, severity)
    assert evidence in found.evidence
    assert "n1" not in found.evidence


def test_what_a_node_does_not_say_is_no_finding() -> None:
    bare: dict[str, Any] = dict.fromkeys(SOUND)
    assert wrong(lines("n1", **bare | {"here": "yes"}), wanted=1) == []
    assert wrong(lines("n1", lock="free"), wanted=1, locked=False) == []  # nor could this machine hold it


def test_nodes_that_do_not_answer_are_said() -> None:
    (found,) = wrong(lines("n1"), error="n2: tasks 1: Killed")
    assert (found.what, found.evidence) == ("nodes", "1 of 2 answered (n1): n2: tasks 1: Killed")
    (found,) = wrong(lines("n1"), [line for line in lines("n2") if "done" not in line])
    assert (found.what, found.evidence) == ("nodes", "n2: stopped after lock")
    (found,) = wrong(lines("n1"), lines("n2"), seen_here=("n1",))
    assert (found.what, found.evidence) == ("shared run root", "n2: what it wrote in /shared/runs is not seen here")


@pytest.mark.parametrize(
    ("runtime", "said", "evidence"),
    [
        ("none", {"python": "/venv/bin/python: No such file or directory"}, "No such file or directory"),
        ("none", {"python": "ok 3 9"}, "Python 3.9, and 3.11 is needed"),
        ("docker", {"program.docker": "Cannot connect to the Docker daemon"}, "dockerd does not answer: Cannot"),
        ("podman", {"program.podman": "podman version 4.3.1", "program.crun": ""}, "crun is not on PATH"),
        ("pyxis", {"program.enroot": "3.4.1", "pyxis": "no"}, "srun knows no --container-image"),
        ("apptainer", {"program.apptainer": "apptainer version 1.0.3"}, "apptainer 1.0.3 is older than 1.1"),
    ],
)  # fmt: skip
def test_each_runtime_has_needs_of_its_own(runtime: str, said: dict[str, str], evidence: str) -> None:
    (found,) = wrong(lines("n1", **{"program.ch-run": None, **said}), of=profile(runtime), wanted=1)
    assert found.what == ("interpreter" if runtime == "none" else "runtime")
    assert evidence in found.evidence


def test_an_interface_of_the_profile_must_be_there_and_lead_to_the_others() -> None:
    def found(**env: str) -> list[str]:
        return [one.evidence for one in wrong(lines("n1"), wanted=1, of=profile(**env))]

    assert found(NCCL_SOCKET_IFNAME="ib", GLOO_SOCKET_IFNAME="eth0") == []
    assert found(NCCL_SOCKET_IFNAME="^lo,docker") == []
    assert found(NCCL_SOCKET_IFNAME="=ib") == ["n1: NCCL_SOCKET_IFNAME==ib, and there are lo, eth0, ib0"]
    assert found(GLOO_SOCKET_IFNAME="lo") == [
        "n1: GLOO_SOCKET_IFNAME=lo stays on the node, and the others are reached by eth0"
    ]


def test_nccl_takes_infiniband_then_what_is_neither_dockers_nor_the_loopback() -> None:
    assert nccls_choice(["lo", "eth0", "ib1", "ib0"]) == "ib1"
    assert nccls_choice(["lo", "docker0", "enp1s0"]) == "enp1s0"
    assert nccls_choice(["lo"]) == "lo"
    assert nccls_choice([]) is None


def test_this_machine_answers_as_a_node_and_nothing_is_left(tmp_path: Path) -> None:
    local = load_profile(ROOT / "slurm/clusters/local.yaml").model_copy(update={"run_root": str(tmp_path / "new/runs")})
    answer = ask_nodes(local, Question(1, "gpu"), 60, print)
    (node,) = answer.nodes
    assert (node.finished, node.said["run_root"], node.said["lock"], answer.seen_here) == (
        True,
        "same",
        "held",
        (node.node,),
    )
    assert node.said["python"] == "ok 3 11"
    assert [one for one in judge_nodes(answer, 1, local, ()) if one.severity == "failed"] == []
    assert list(tmp_path.iterdir()) == []


def test_what_the_work_reads_and_the_node_does_not_see_is_named(tmp_path: Path) -> None:
    local = load_profile(ROOT / "slurm/clusters/local.yaml").model_copy(update={"run_root": str(tmp_path / "runs")})
    places = (str(tmp_path), str(tmp_path / "home/a store"))
    answer = ask_nodes(local, Question(1, "gpu", inputs=places), 60, print)
    (found,) = [one for one in judge_nodes(answer, 1, local, (), inputs=places) if one.what == "inputs"]
    assert (found.severity, found.evidence) == ("failed", f"{answer.nodes[0].node}: {places[1]} is missing")


@pytest.mark.parametrize("runtime", ["none", "pyxis"])
def test_the_script_for_nodes_is_clean_under_shellcheck(runtime: str) -> None:
    if shutil.which("shellcheck") is None:
        if PROVISIONED:
            pytest.fail("shellcheck is not installed; write make setup")
        pytest.skip("shellcheck is not installed")
    script = node_script(profile(runtime, WORDS="it's"), Question(2, "gpu", images=("/images/a b",)), ".token", "word")
    done = subprocess.run(["shellcheck", "--shell=bash", "-"], input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_a_bandwidth_below_the_floor_names_the_slowest_link() -> None:
    measured = {
        "bandwidth": 2e9,
        "ranks": 16,
        "nodes": ["n1", "n2"],
        "backend": "nccl",
        "slowest": "the slowest link is n1 - n2",
    }
    (found,) = judge_network(measured, profile())
    assert found.severity == "ok"
    floor = Profile.model_validate({"run_root": "/r", "partitions": {"gpu": {}}, "nodes": {"bandwidth": "100GB"}})
    (found,) = judge_network(measured, floor)
    assert (found.what, found.severity) == ("bandwidth", "failed")
    assert "the floor is 100GB/s; the slowest link is n1 - n2" in found.evidence
