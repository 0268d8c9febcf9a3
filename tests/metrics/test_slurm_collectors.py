"""What is exported of a cluster: the numbers, and the names by which published dashboards ask for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.metrics.fake_slurm import OUTPUTS, FakeSlurm, Series, printing, read_page, slurm, value
from xgen.metrics.exporter import Collector, CollectorError, Exporter
from xgen.metrics.exporter.page import render
from xgen.metrics.slurm import Controller, Ended, Nodes, Queue, Scheduler, Shares, collectors

__all__ = ["slurm"]


def polled(collector: Collector) -> Series:
    return read_page(render(collector.poll()).text.decode())


def page(collectors: Sequence[Collector]) -> str:
    exporter = Exporter(collectors, "1.2.3", log=pytest.fail)
    for poller in exporter.pollers.values():
        poller.poll()
    return exporter.page().decode()


def test_names_and_labels_are_those_of_the_exporters_in_use(slurm: FakeSlurm) -> None:
    published = {}
    for line in (OUTPUTS / "sckyzo-1.9_metric-surface.txt").read_text().split():
        name, _, labels = line.rstrip("}").partition("{")
        published[name] = tuple(sorted(filter(None, labels.split(","))))
    ours = read_page(page(collectors(["gpu"])))
    labels = {name: tuple(key for key, _ in of) for name, of in ours if name.startswith("slurm_")}
    assert {name: of for name, of in labels.items() if published.get(name) != of} == {}
    families = {line.split()[2] for line in page(collectors([])).splitlines() if line.startswith("# TYPE slurm_")}
    assert families == set(published)


def test_the_queue(slurm: FakeSlurm) -> None:
    series = polled(Queue(["gpu", "preempt", "cpu"]))
    # In each partition that a job waits in, and once in the total; an array counts its tasks.
    assert value(series, "slurm_queue_pending", user="bob", partition="gpu", reason="Resources") == 1
    assert value(series, "slurm_queue_pending", user="bob", partition="preempt", reason="Resources") == 1
    assert value(series, "slurm_queue_pending", user="carol", partition="preempt", reason="Priority") == 4
    assert value(series, "slurm_jobs_pending") == 7
    assert value(series, "slurm_jobs_cores_pending") == 8 + 4 * 2 + 1 + 1
    assert value(series, "slurm_cores_running", user="alice", partition="gpu") == 16
    assert value(series, "slurm_queue_completing", user="alice", partition="gpu") == 1
    assert value(series, "slurm_jobs_failed") == 1
    assert value(series, "slurm_jobs_suspended") == 0
    assert value(series, "slurm_user_gpus_running", user="alice") == 8
    assert value(series, "slurm_account_jobs_pending", account="physics") == 4
    assert value(series, "slurm_account_cpus_running", account="physics") == 2
    pending = {p: value(series, "slurm_partition_jobs_pending", partition=p) for p in ("gpu", "preempt", "cpu")}
    assert pending == {"gpu": 1, "preempt": 7, "cpu": 0}
    assert value(series, "xgen_slurm_pending_jobs", partition="preempt", reason="ReqNodeNotAvail") == 1


def test_who_waits_by_choice_does_not_make_the_queue_stuck(slurm: FakeSlurm) -> None:
    now = int(time.time())
    rows = (
        f"1|a|x|gpu|PENDING|1|{now - 9000}|cpu=1|JobHeldUser\n"
        f"2|a|x|gpu|PENDING|1|{now - 8000}|cpu=1|Dependency\n"
        f"3|a|x|gpu|PENDING|1|{now - 7000}|cpu=1|AssocGrpGRES\n"
        f"4|a|x|gpu|PENDING|1|{now - 600}|cpu=1|Resources\n"
        f"5|a|x|cpu|PENDING|1|{now - 500}|cpu=1|QOSMaxCpuPerUserLimit\n"
        f"6|a|x|cpu|PENDING|1|{now - 500}|cpu=1|MaxGRESPerAccount\n"
        f"7|a|x|cpu|PENDING|1|{now - 500}|cpu=1|Licenses\n"
        f"8|a|x|cpu|PENDING|1|{now - 500}|cpu=1|Reservation\n"
        f"9|a|x|cpu|PENDING|1|{now - 500}|cpu=1|AccountingPolicy\n"
        f"10|a|x|fault|PENDING|1|{now - 500}|cpu=1|PartitionTimeLimit\n"
    )
    slurm.say("squeue", f"cat <<'E'\n{rows}E")
    series = polled(Queue())
    oldest = value(series, "xgen_slurm_queue_oldest_pending_seconds", partition="gpu")
    assert oldest == pytest.approx(600, abs=10)
    assert value(series, "xgen_slurm_queue_oldest_pending_seconds", partition="cpu") == 0
    fault = value(series, "xgen_slurm_queue_oldest_pending_seconds", partition="fault")
    assert fault == pytest.approx(500, abs=10)


def test_reasons_without_bound_become_one(slurm: FakeSlurm) -> None:
    rows = "".join(f"{n}|a|x|gpu|PENDING|1|N/A|cpu=1|made up {n}\n" for n in range(1, 301))
    slurm.say("squeue", f"cat <<'E'\n{rows}E")
    series = polled(Queue())
    reasons = {dict(labels)["reason"] for name, labels in series if name == "xgen_slurm_pending_jobs"}
    assert len(reasons) == 101
    assert value(series, "xgen_slurm_pending_jobs", partition="gpu", reason="other") == 200


def test_an_empty_queue_is_zeros_and_no_nodes_are_no_answer(slurm: FakeSlurm) -> None:
    slurm.say("squeue", "true")
    assert value(polled(Queue(["gpu"])), "slurm_partition_jobs_running", partition="gpu") == 0
    slurm.say("sinfo", "true")
    with pytest.raises(CollectorError, match="no nodes"):
        polled(Nodes())


def test_nodes_cpus_and_gpus(slurm: FakeSlurm) -> None:
    series = polled(Nodes())
    assert value(series, "slurm_nodes_total") == 6
    features = {"partition": "gpu", "active_feature_set": "h100,ib"}
    states = {s: value(series, f"slurm_nodes_{s}", **features) for s in ("mix", "alloc", "drain", "down", "idle")}
    assert states == {"mix": 1, "alloc": 1, "drain": 1, "down": 1, "idle": 0}
    assert value(series, "slurm_nodes_planned", partition="cpu", active_feature_set="null") == 1
    # Each node once, whatever its partitions; what a broken node has is neither allocated nor idle.
    cpus = {s: value(series, f"slurm_cpus_{s}") for s in ("alloc", "idle", "other", "total")}
    assert cpus == {"alloc": 82, "idle": 206, "other": 128, "total": 416}
    gpus = {s: value(series, f"slurm_gpus_{s}") for s in ("alloc", "idle", "other", "total")}
    assert gpus == {"alloc": 15, "idle": 5, "other": 16, "total": 36}
    assert value(series, "slurm_gpus_utilization") == pytest.approx(15 / 36)
    assert value(series, "slurm_partition_gpus_allocated", partition="preempt") == 12
    assert value(series, "slurm_partition_cpus_total", partition="preempt") == 192
    n4 = {"node": "n4", "status": "down*", "partition": "gpu"}
    assert value(series, "slurm_node_status", **n4) == 1
    n5 = {"node": "n5", "status": "mixed", "partition": "gpu"}
    assert value(series, "slurm_node_gres_used", **n5, gres_type="gpu:t4") == 1
    assert value(series, "slurm_node_mem_alloc", **n5) == 8192
    reason = "XID 79 | row remap, asked for by ops"
    assert value(series, "slurm_node_drain_reason_info", node="n3", reason=reason) == 1
    assert value(series, "slurm_node_drain_since_timestamp_seconds", node="n3") == 1795679800


def test_a_node_that_flaps_is_counted_and_one_that_works_is_not(slurm: FakeSlurm) -> None:
    nodes = Nodes()
    row = "{node}|gpu|{state}|0/4/0/4|0|16|gpu:8|gpu:0|(null)|Unknown|none\n"
    history = [
        ("idle", "idle"), ("down*", "mixed"), ("idle", "allocated"), ("drained", "idle~"), ("drained", "mixed-"),
        # slurmctld was restarted: it knows of no node until that answers, which is no word about the node
        ("unknown", "unknown*"), ("drained", "idle"),
    ]  # fmt: skip
    for broken, busy in history:
        rows = row.format(node="n1", state=broken) + row.format(node="n2", state=busy)
        slurm.say("sinfo", f"cat <<'E'\n{rows}E")
        series = polled(nodes)
    assert value(series, "xgen_slurm_node_state_changes_total", node="n1") == 3
    assert value(series, "xgen_slurm_node_state_changes_total", node="n2") == 0
    slurm.say("sinfo", f"cat <<'E'\n{row.format(node='n2', state='idle')}E")
    assert value(polled(nodes), "xgen_slurm_node_state_changes_total", node="n1") is None


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("22.05.8_sdiag_as-our-dev-slurm-prints.txt", {"threads": 3, "last_cycle": 10, "backfill_mean_cycle": 457}),
        (
            "24.11.7_sdiag_as-captured-by-sckyzo-exporter.txt",
            {
                "threads": 4, "queue_size": 2, "dbd_queue_size": 17, "last_cycle": 3508, "mean_cycle": 779,
                "cycle_per_minute": 5, "backfill_last_cycle": 120000, "backfill_mean_cycle": 110000,
                "backfill_depth_mean": 95, "backfilled_jobs_since_start_total": 420, "jobs_failed": 3,
            },
        ),
    ],
    ids=["22.05", "24.11"],
)  # fmt: skip
def test_the_scheduler(slurm: FakeSlurm, file: str, expected: dict[str, float]) -> None:
    slurm.say("sdiag", printing(file))
    series = polled(Scheduler())
    assert {name: value(series, f"slurm_scheduler_{name}") for name in expected} == expected
    assert value(series, "slurm_info", type="general", binary="", version="22.05.8") == 1


def test_rpcs_by_operation_and_user(slurm: FakeSlurm) -> None:
    series = polled(Scheduler())
    assert value(series, "slurm_rpc_stats", operation="REQUEST_JOB_INFO") == 9
    assert value(series, "slurm_rpc_stats_avg_time", operation="REQUEST_JOB_INFO") == 229
    assert value(series, "slurm_user_rpc_stats_total_time", user="alice") == 3157


@pytest.mark.parametrize(
    ("answer", "up"),
    [
        ("echo 'Slurmctld(primary) at ctl is UP'", 1),
        ("echo 'Slurmctld(primary) at a is DOWN'; echo 'Slurmctld(backup) at b is UP'", 1),
        ("echo 'Slurmctld(primary) at ctl is DOWN'; exit 1", 0),
        ("sleep 60", 0),
    ],
    ids=["up", "backup", "down", "hangs"],
)
def test_whether_the_controller_answers(slurm: FakeSlurm, answer: str, up: float) -> None:
    slurm.say("scontrol", answer)
    controller = Controller()
    controller.timeout = 0.5
    assert value(polled(controller), "xgen_slurm_controller_up") == up


def test_fairshare_of_who_has_one(slurm: FakeSlurm) -> None:
    series = polled(Shares())
    assert value(series, "slurm_user_fairshare", account="ml", user="alice") == 0.25
    assert value(series, "slurm_account_fairshare_raw_shares", account="ml") == 100
    # Fair Tree gives accounts no factor: absent, and not 0.
    assert value(series, "slurm_account_fairshare", account="ml") is None
    assert value(series, "xgen_slurm_account_level_fairshare", account="ml") == pytest.approx(2 / 3)
    assert value(series, "slurm_user_fairshare_raw_shares", account="ml", user="alice") is None  # parent


def test_a_user_with_two_associations_in_an_account_is_one_series(slurm: FakeSlurm) -> None:
    slurm.say("sshare", "printf ' ml|bob|1|0.5|0|0|0.4|1\\n ml|bob|1|0.5|0|0|0.4|1\\n'")
    polled(Shares())  # read_page refuses a series that is there twice


def test_an_end_counts_once_however_late_and_often_it_is_told(slurm: FakeSlurm) -> None:
    ended = Ended(["gpu"])
    now = int(time.time())  # as sacct tells it

    def told(*rows: str) -> Series:
        slurm.say("sacct", "printf '" + "".join(f"{row}\\n" for row in rows) + "'")
        return polled(ended)

    old = f"1|COMPLETED|gpu|{now - 60}"  # before the exporter was there
    first = told(old)
    assert value(first, "xgen_slurm_jobs_ended_total", state="completed", partition="gpu") == 0
    requeued, cancelled = f"2|PREEMPTED|gpu|{now + 1}", f"3|CANCELLED by 1000|gpu|{now + 1}"
    told(old, requeued, cancelled)
    series = told(requeued, cancelled, f"2|COMPLETED|gpu|{now + 2}", f"4|FAILED|new|{now}")
    totals = {
        labels: count for (name, labels), count in series.items() if name == "xgen_slurm_jobs_ended_total" and count
    }
    assert {(dict(of)["state"], dict(of)["partition"]): count for of, count in totals.items()} == {
        ("preempted", "gpu"): 1, ("cancelled", "gpu"): 1, ("completed", "gpu"): 1, ("failed", "new"): 1,
    }  # fmt: skip


def test_the_database_is_asked_for_what_it_did_not_tell_while_it_was_away(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, began = Ended(), time.time()
    polled(ended)
    slurm.say("sacct", "exit 1")
    monkeypatch.setattr(time, "time", lambda: began + 3600)
    with pytest.raises(CollectorError):
        polled(ended)
    slurm.say("sacct", "true")
    polled(ended)
    asked = [word for line in slurm.calls.read_text().splitlines() for word in line.split() if "starttime" in word]
    assert asked == ["--starttime=now-600seconds", "--starttime=now-4200seconds", "--starttime=now-4200seconds"]


@pytest.mark.parametrize(("kept", "is_fault"), [("accounting_storage/none", False), ("(null)", False), ("", True)])
def test_a_cluster_that_keeps_no_accounting_has_nothing_to_say_and_no_fault(
    slurm: FakeSlurm, kept: str, is_fault: bool
) -> None:
    for name in ("sacct", "sshare"):
        slurm.say(name, "echo Slurm accounting storage is disabled >&2; exit 1")
    slurm.say("scontrol", f"echo 'AccountingStorageType   = {kept or 'accounting_storage/slurmdbd'}'")
    for collector in (Shares(), Ended(["gpu"])):
        if is_fault:
            with pytest.raises(CollectorError, match="accounting storage is disabled"):
                list(collector.poll())
        else:
            assert [sample for family in collector.poll() for sample in family.samples] == []


@pytest.mark.parametrize("version", ["22.05.8", "23.02.5", "23.11.10", "24.11.7"])
def test_nothing_private_of_a_job_is_exported_and_json_says_what_rows_say(slurm: FakeSlurm, version: str) -> None:
    [jobs], [nodes] = (list(OUTPUTS.glob(f"{version}_{name}_*.json")) for name in ("squeue", "sinfo"))
    assert "hunter2" in jobs.read_text()
    rows = page([Queue(), Nodes()])
    slurm.say("squeue", printing(jobs.name))
    slurm.say("sinfo", printing(nodes.name))
    text = page([Queue(as_json=True), Nodes(as_json=True)])
    assert not [word for word in ("hunter2", "secret", "/home", "stage:broad", "asset") if word in text]
    ignored = ("xgen_exporter_", "slurm_exporter_", "xgen_slurm_queue_oldest_pending")

    def compared(text: str) -> set[str]:
        return {line for line in text.splitlines() if not line.startswith(("#", *ignored))}

    assert compared(text) == compared(rows)


def test_settings_of_a_person_do_not_change_what_is_asked(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SQUEUE_USERS", "alice")
    monkeypatch.setenv("SLURM_CLUSTERS", "other")
    monkeypatch.setenv("SLURM_CONF", "/etc/other.conf")
    slurm.say("squeue", f"env >{tmp_path}/env")
    polled(Queue())
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    slurms = {name: text for name, text in seen.items() if name.startswith(("SLURM", "SQUEUE"))}
    assert slurms == {"SLURM_CONF": "/etc/other.conf", "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
