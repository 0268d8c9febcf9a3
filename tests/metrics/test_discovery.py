"""The file by which Prometheus finds a run: whole or not there, and removed in order."""

from __future__ import annotations

import fnmatch
import json
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from xgen.metrics import remove_target, write_target
from xgen.runs import RunDir


def announce(file: Path, attempt: int = 1, address: str = "127.0.0.1") -> None:
    write_target(file, address=address, port=4711, run="tiny-k3f9ab", attempt=attempt, job_id="7")


def target(file: Path) -> tuple[str, dict[str, str]]:
    [entry] = json.loads(file.read_text())
    [host_port] = entry["targets"]
    return host_port, entry["labels"]


def test_target_carries_what_a_team_filters_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_USER", "ada")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "preempt")
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    run = RunDir(tmp_path / "tiny-k3f9ab")
    announce(run.discovery_file, attempt=2)
    assert run.discovery_file == tmp_path / ".discovery" / "tiny-k3f9ab.json"
    assert target(run.discovery_file) == (
        "127.0.0.1:4711",
        {"run": run.name, "attempt": "2", "job_id": "7", "user": "ada", "partition": "preempt", "node": "n3"},
    )


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", "10.1.2.3:4711"),
        ("fd00::1", "[fd00::1]:4711"),
        ("0.0.0.0", f"{socket.gethostname()}:4711"),
        ("::", f"{socket.gethostname()}:4711"),
    ],
)
def test_an_exporter_on_all_addresses_is_announced_by_the_name_of_its_node(
    tmp_path: Path, address: str, expected: str
) -> None:
    announce(tmp_path / ".discovery" / "r.json", address=address)
    assert target(tmp_path / ".discovery" / "r.json")[0] == expected


def test_a_reader_never_sees_a_part_of_it_and_prometheus_no_other_file(tmp_path: Path) -> None:
    file = tmp_path / ".discovery" / "r.json"
    announce(file)
    seen: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(target(file)[1]["attempt"])
            others = [p.name for p in file.parent.iterdir() if p != file]
            assert not fnmatch.filter(others, "*.json")

    reader = threading.Thread(target=read)
    reader.start()
    for attempt in range(1, 200):
        announce(file, attempt=attempt)
    done.set()
    reader.join(timeout=10)
    assert seen == sorted(seen, key=int)
    assert len(set(seen)) > 1


def test_removing_it_twice_is_fine(tmp_path: Path) -> None:
    file = tmp_path / ".discovery" / "r.json"
    announce(file)
    remove_target(file)
    remove_target(file)
    assert not list(file.parent.iterdir())


def test_whoever_may_make_a_run_may_announce_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    before = os.umask(0o077)
    try:
        announce(tmp_path / ".discovery" / "r.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / ".discovery").stat().st_mode) == 0o2770


def test_a_folder_that_cannot_be_written_costs_the_view_and_not_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".discovery").write_text("a file where a folder should be")
    announce(tmp_path / ".discovery" / "r.json")
    assert "Prometheus will not find this run" in capsys.readouterr().err
