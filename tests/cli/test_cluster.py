"""`xgen cluster`: a profile of what the site says, written once, compared later, listed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Project
from tests.cluster_unit.sites import OUTPUTS
from tests.metrics.fake_slurm import FakeSlurm
from xgen.cluster.site.machine import FOLDER_VARIABLES, is_shared, parse_mounts
from xgen.spec import load_profile

DOWN = 'echo "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
SCONTROL = f"""case "$*" in
  *config) sed "s,/etc/slurm/slurm.conf,${{0%/*}}/slurm.conf," {OUTPUTS}/22.05.8_show-config.txt ;;
  *partition) cat {OUTPUTS}/22.05.8_show-partition.txt ;;
  *node) cat {OUTPUTS}/22.05.8_show-node.txt ;;
esac"""


class Site:
    """A person's home, and a SLURM that answers as ours did."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project, self.home = project, folder / "home"
        self.slurm = FakeSlurm(folder)
        self.slurm.say("scontrol", SCONTROL)
        self.slurm.say("sacctmgr", "exit 0")
        self.slurm.say("srun", "exit 0")
        self.home.mkdir()

    @property
    def clusters(self) -> Path:
        return self.home / "config/xgen/clusters"

    def xgen(self, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": path or f"{self.slurm.bin}:{os.environ['PATH']}", "HOME": str(self.home), "COLUMNS": "100",
            "XDG_CONFIG_HOME": str(self.home / "config"), **dict.fromkeys(FOLDER_VARIABLES, ""),
        }  # fmt: skip
        return self.project.xgen("cluster", *arguments, env=environment)


@pytest.fixture
def site(project: Project, tmp_path: Path) -> Site:
    return Site(project, tmp_path)


def test_init_writes_a_profile_that_the_other_commands_find(site: Site) -> None:
    done = site.xgen("init")
    assert done.returncode == 0, done.stderr
    file = site.clusters / "xgen-dev.yaml"
    assert done.stdout.splitlines()[0].startswith(f"{file}  slurm, 2 partitions, ")
    assert "next    xgen cluster show xgen-dev" in done.stdout
    profile = load_profile(file)
    assert (list(profile.partitions), profile.kill_wait) == (["gpu", "preempt"], 10)
    assert profile.run_root == str(site.project.path / "runs")
    shown = site.xgen("show", "xgen-dev")
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (0, f"xgen-dev  {file}")
    assert "!" not in shown.stdout


def test_a_profile_that_is_there_stays_unless_it_is_forced(site: Site) -> None:
    assert site.xgen("init", "atlas").returncode == 0
    file = site.clusters / "atlas.yaml"
    file.write_text("mine")
    done = site.xgen("init", "atlas")
    assert (done.returncode, file.read_text()) == (2, "mine")
    assert done.stderr == f"{file} is there already; write --force to replace it, --out FILE, or --dry-run to look\n"
    assert site.xgen("init", "atlas", "--force").returncode == 0
    assert "partitions:" in file.read_text()


def test_a_dry_run_prints_the_profile_and_writes_nothing(site: Site) -> None:
    done = site.xgen("init", "--dry-run", "--run-root", "some/runs", "--set", "gpus.flops=12G")
    raw = yaml.safe_load(done.stdout)
    assert (raw["run_root"], raw["gpus"]["flops"]) == (str(site.project.path / "some/runs"), "12G")
    assert not site.clusters.exists()


def test_a_relative_path_in_an_override_begins_at_the_project(site: Site) -> None:
    raw = yaml.safe_load(site.xgen("init", "--dry-run", "--set", "container.mounts=[data]").stdout)
    assert raw["container"]["mounts"] == [str(site.project.path / "data")]


