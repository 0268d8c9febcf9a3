"""What SLURM says of its site, read as facts; what it does not say stays unknown."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster_unit.sites import OUTPUTS, dev, university
from xgen.cluster import values
from xgen.cluster.site import Association, Preemption, Qos, SiteGpus, ask_site, parse, preemption
from xgen.cluster.slurm import SchedulerError
from xgen.runs.users import user_name


def test_settings_are_those_of_both_files_and_empty_where_slurm_prints_null() -> None:
    config = dev().config
    assert config["KillWait"] == "10 sec"
    assert config["SLURM_VERSION"] == "22.05.8"
    assert config["ConstrainDevices"] == "yes"
    assert config["SlurmctldHost[0]"] == "ctl(127.0.0.1)"
    assert config["PlugStackConfig"] == ""
    assert config["PriorityFlags"] == ""
    assert config["PrivateData"] == "none"


def test_a_site_reads_its_settings_as_times_lists_and_a_release() -> None:
    site = dev()
    assert site.seconds("KillWait") == 10
    assert site.seconds("SuspendTime") is None
    assert site.seconds("NoSuchKey") is None
    assert site.words("SlurmctldParameters") == ("preempt_send_user_signal",)
    assert site.words("AccountingStorageEnforce") == ("associations", "limits", "qos")
    assert site.release == (22, 5)
    assert replace(site, version="").release is None


def test_partitions_of_the_dev_slurm() -> None:
    gpu, preempt = dev().partitions
    assert (gpu.name, gpu.default, gpu.state, gpu.max_time, gpu.default_time) == ("gpu", True, "UP", 86400, 600)
    assert (gpu.preempt_mode, gpu.grace, gpu.priority_tier) == ("OFF", 0, 10)
    assert (gpu.nodes, gpu.num_nodes, gpu.max_nodes) == (("n1", "n2", "n3", "n4"), 4, None)
    assert (gpu.allow_accounts, gpu.allow_groups, gpu.qos, gpu.oversubscribe) == (None, None, None, "NO")
    assert (preempt.default, preempt.preempt_mode, preempt.grace, preempt.priority_tier) == (False, "REQUEUE", 30, 1)


def test_partitions_of_a_newer_version() -> None:
    main, scavenge, closed = university().partitions
    assert (main.max_time, main.max_nodes, main.nodes[-1]) == (3 * 86400, 64, "g16")
    assert (scavenge.max_time, scavenge.default_time, scavenge.qos) == (None, None, "scavenge")
    assert (scavenge.preempt_mode, scavenge.oversubscribe) == ("SUSPEND", "FORCE:2")
    assert (scavenge.allow_accounts, scavenge.deny_accounts) == (None, ("guest", "students"))
    assert (scavenge.allow_qos, scavenge.num_nodes) == (("low", "lowest"), 17)
    assert (closed.allow_accounts, closed.allow_groups) == (("ops", "physics"), ("admins",))
    assert (closed.hidden, closed.root_only, closed.nodes, closed.state) == (True, True, (), "DOWN")
    assert closed.max_time == 1800


def test_a_partition_without_a_mode_of_its_own_has_the_clusters() -> None:
    [only] = parse.partitions("PartitionName=a Nodes=n1 State=UP\n", {"PreemptMode": "GANG,REQUEUE"})
    assert only.preempt_mode == "REQUEUE"
    assert (only.priority_tier, only.num_nodes, only.max_time) == (None, None, None)
    [only] = parse.partitions("PartitionName=a Nodes=n1 State=UP\n", {})
    assert only.preempt_mode is None


def test_nodes_of_the_dev_slurm() -> None:
    one = dev().nodes[0]
    assert (one.name, one.state, one.address, one.cpus, one.memory) == ("n1", "idle", "127.0.0.1", 16, 16000 << 20)
    assert (one.gpus, one.num_gpus, one.gpus_used) == ((SiteGpus(8, None),), 8, 0)
    assert (one.features, one.partitions, one.reason, one.takes_work) == ((), ("gpu", "preempt"), "", True)
    assert [node.name for node in dev().nodes_of("preempt")] == ["n1", "n2", "n3", "n4"]


def test_nodes_of_a_newer_version() -> None:
    busy, gone = university().nodes
    assert (busy.state, busy.takes_work, busy.gpus, busy.gpus_used) == ("draining", False, (SiteGpus(8, "h100"),), 2)
    assert busy.features == ("hopper", "ib")
    assert busy.reason.startswith("XID 79 on GPU 3")
    assert gone.gpus == (SiteGpus(2, "a100"), SiteGpus(2, "v100"))
    assert (gone.state, gone.takes_work, gone.num_gpus, gone.gpus_used) == ("down*", False, 4, 0)
    assert gone.reason == "Not responding"


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("IDLE", "idle"), ("DOWN*", "down*"), ("IDLE*+DRAIN", "drained*"), ("ALLOCATED+DRAIN", "draining"),
        ("MIXED+PLANNED", "mixed"), ("IDLE+RESERVED", "reserved"), ("IDLE+MAINTENANCE+RESERVED", "maint"),
    ],
)  # fmt: skip
def test_a_state_is_the_word_of_sinfo(state: str, word: str) -> None:
    [node] = parse.nodes(f"NodeName=a State={state} Partitions=p\n")
    assert node.state == word
    assert (node.cpus, node.memory, node.gpus_used) == (None, None, None)


def test_a_node_of_a_reservation_is_one_whatever_runs_on_it() -> None:
    busy, own = parse.nodes("NodeName=a State=MIXED+RESERVED Partitions=p\nNodeName=b State=MIXED Partitions=p\n")
    assert ((busy.state, busy.reserved), own.reserved) == (("mixed", True), False)


def test_gpus_that_no_job_uses_up_are_of_their_type() -> None:
    [node] = parse.nodes("NodeName=a State=IDLE Gres=gpu:a100:no_consume:4\n")
    assert node.gpus == (SiteGpus(4, "a100"),)


def test_what_the_accounting_lets_a_user_do() -> None:
    research, _ = dev().associations
    assert (research.account, research.partition, research.qos) == ("research", None, ("normal",))
    assert (research.default_qos, research.max_wall, research.max_tres) == (None, None, "")
    [other] = parse.associations("lab|gpu|high,low|low|1-00:00:00|gres/gpu=8|gres/gpu=16\nhalf a line\n")
    assert (other.partition, other.qos, other.default_qos, other.max_wall) == ("gpu", ("high", "low"), "low", 86400)
    [normal] = dev().qos
    assert (normal.name, normal.grace, normal.preempts, normal.preempt_mode) == ("normal", 0, (), None)
    [high] = parse.qos("high|00:05:00|low,normal|requeue|DenyOnLimit|2-00:00:00|gres/gpu=64\n")
    assert (high.grace, high.preempts, high.preempt_mode) == (300, ("low", "normal"), "REQUEUE")
    assert (high.flags, high.max_wall, high.max_tres_per_user) == (("DenyOnLimit",), 2 * 86400, "gres/gpu=64")


def test_a_partition_of_a_lower_tier_is_preempted_by_those_above_that_share_its_nodes() -> None:
    site = dev()
    gpu, preempt = site.partitions
    assert preemption(site, gpu) is None
    assert preemption(site, preempt) == Preemption("REQUEUE", 30, ("gpu",), by_qos=False)
    apart = replace(gpu, nodes=("n9",))
    assert preemption(replace(site, partitions=(apart, preempt)), preempt) is None
    assert preemption(site, replace(preempt, priority_tier=10)) is None
    assert preemption(site, replace(preempt, preempt_mode="OFF")) is None


@pytest.mark.parametrize(("key", "value"), [("PreemptType", "preempt/none"), ("PreemptMode", "OFF")])
def test_where_preemption_is_off_nothing_is_preempted(key: str, value: str) -> None:
    site = replace(dev(), config={**dev().config, key: value})
    assert preemption(site, site.partitions[1]) is None


def test_by_qos_a_job_is_preempted_by_those_that_list_its_own() -> None:
    low = Qos("low", 120, (), "REQUEUE", (), None, "")
    high = Qos("high", 0, ("low",), None, (), None, "")
    lab = Association("lab", None, ("high", "low"), "low", None, "", "")
    site = replace(university("qos"), qos=(low, high), associations=(lab,))
    main, _, _ = site.partitions  # whose own PreemptMode counts for nothing here
    assert preemption(site, main) == Preemption("REQUEUE", 120, ("high",), by_qos=True)
    as_the_cluster = replace(site, qos=(replace(low, preempt_mode=None), high))
    assert preemption(as_the_cluster, main) == Preemption("CANCEL", 120, ("high",), by_qos=True)
    assert preemption(replace(site, associations=(replace(lab, default_qos=None),)), main) is None
    assert preemption(replace(site, associations=()), main) is None
    assert preemption(replace(site, associations=(replace(lab, qos=("low",), default_qos=None),)), main) is not None
    better = replace(lab, account="own", default_qos="high")
    both = replace(site, associations=(lab, better), default_account="own")
    assert preemption(both, main) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-00:00:00", 86400), ("7-12:30:01", 649801), ("00:10:00", 600), ("10:05", 605), ("30 sec", 30),
        ("5 min", 300), ("30", 30), ("0", 0), ("UNLIMITED", None), ("INFINITE", None), ("NONE", None), ("", None),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float | None) -> None:
    assert values.duration(text) == seconds


Bin = Callable[[str, str], None]


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bin:
    """Writes a command that is the only one of its name on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return write


