"""Checks of nodes, blame for deaths and the exclude list: bash and Python on the same files."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster_unit.host import Host
from xgen.cluster.checks import checks_text
from xgen.cluster.nodes import Blame, Excluded, choose, clear, count_deaths, exclude, nodes_dir, read_nodes
from xgen.runs import read_events

DAY = 86400
NODES = [f"n{number}" for number in range(1, 41)]


class Nodes(Host):
    """A job on the first `num` of 40 nodes, with one rank on each."""

    def __init__(self, folder: Path, num: int = 4) -> None:
        super().__init__(folder)
        self.num = num
        self.command("sinfo", f"printf '%s\\n' {' '.join(NODES)}")
        self.answer("")

    def answer(self, nodes: str) -> None:
        """What scontrol says of the nodes of an attempt that was lost."""
        names = " ".join(NODES[: self.num])
        (self.bin / "nodes").write_text(nodes)
        self.command(
            "scontrol",
            f"""case "$1 $2 $3" in
  "show hostnames "*) printf '%s\\n' {names} ;;
  "-o show node") cat {self.bin}/nodes ;;
  *) echo "$*" >>{self.run.path}/calls ;;
esac""",
        )

    def call(self, text: str, attempt: int = 1, /, **settings: object) -> subprocess.CompletedProcess[str]:
        known = {"NUM_NODES": self.num, "SLURM_NNODES": self.num, "NUM_TASKS": self.num, "ACT": "exclude"} | settings
        words = "\n".join(f"{name}={shlex.quote(str(value))}" for name, value in known.items())
        return self.bash(f'{words}\nevent started \',"nodes":"n[1-{self.num}]"\'\n{text}', attempt=attempt)

    def dies(self, rank: int, reason: str, said: str = "", *, attempt: int = 1, **settings: object) -> str:
        """A rank crashes. Returns what the host says of it."""
        folder = self.run.attempt_dir(attempt)
        folder.mkdir(exist_ok=True)
        (folder / "err.log").write_text(f"{rank}: {said}\n" if said else "")
        return self.call(
            f"OUTCOME=crashed REASON={shlex.quote(f'rank {rank}: {reason}')}; blame_nodes", attempt, **settings
        ).stderr

    def excluded(self) -> list[str]:
        return [one.node for one in read_nodes(self.run.path.parent, DAY, time.time()) if one.excluded]

    def deaths(self) -> dict[str, int]:
        return {one.node: one.deaths for one in read_nodes(self.run.path.parent, DAY, time.time())}

    def told(self, name: str) -> list[tuple[str | None, str | None]]:
        return [(e.nodes, e.reason) for e in read_events(self.run) if e.event == name]


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def checks(text: str = "run_checks", **settings: object) -> list[list[str]]:
    """Node, check, level and text of each line."""
    words = "\n".join(f"{name}={shlex.quote(str(value))}" for name, value in settings.items())
    done = subprocess.run(
        ["bash", "-c", f"{words}\n{checks_text()}\n{text}"],
        env={"PATH": os.environ["PATH"], "SLURMD_NODENAME": "n1"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.split(" ", 4)[1:] for line in done.stdout.splitlines()]


def findings(text: str = "run_checks", **settings: object) -> list[tuple[str, str, str]]:
    return [(one[1], one[2], one[3]) for one in checks(text, **settings) if one[2] in ("bad", "note")]


def test_a_sound_node_has_nothing_to_say_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lines = checks(SHARED=tmp_path)
    assert [line[1:3] for line in lines] == [["clock", "time"], ["all", "done"]]
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_on_a_node_is_a_fault_of_it(tmp_path: Path) -> None:
    (tmp_path / "gpu0").touch()
    found = findings(
        CHECKS="gpus memory disk shm", NUM_GPUS=2, GPU_FILES=f"{tmp_path}/gpu{{}}", MEMORY_WANTED=1 << 60,
        TMP_WANTED=1 << 60, SHM_WANTED=1 << 60,
    )  # fmt: skip
    assert sorted((check, level) for check, level, _ in found) == [
        ("disk", "bad"), ("gpus", "bad"), ("memory", "bad"), ("shm", "bad"),
    ]  # fmt: skip
    assert f"1 of 2 device files {tmp_path}/gpuN can be opened" in [text for _, _, text in found]


def test_a_check_that_hangs_is_a_finding_and_the_others_answer() -> None:
    found = findings("check_disk() { sleep 100; }; run_checks", CHECKS="disk shm", CHECK_LIMIT=2)
    assert found == [("disk", "bad", "did not answer within 2 s")]


def test_a_file_system_that_gives_back_other_bytes_is_a_fault(tmp_path: Path) -> None:
    found = findings('tee() { cat; echo worse >"$2"; }; run_checks', CHECKS="filesystem", SHARED=tmp_path)
    assert found == [("filesystem", "bad", f"{tmp_path}: what was read is not what was written")]


def test_a_full_shared_file_system_is_no_fault_of_the_node(tmp_path: Path) -> None:
    full = "tee() { echo 'tee: /x: No space left on device' >&2; return 1; }; run_checks"
    assert findings(full, CHECKS="filesystem", SHARED=tmp_path) == [
        ("filesystem", "note", f"{tmp_path}: No space left on device")
    ]
    assert findings(CHECKS="filesystem", SHARED=tmp_path / "gone")[0][1:] == (
        "bad", f"{tmp_path}/gone cannot be written: No such file or directory",
    )  # fmt: skip


SMI = """nvidia-smi() { :; }; asked() { case "$*" in
  *query-gpu*) printf '%s\\n' "$GPUS"; return "${CODE:-0}" ;;
  *remapped*) printf '%s\\n' "$ROWS" ;;
  dmesg) printf '%s\\n' "$DMESG" ;;