def test_out_names_the_file_and_json_says_what_is_to_be_checked(site: Site) -> None:
    done = site.xgen("init", "--out", "here.yaml", "--json")
    facts = json.loads(done.stdout)
    assert (facts["name"], facts["file"]) == ("xgen-dev", str(site.project.path / "here.yaml"))
    assert facts["from"]["kill_wait"] == "KillWait"
    assert "gpus.flops" in facts["check"]
    assert load_profile(Path(facts["file"])).scheduler == "slurm"
    assert not site.clusters.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "gpus.request=cons"), "the profile: gpus.request: 'cons' is not known; write "),
        (("--set", "gpus.requst=gres"), "the profile: gpus.requst: unknown key; write request"),
        (("--set", "gpus"), "--set: gpus: is not KEY=VALUE"),
        (("a/b",), "'a/b' is no name; write a word, or --out FILE"),
        (("atlas.yaml",), "'atlas.yaml' is no name; write a word, or --out FILE"),
        (("local",), "local is /"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(site: Site, arguments: tuple[str, ...], said: str) -> None:
    done = site.xgen("init", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert not site.clusters.exists()


def test_a_controller_that_does_not_answer_is_no_machine_without_slurm(site: Site) -> None:
    site.slurm.say("scontrol", DOWN)
    done = site.xgen("init")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Unable to contact slurm controller" in done.stderr


def test_without_slurm_it_is_the_profile_of_one_machine(site: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = site.xgen("init", "box", path=str(tmp_path / "empty"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("scontrol is not on PATH, so this is the profile of one machine")
    profile = load_profile(site.clusters / "box.yaml")
    assert (profile.scheduler, profile.container.runtime) == ("local", "none")


def test_where_no_folder_looks_shared_it_asks_for_one(site: Site) -> None:
    if any(map(is_shared, parse_mounts(Path("/proc/mounts").read_text()).values())):
        pytest.skip("this machine mounts a shared file system")
    site.slurm.say("scontrol", SCONTROL.replace("cat", "sed s/127.0.0.1/10.0.0.1/", 2))
    done = site.xgen("init")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no folder of this machine looks shared between nodes; write --run-root DIR\n"
    assert site.xgen("init", "--run-root", "/shared/runs", "--dry-run").returncode == 0


def test_where_no_partition_is_open_it_says_why(site: Site) -> None:
    site.slurm.say("sacctmgr", 'case "$*" in *assoc*) echo "lab||normal||||" ;; esac')
    closed = "-partition.txt | sed s/AllowAccounts=ALL/AllowAccounts=ops/"
    site.slurm.say("scontrol", SCONTROL.replace("-partition.txt", closed))
    done = site.xgen("init")
    assert done.returncode == 2
    first, *_, last = done.stderr.splitlines()
    assert first == "Left out: partition gpu: AllowAccounts=ops, and yours are lab"
    assert last == "no partition is known to be open to you; write --set 'partitions={NAME: {max_time: 1d}}'"


def test_what_slurm_did_not_say_is_said(site: Site) -> None:
    site.slurm.say("sacctmgr", 'echo "sacctmgr: error: Connection refused" >&2; exit 1')
    done = site.xgen("init", "--dry-run")
    assert "not known: associations: " in done.stderr
    assert "# Not known: associations: " in done.stdout


def test_show_marks_what_differs_with_its_line(site: Site) -> None:
    assert site.xgen("init", "atlas").returncode == 0
    file = site.clusters / "atlas.yaml"
    text = file.read_text().replace("grace: 30s", "grace: 5m")
    file.write_text(text)
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "grace: 5m" in one)
    done = site.xgen("show", "atlas")
    assert done.returncode == 0
    assert f"! {file}:{line}: partitions.preempt.grace: write 30s" in done.stdout.splitlines()
    facts = json.loads(site.xgen("show", "atlas", "--json").stdout)
    [row] = [row for row in facts["compared"] if row["write"]]
    assert (row["key"], row["profile"], row["write"], row["place"]) == (
        "partitions.preempt.grace", "5m", "30s", f"{file}:{line}",
    )  # fmt: skip
    assert [part["gpus_free"] for part in facts["partitions"]] == [32, 32]
    assert facts["site"]["version"] == "22.05.8"


def test_show_without_a_controller_shows_the_profile_and_says_so(site: Site) -> None:
    assert site.xgen("init", "atlas").returncode == 0
    site.slurm.say("scontrol", DOWN)
    done = site.xgen("show", "atlas")
    assert done.returncode == 3
    assert done.stdout.startswith("atlas  ")
    assert "not known: slurm_load_ctl_conf error" in done.stderr


def test_list_names_each_profile_its_file_and_what_is_wrong_with_it(site: Site) -> None:
    assert site.xgen("init", "atlas").returncode == 0
    (site.clusters / "broken.yaml").write_text("scheduler: slurm\n")
    (site.clusters / "far.yaml").write_text("ssh: {host: login.far, user: me}\n")
    facts = {fact["name"]: fact for fact in json.loads(site.xgen("list", "--json").stdout)}
    assert facts["atlas"]["file"] == str(site.clusters / "atlas.yaml")
    assert facts["atlas"]["scheduler"] == "slurm"
    assert "run_root: is missing" in facts["broken"]["error"]
    assert (facts["far"]["scheduler"], facts["far"]["run_root"]) == ("ssh", "at me@login.far")
    assert {"dev", "local", "example-h100"} <= set(facts)
    done = site.xgen("list")
    assert "atlas" in done.stdout
    assert done.stderr.splitlines()[0] == f"{site.clusters}/broken.yaml: run_root: is missing; add it"