ANSWER = f"""case "$*" in
  *config) cat {OUTPUTS}/22.05.8_show-config.txt ;;
  *partition) cat {OUTPUTS}/22.05.8_show-partition.txt ;;
  *node) cat {OUTPUTS}/22.05.8_show-node.txt ;;
esac"""


def test_a_site_whose_accounting_does_not_answer_says_so(on_path: Bin) -> None:
    on_path("scontrol", ANSWER)
    on_path("sacctmgr", 'echo "sacctmgr: error: Connection refused" >&2; exit 1')
    site = ask_site()
    assert (site.cluster, site.user, len(site.nodes)) == ("xgen-dev", user_name(os.getuid()), 4)
    assert (site.accounting, site.associations, site.qos, site.default_account) == (False, (), (), None)
    assert [one.partition(":")[0] for one in site.unanswered] == ["default account", "associations", "QOS"]
    assert "Connection refused" in site.unanswered[0]


def test_a_site_without_accounting_is_not_asked_for_it(on_path: Bin) -> None:
    on_path("scontrol", ANSWER.replace("22.05.8_show-config.txt", "22.05.8_show-config.txt | sed s,/slurmdbd,/none,"))
    on_path("sacctmgr", "exit 9")
    site = ask_site()
    assert (site.accounting, site.unanswered) == (False, ())


