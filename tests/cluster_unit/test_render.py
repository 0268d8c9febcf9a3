"""The text of the batch script, exactly. XGEN_GOLDEN=write pytest tests/cluster_unit writes the files anew."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from xgen.cluster.render import render
from xgen.cluster.runtimes import RUNTIMES, all_mounts, image_path
from xgen.runs import RunDir
from xgen.spec import Command, Job, Mount, Pretrain, Profile

GOLDEN = Path(__file__).parent / "golden"
HOST = (ROOT / "xgen/cluster/host.sh").read_text()
RUN = RunDir(Path("/shared/runs/small-abc234"))


def profile(**keys: Any) -> Profile:
    base: dict[str, Any] = {
        "run_root": "/shared/runs",
        "partitions": {"gpu": {"max_time": "1d", "default": True}, "preempt": {"preemptible": True, "grace": "2m"}},
        "container": {"python": "/opt/xgen/bin/python"},
        "env": {"NCCL_SOCKET_IFNAME": "ib0"},
    }
    return Profile.model_validate(base | keys)


def command(**keys: Any) -> Command:
    base: dict[str, Any] = {
        "kind": "command",
        "name": "small",
        "command": ["python3", "work.py"],
        "resources": {"nodes": 2, "gpus_per_node": 4, "time": "90m"},
        "lead": "2m",
    }
    return Command.model_validate(base | keys)


def pretrain() -> Pretrain:
    return Pretrain.model_validate(
        {
            "kind": "pretrain",
            "name": "small",
            "project": "team-a",
            "model": "tiny",
            "data": {"store": "/shared/stores/web"},
            "resources": {
                "partition": "preempt", "nodes": 2, "gpus_per_node": 8, "cpus_per_task": 12, "memory": "1TB",
                "time": "1d12h30s",
            },
            "container": {"image": "trainer", "mounts": ["/scratch/me:/scratch"]},
            "env": {"GREETING": "it's $5, all in", "NCCL_SOCKET_IFNAME": "eth0"},
            "secrets": {"HF_TOKEN": {"env": "MY_TOKEN"}},
            "stages": [{"name": "a", "tokens": "1M", "seq_len": "4k", "global_batch": "64k", "lr": {"peak": 1e-3}}],
        }
    )  # fmt: skip


CASES: dict[str, tuple[Job, Profile]] = {
    "none": (command(), profile()),
    "charliecloud": (
        pretrain(),
        profile(
            container={"runtime": "charliecloud", "image_dir": "/shared/images", "mounts": ["/etc/slurm"]},
            gpus={"request": "gres", "type": "h100"},
            srun_args=["--mpi=none"],
        ),
    ),
    "cpu": (
        command(resources={"time": "5m"}, env={"LINES": "one\ntwo"}),
        profile(gpus={"request": "none"}, env={}, container={"python": "/path with spaces/python"}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_the_golden_text(name: str) -> None:
    text = render(*CASES[name], RUN)
    assert text.count(HOST) == 1
    text = text.replace(HOST, "# … the text of xgen/cluster/host.sh …\n")
    file = GOLDEN / f"{name}.sh"
    if os.environ.get("XGEN_GOLDEN") == "write":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "none",
        "cpu",
        "charliecloud",
    ],
)
def test_the_script_is_clean_under_shellcheck(name: str) -> None:
    if shutil.which("shellcheck") is None:
        if os.geteuid() == 0 and Path("/etc/debian_version").exists():
            pytest.fail("shellcheck is not installed; write make setup")
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "-"], input=render(*CASES[name], RUN), capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("name", CASES)
def test_bash_reads_it(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=render(*CASES[name], RUN), capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_first_command_traps_term() -> None:
    lines = [line for line in render(*CASES["none"], RUN).splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("trap 'TERMINATED=1' TERM")


def test_rendering_is_pure() -> None:
    assert render(*CASES["none"], RUN) == render(*CASES["none"], RUN)


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("1s", "0-00:01:00"),
        ("60s", "0-00:01:00"),
        ("61s", "0-00:02:00"),
        ("1d1h1m", "1-01:01:00"),
        ("48h", "2-00:00:00"),
    ],
)
def test_time_is_slurm_s_rounded_up_to_a_minute(time: str, said: str) -> None:
    assert f"\n#SBATCH --time={said}\n" in render(command(resources={"time": time}), profile(), RUN)


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ({"request": "gpus-per-node"}, ["#SBATCH --gpus-per-node=4"]),
        ({"request": "gpus-per-node", "type": "h100"}, ["#SBATCH --gpus-per-node=h100:4"]),
        ({"request": "gres"}, ["#SBATCH --gres=gpu:4"]),
        ({"request": "gres", "type": "a100"}, ["#SBATCH --gres=gpu:a100:4"]),
        ({"request": "none"}, []),
    ],
)
def test_gpus_are_asked_for_as_the_cluster_wants(gpus: dict[str, str], said: list[str]) -> None:
    text = render(command(), profile(gpus=gpus), RUN)
    assert re.findall(r"^#SBATCH --g.*$", text, re.MULTILINE) == said
    assert ("--gpu-bind=none" in text) == bool(said)


def test_the_job_s_variables_win_over_the_profile_s_and_are_quoted() -> None:
    text = render(command(env={"A": "it's\n$x", "B": "1"}), profile(env={"A": "theirs", "C": "2"}), RUN)
    exports = re.findall(r"^  export ([ABC])=", text, re.MULTILINE)
    assert sorted(exports) == ["A", "B", "C"]
    assert f"\n  export A={shlex.quote(chr(10).join(['it' + chr(39) + 's', '$x']))}\n" in text


def test_no_secret_is_in_the_text_only_the_file_that_holds_it() -> None:
    text = render(*CASES["charliecloud"], RUN)
    assert '\n  . "$XGEN_RUN_DIR/.secrets"\n' in text
    assert "MY_TOKEN" not in text
    assert ".secrets" not in render(*CASES["none"], RUN).replace(HOST, "")


def test_charliecloud_binds_what_the_work_needs_and_execs() -> None:
    mounts = [Mount(source="/a b"), Mount(source="/c", target="/in")]
    launch = RUNTIMES["charliecloud"].launch("/images/x y", mounts, "/run/code")
    assert launch.srun_args == []
    assert launch.prefix == ["ch-run", "--bind='/a b:/a b'", "--bind=/c:/in", "--cd=/run/code", "'/images/x y'", "--"]
    assert launch.setup[1].startswith("[ -d '/images/x y'/bin ] || refuse ")


def test_without_a_container_neither_image_nor_mounts_are_used() -> None:
    launch = RUNTIMES["none"].launch("trainer", [Mount(source="/a")], "/run/code")
    assert (launch.setup, launch.srun_args, launch.prefix) == ([], ["--chdir=/run/code"], [])


def test_the_spec_s_mounts_win_over_the_profile_s_at_the_same_place() -> None:
    announced = str(RUN.discovery_file.parent)
    job = command(container={"image": "x", "mounts": ["/mine:/data"]})
    mounts = all_mounts(job, profile(container={"mounts": ["/theirs:/data", "/etc/slurm"]}), RUN)
    assert [(m.source, m.target or m.source) for m in mounts] == [
        (str(RUN.path), str(RUN.path)), (announced, announced), ("/mine", "/data"), ("/etc/slurm", "/etc/slurm"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("image", "path"), [(None, ""), ("trainer", "/shared/images/trainer"), ("/my/image", "/my/image")]
)
def test_an_image_s_name_is_looked_up_and_a_path_is_taken_as_it_is(image: str | None, path: str) -> None:
    assert image_path(command(container={"image": image}), profile(container={"image_dir": "/shared/images"})) == path
