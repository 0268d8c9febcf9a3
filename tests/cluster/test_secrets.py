"""A secret reaches the work, and is found nowhere else: on no disk that a job touches, nor in the process table."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import RUNTIMES, Cluster, wait_for_event, wait_until
from tests.conftest import ROOT
from xgen.runs import RunDir

pytestmark = pytest.mark.cluster
# Anew in each session: SLURM's database keeps what an older one may have left.
MARK = secrets.token_hex(8)
NEEDLE = MARK.encode()
VALUES = {"FROM_ENV": f"{MARK} it's, 'two'", "FROM_FILE": f"{MARK}-2", "FROM_COMMAND": f"{MARK}-3\nline"}
# SLURM's spool, state and database, Docker's and Podman's storage and state, what tasks may leave.
PLACES = [
    "/var/lib/xgen-dev-slurm",
    "/var/lib/containers",
    "/run/containers",
    "/run/crun",
    "/tmp/xgen-home-0",
    "/tmp/xgen-0",
]
SPEC = {
    "kind": "command",
    "name": "secretive",
    "command": ["python3", "tests/cluster/work/secretive.py"],
    "resources": {"partition": "preempt", "nodes": 1, "gpus_per_node": 1, "memory": "500MB", "time": "5m"},
    "lead": "30s",
    "container": {"image": "xgen-cpu"},
}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A spec beside its secrets, as a person has them: in the environment, in a file, in a password manager."""
    vault = tmp_path / "vault"
    vault.mkdir(mode=0o700)
    monkeypatch.setenv("MY_TOKEN", VALUES["FROM_ENV"])
    (vault / "file").write_text(VALUES["FROM_FILE"] + "\n")
    (vault / "file").chmod(0o600)
    (vault / "pass").write_text(VALUES["FROM_COMMAND"])
    given = {
        "FROM_ENV": {"env": "MY_TOKEN"},
        "FROM_FILE": {"file": str(vault / "file")},
        "FROM_COMMAND": {"command": ["cat", str(vault / "pass")]},
    }
    spec = ROOT / ".cache" / f"secretive-{os.getpid()}.yaml"  # in the checkout: its code is what runs
    spec.write_text(yaml.safe_dump(SPEC | {"secrets": given}))
    yield spec
    spec.unlink()


def holders(*places: Path | str) -> list[str]:
    """Files below the places that hold a secret."""
    there = [str(place) for place in places if Path(place).exists()]
    command = [
        "grep",
        "--recursive",
        "--files-with-matches",
        "--devices=skip",
        "--binary-files=text",
        "--fixed-strings",
    ]
    done = subprocess.run([*command, "--file=-", *there], input=NEEDLE, capture_output=True, timeout=120, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    return done.stdout.decode().splitlines()


def processes() -> list[str]:
    """Processes with a secret in their command line or their environment, but for this test and the work itself."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = ((folder / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if int(folder.name) == os.getpid() or b"secretive.py" in command:
            continue
        if NEEDLE in command or NEEDLE in environment:
            found.append(command.decode(errors="replace"))
    return found


def test_a_secret_is_in_the_work_and_nowhere_else(boxed: Cluster, sources: Path) -> None:
    runs = {runtime: boxed.submit(sources, runtime=runtime) for runtime in RUNTIMES}
    expected = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in VALUES.items()}

    def checksums(run: RunDir, attempt: int) -> object:
        file = run.path / f"sums.0.{attempt}.json"
        return json.loads(file.read_text()) if file.exists() else None

    for runtime, run in runs.items():
        wait_until(lambda r=run: checksums(r, 1), 60, f"the work under {runtime}")
        assert checksums(run, 1) == expected, runtime
        assert (run.path / ".secrets").stat().st_mode & 0o777 == 0o600
    assert holders(boxed.run_root, *PLACES) == []
    assert processes() == []

    boxed.preempt()  # the next attempt gets them too
    for runtime, run in runs.items():
        wait_until(lambda r=run: checksums(r, 2), 90, f"the second attempt under {runtime}")
        assert checksums(run, 2) == expected, runtime
    accounting = [
        subprocess.run(["sacct", "--duplicates", "-j", job, what], capture_output=True, timeout=60, check=True).stdout
        for run in runs.values()
        for job in [wait_for_event(run, "requeued").job_id]
        for what in ("--batch-script", "--env-vars")
    ]
    assert any(b"XGEN_SECRETS_KEY=" in text for text in accounting)  # the key is there, and alone it opens nothing
    assert all(NEEDLE not in text for text in accounting)
    shown = subprocess.run(["scontrol", "show", "job"], capture_output=True, timeout=60, check=True).stdout
    assert NEEDLE not in shown
    assert b"XGEN_SECRETS_KEY" not in shown

    for run in runs.values():
        (run.path / "go").touch()
    for run in runs.values():
        wait_for_event(run, "finished", timeout=60)
        assert not (run.path / ".secrets").exists()
    assert holders(boxed.run_root, *PLACES) == []
    assert processes() == []


def test_the_search_would_find_one(tmp_path: Path) -> None:
    (tmp_path / "leak").write_bytes(b"\0\1" + NEEDLE + b"\0")
    assert holders(tmp_path) == [str(tmp_path / "leak")]
    with subprocess.Popen(["sleep", "30"], env={"LEAK": NEEDLE.decode()}) as sleeper:
        try:
            # Within execve the kernel shows the new environment before the new command line.
            wait_until(lambda: processes() == ["sleep\x0030\x00"], 10, "the process with the planted secret")
        finally:
            sleeper.kill()


def test_a_cancelled_run_that_is_resumed_asks_for_its_secrets_again(
    boxed: Cluster, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = boxed.submit(sources, runtime="none")
    wait_until((run.path / "sums.0.1.json").exists, 60, "the work")
    assert boxed.xgen("cancel", run.name).returncode == 0
    wait_until(lambda: boxed.status(run)["state"] == "cancelled", 60, "the job's end")
    assert not (run.path / ".secrets").exists()
    monkeypatch.delenv("MY_TOKEN")
    refused = boxed.xgen("resume", run.name)
    assert (refused.returncode, refused.stderr) == (
        2,
        "secrets.FROM_ENV.env: MY_TOKEN is not set here; write export MY_TOKEN=… first\n",
    )
    assert run.cancelled_file.exists()  # still
    monkeypatch.setenv("MY_TOKEN", VALUES["FROM_ENV"])
    assert boxed.xgen("resume", run.name).returncode == 0
    wait_until((run.path / "sums.0.2.json").exists, 60, "the work again")
    (run.path / "go").touch()
    wait_for_event(run, "finished", timeout=60)