esac; }; run_checks"""
GOOD = "0, 0, Not Active, Not Active"


@pytest.mark.parametrize(
    ("gpus", "more", "expected"),
    [
        (f"{GOOD}\n1, 0, Not Active, Not Active", {}, []),
        ("0, [N/A], Not Active, Not Active\n1, [N/A], Not Active, Not Active", {}, []),
        (GOOD, {}, [("bad", "1 of 2 GPUs answer")]),
        (f"{GOOD}\n1, 3, Not Active, Not Active", {}, [("bad", "GPU 1: 3 uncorrected ECC errors since it was reset")]),
        (f"{GOOD}\n1, 0, Active, Not Active", {}, [("note", "GPU 1 is throttled: too hot")]),
        ("GPU is lost", {"CODE": 15}, [("bad", "nvidia-smi: GPU is lost")]),
        ("", {"CODE": 124}, [("bad", "nvidia-smi did not answer")]),
        (
            f"{GOOD}\n{GOOD}", {"ROWS": "0000:1B:00.0, Yes, No"},
            [("bad", "GPU 0000:1B:00.0: a row of its memory waits to be remapped; reset the GPU")],
        ),
        (
            f"{GOOD}\n{GOOD}",
            {"DMESG": "[99999999.123] NVRM: Xid (PCI:0000:1b:00): 79, pid=1, GPU has fallen off the bus."},
            [("bad", "Xid 79: (PCI:0000:1b:00): 79, pid=1, GPU has fallen off the bus.")],
        ),
        (f"{GOOD}\n{GOOD}", {"DMESG": "[99999999.123] NVRM: Xid (PCI:0000:1b:00): 13, Graphics Exception"}, []),
        (f"{GOOD}\n{GOOD}", {"DMESG": "[    -5000.1] NVRM: Xid (PCI:0000:1b:00): 79, long ago"}, []),
    ],
    ids=["sound", "no-ecc", "one-gone", "ecc", "hot", "lost", "hangs", "remap", "xid", "xid-13", "xid-old"],
)  # fmt: skip
def test_gpus_by_what_nvidia_smi_and_the_kernel_say(
    gpus: str, more: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    found = findings(SMI, CHECKS="gpus", NUM_GPUS=2, GPUS=gpus, **more)
    assert [(level, text) for _, level, text in found] == expected


def test_a_node_is_excluded_after_two_deaths_by_broken_hardware(nodes: Nodes) -> None:
    assert "1 of 2 deaths" in nodes.dies(2, "the command exited with 1", "CUDA error: uncorrectable ECC error")
    assert (nodes.excluded(), nodes.deaths()) == ([], {"n3": 1})
    nodes.dies(2, "RuntimeError: Xid 79", attempt=2)
    assert nodes.excluded() == ["n3"]
    [(node, reason)] = nodes.told("node_excluded")
    assert node == "n3" and reason is not None and reason.startswith("until ") and "2 deaths, the last: gpu: " in reason
    assert len(nodes.told("unhealthy")) == 2


def test_a_crash_of_the_program_blames_nobody(nodes: Nodes) -> None:
    assert nodes.dies(1, "ValueError: no such column", "Traceback (most recent call last):") == ""
    assert nodes.deaths() == {}


def test_a_node_that_slurm_lost_is_blamed_whatever_the_ranks_said(nodes: Nodes) -> None:
    (nodes.run.attempt_dir(1)).mkdir()
    (nodes.run.attempt_dir(1) / "err.log").write_text("0: Connection reset\nsrun: error: Node failure on n3\n")
    nodes.command("scontrol", "echo n3")
    nodes.call("OUTCOME=stopped REASON='told to stop'; blame_nodes")
    assert nodes.deaths() == {"n3": 1}


def test_a_task_that_died_before_it_could_say_anything_is_found_by_what_srun_says(nodes: Nodes) -> None:
    (nodes.run.attempt_dir(1)).mkdir()
    said = "srun: error: n2: task 1: Bus error (core dumped)\nsrun: error: n1: task 0: Terminated\n"
    (nodes.run.attempt_dir(1) / "err.log").write_text(said)
    nodes.call("OUTCOME=crashed REASON='2 of 4 ranks ended without an outcome'; blame_nodes")
    assert nodes.deaths() == {"n2": 1}


def test_the_same_death_is_counted_once(nodes: Nodes) -> None:
    for _ in range(3):
        nodes.dies(0, "Xid 48")
    assert nodes.deaths() == {"n1": 1}


def test_a_program_that_dies_alike_on_every_node_takes_none_with_it(nodes: Nodes) -> None:
    for attempt, rank in enumerate((0, 1, 2, 0, 1, 2), 1):
        nodes.dies(rank, "the command was killed", "Bus error (core dumped)", attempt=attempt)
    assert (nodes.excluded(), nodes.deaths()) == ([], {"n1": 0, "n2": 0, "n3": 0})


def test_one_run_that_hangs_twice_on_a_node_is_one_death_and_two_runs_are_two(nodes: Nodes) -> None:
    for attempt in (1, 2):
        nodes.dies(1, "hung: no step for 60 s; rank 1 stands at f", attempt=attempt)
    assert nodes.deaths() == {"n2": 1}
    nodes.dies(1, "hung: no step for 60 s", attempt=3, RUN_NAME="other-abc234")
    assert nodes.excluded() == ["n2"]


def test_observing_records_and_excludes_nothing(nodes: Nodes) -> None:
    for attempt in (1, 2, 3):
        said = nodes.dies(0, "Xid 79", attempt=attempt, ACT="observe")
    assert "node n1 is not excluded: nodes are only observed" in said
    assert (nodes.excluded(), nodes.deaths()) == ([], {"n1": 3})


def test_the_cap_is_said_when_it_bites(nodes: Nodes) -> None:
    for number in range(10, 14):
        exclude(nodes.run.path.parent, f"n{number}", 3600, "", time.time())
    said = nodes.call("exclude_node n1 broken").stderr
    assert said == "xgen: node n1 is not excluded: 4 of 40 nodes of partition gpu are excluded, no more may be\n"
    assert nodes.call("exclude_node n99 broken").stderr == (
        "xgen: node n99 is not excluded: SLURM knows no such node in partition gpu\n"
    )
    assert "the job needs 40 of the 40 nodes" in nodes.call("exclude_node n1 x", NUM_NODES=40, MOST_PERMILLE=500).stderr


def test_an_exclusion_that_has_expired_counts_no_more_nor_what_led_to_it(nodes: Nodes) -> None:
    for attempt in (1, 2):
        nodes.dies(0, "Xid 79", attempt=attempt, EXCLUDE_FOR=0)
    assert (nodes.excluded(), nodes.deaths()) == ([], {"n1": 0})
    nodes.dies(0, "Xid 79", attempt=3)
    assert (nodes.excluded(), nodes.deaths()) == ([], {"n1": 1})
    nodes.dies(0, "Xid 79", attempt=4)
    assert nodes.excluded() == ["n1"]


def test_of_a_lost_attempt_the_nodes_that_slurm_lost_or_that_booted_since_are_blamed(nodes: Nodes) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 5))
    nodes.answer(
        "NodeName=n1 Arch=x86_64 State=IDLE ThreadsPerCore=1 BootTime=2020-01-01T00:00:00 SlurmdStartTime=x\n"
        "NodeName=n2 Arch=x86_64 State=DOWN*+DRAIN ThreadsPerCore=1 BootTime=2020-01-01T00:00:00 SlurmdStartTime=x\n"
        f"NodeName=n3 Arch=x86_64 State=IDLE ThreadsPerCore=1 BootTime={now} SlurmdStartTime=x\n"
        "NodeName=n4 State=DOWN+DRAIN ThreadsPerCore=1 BootTime=2020-01-01T00:00:00 Reason=a person [root@x]\n"
    )
    nodes.call("write_outcome 1 lost gone")
    nodes.call("blame_lost_nodes", 2)
    assert nodes.deaths() == {"n2": 1, "n3": 1}


def test_a_job_that_waits_is_kept_off_the_list_of_its_partition(nodes: Nodes) -> None:
    nodes.call("keep_off 7")
    assert nodes.calls() == []
    for node in ("n2", "elsewhere", "n5"):
        exclude(nodes.run.path.parent, node, 3600, "", time.time())
        os.utime(nodes_dir(nodes.run.path.parent) / f"{node}.json", (time.time() - 9, time.time() + len(node)))
    nodes.call("keep_off 7")
    clear(nodes.run.path.parent, "n2", time.time())
    clear(nodes.run.path.parent, "n5", time.time())
    nodes.call("keep_off 7")
    first, second = nodes.calls()
    assert sorted(first.rpartition("=")[2].split(",")) == ["n2", "n5"]
    assert second == "update JobId=7 ExcNodeList="


@pytest.mark.parametrize("needs", [4, 36, 37, 39, 40])
def test_a_requeued_job_is_kept_off_the_nodes_that_a_submission_would_not_take(nodes: Nodes, needs: int) -> None:
    """Of 40 nodes 4 may be excluded, and those that were last come first."""
    for age, node in enumerate(["n1", "n2", "n3", "n4", "n5"]):
        exclude(nodes.run.path.parent, node, 3600, "", time.time())
        os.utime(nodes_dir(nodes.run.path.parent) / f"{node}.json", (0, time.time() - age))
    chosen = choose(["n1", "n2", "n3", "n4", "n5"], NODES, 0.1, needs, "gpu").nodes
    assert chosen == ("n1", "n2", "n3", "n4")[: 40 - needs]
    assert tuple(nodes.call('kept_off "$(partition_nodes)"', NUM_NODES=needs).stdout.split()) == chosen


CHECK = "check_nodes <<'END'\nCHECKS=one CHECK_LIMIT=5\n{text}\nrun_checks\nEND\necho goes on"


def check_nodes(
    nodes: Nodes, on: Sequence[str], *, num: int = 4, **settings: object
) -> subprocess.CompletedProcess[str]:
    """The checks as the batch script calls them; the nodes in `on` fail one."""
    nodes.num = num
    nodes.answer("")
    wrong = "|".join(on) or "none"
    text = f"{checks_text()}\ncheck_one() {{ case $NODE in {wrong}) bad one 'is wrong' ;; esac; }}"
    every = f'for node in {" ".join(NODES[:num])}; do SLURMD_NODENAME=$node bash "$2"; done'
    call = f"on_every_node() {{ {every}; }}; SLURMD_NODENAME=n1; export SLURMD_NODENAME; was_requeued() {{ :; }}\n"
    return nodes.call(call + CHECK.format(text=text), **settings)


def test_a_node_that_fails_a_check_is_excluded_and_the_job_goes_back_to_the_queue(nodes: Nodes) -> None:
    done = check_nodes(nodes, ["n3"])
    assert (done.returncode, done.stdout) == (75, "")
    assert nodes.excluded() == ["n3"]
    assert nodes.told("unhealthy") == [("n3", "one: is wrong")]
    assert (nodes.outcome().status, nodes.outcome().failures) == ("stopped", 0)
    assert nodes.calls() == ["requeue Incomplete 7", "update JobId=7 ExcNodeList=n3"]


@pytest.mark.parametrize(
    ("on", "num", "settings", "said"),
    [
        (["n1"], 1, {"ACT": "observe"}, "node n1 is not excluded: nodes are only observed"),
        (["n1", "n2", "n4"], 4, {}, "most nodes fail the check one, which is no fault of theirs; n1: is wrong"),
        ([], 4, {}, ""),
    ],
    ids=["observed", "most-of-them", "sound"],
)
def test_the_job_goes_on(nodes: Nodes, on: list[str], num: int, settings: dict[str, object], said: str) -> None:
    done = check_nodes(nodes, on, num=num, **settings)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert said in done.stderr
    assert nodes.excluded() == []


def test_a_run_that_is_given_an_excluded_node_all_the_same_goes_on_and_another_leaves(nodes: Nodes) -> None:
    check_nodes(nodes, ["n3"])
    assert check_nodes(nodes, ["n3"]).stdout == "goes on\n"
    assert check_nodes(nodes, ["n3"], RUN_NAME="other-abc234").returncode == 75
    for number in range(10, 20):  # people may exclude more than jobs are kept off
        exclude(nodes.run.path.parent, f"n{number}", 3600, "", time.time())
        os.utime(nodes_dir(nodes.run.path.parent) / f"n{number}.json", (time.time() + 9, time.time() + 9))
    assert check_nodes(nodes, ["n3"], RUN_NAME="other-abc234").stdout == "goes on\n"  # else again and again


def test_a_full_disk_costs_the_record_and_not_the_decision(nodes: Nodes) -> None:
    full = "write_whole() { return 1; }\n"
    done = nodes.call(full + "exclude_node n3 broken; keep_off 7")
    assert done.returncode == 0
    assert nodes.calls() == ["update JobId=7 ExcNodeList=n3"]


def test_what_a_person_decides_and_what_a_batch_script_decides_are_read_alike(nodes: Nodes) -> None:
    root = nodes.run.path.parent
    exclude(root, "n7", 3600, 'slow "NIC"', time.time())
    assert nodes.call("excluded_nodes").stdout == "n7\n"
    nodes.call("exclude_node n8 'a \"b\" \\ c'")
    records = {one.node: one for one in read_nodes(root, DAY, time.time())}
    assert records["n8"].excluded is not None and records["n8"].excluded.reason == 'a "b" \\ c'
    assert records["n8"].runs == ["demo-abc234"]
    (nodes_dir(root) / "n9.json").write_text("torn")
    assert nodes.excluded() == ["n8", "n7"]
    clear(root, "n7", time.time())
    assert nodes.call("excluded_nodes").stdout == "n8\n"


def test_a_submission_never_excludes_so_much_that_the_job_cannot_start() -> None:
    few = ["n1", "n2", "n3", "n4"]
    assert choose(["n3"], few, 0.1, 3, "gpu").nodes == ("n3",)
    assert choose(["n3"], few, 0.1, 4, "gpu").why_left == "the job needs 4 of the 4 nodes of partition gpu"
    two = choose(["n3", "gone", "n1"], few, 0.1, 1, "gpu")
    assert (two.nodes, two.left) == (("n3",), ("n1",))
    assert str(two) == (
        "not on n3; n1 not excluded: at most 1 of the 4 nodes of partition gpu may be (nodes.most in the profile)"
        " (xgen nodes)"
    )
    assert choose(NODES[:4], NODES, 0.1, 2, "gpu").nodes == tuple(NODES[:4])


def test_python_counts_deaths_as_the_batch_script_does() -> None:
    def blame(node: str, kind: str, run: str, when: float) -> Blame:
        return Blame(node=node, kind=kind, run=run, attempt=1, time=when)

    mine = [
        blame("n1", "gpu", "a", 5),
        blame("n1", "gpu", "a", 6),
        blame("n1", "bus", "b", 7),
        blame("n1", "bus", "c", 8),
    ]
    everywhere = [*mine, blame("n2", "bus", "c", 9)]
    assert count_deaths(mine, everywhere, None) == 3
    assert count_deaths(mine, everywhere, Excluded(node="n1", since=6, until=7, by="me")) == 1