def test_what_else_the_controller_does_not_say_is_said_to_be_unknown(on_path: Bin) -> None:
    on_path("scontrol", ANSWER.replace("*node)", '*node) echo "Access denied" >&2; exit 1;;\n x)'))
    on_path("sacctmgr", "exit 0")
    site = ask_site()
    assert (site.nodes, site.unanswered) == ((), ("nodes: Access denied",))
    assert len(site.partitions) == 2
    assert site.accounting is True


def test_the_accounting_is_asked_of_this_cluster_and_its_first_answer_counts(on_path: Bin, tmp_path: Path) -> None:
    on_path("scontrol", ANSWER)
    on_path(
        "sacctmgr",
        f"""echo "$*" >>{tmp_path}/asked
case "$*" in *assoc*DefaultAccount) printf 'lab\nlab\n' ;; *"show assoc"*) echo "lab||normal||||" ;; esac""",
    )
    site = ask_site()
    assert (site.default_account, [one.account for one in site.associations]) == ("lab", ["lab"])
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [("cluster=xgen-dev" in line) for line in asked] == [True, True, False]  # QOS are those of all clusters
    assert site.groups


def test_an_answer_that_cannot_be_read_is_no_answer(on_path: Bin) -> None:
    on_path("scontrol", ANSWER)
    on_path("sacctmgr", 'case "$*" in *"show assoc"*) echo "lab||normal||soon||" ;; esac')
    site = ask_site()
    assert (site.associations, [one.partition(":")[0] for one in site.unanswered]) == ((), ["associations"])


def test_without_a_controller_there_is_no_site(on_path: Bin) -> None:
    on_path("scontrol", 'echo "slurm_load_ctl_conf error: Unable to contact slurm controller" >&2; exit 1')
    with pytest.raises(SchedulerError, match="Unable to contact"):
        ask_site()
