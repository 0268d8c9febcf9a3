"""What `xgen doctor --prove-runtime` makes of what the ranks saw."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from xgen.cluster.doctor.prove import _VALUES, judge
from xgen.runs import RunDir
from xgen.spec import Profile

GOOD: dict[str, Any] = {
    "environment": _VALUES,
    "secret": hashlib.sha256(b"hush").hexdigest(),
    "node": "n1",
    "code_is_the_snapshot": True,
    "can_write_code": False,
    "can_write_run": True,
    "can_write_system": False,
    "home_is_writable": True,
    "shm_bytes": 2**34,
    "gpus": ["GPU 0: NVIDIA H100"],
    "infiniband": ["uverbs0"],
    "memlock": "unlimited",
    "met": 2,
}


def verdicts(tmp_path: Path, **second: Any) -> dict[str, str]:
    """Of two ranks, the second of which saw something else."""
    profile = Profile.model_validate(
        {
            "run_root": "/runs", "partitions": {"gpu": {}}, "gpus": {"request": "gres"},
            "container": {"runtime": "pyxis", "devices": ["/dev/infiniband"]},
        }
    )  # fmt: skip
    run = RunDir(tmp_path / "prove-pyxis-abc234")
    run.create()
    found = list(judge([GOOD, GOOD | second], "hush", profile, run, 0.0))
    assert all(bool(finding.fix) == (finding.severity != "ok") for finding in found)
    return {finding.what: finding.severity for finding in found}


def test_a_runtime_that_does_all_is_proven(tmp_path: Path) -> None:
    assert set(verdicts(tmp_path).values()) == {"ok"}


@pytest.mark.parametrize(
    ("seen", "what", "verdict"),
    [
        ({"environment": _VALUES | {"PROOF_WORDS": "it's"}}, "environment", "failed"),
        ({"environment": {}}, "environment", "failed"),
        ({"secret": hashlib.sha256(b"").hexdigest()}, "secret", "failed"),
        ({"code_is_the_snapshot": False}, "code", "failed"),
        ({"can_write_code": True}, "read-only code", "warning"),
        ({"can_write_system": True}, "read-only image", "warning"),
        ({"can_write_run": False}, "run directory", "failed"),
        ({"home_is_writable": False}, "home", "failed"),
        ({"met": 0}, "rendezvous", "failed"),
        ({"shm_bytes": 64 * 2**20}, "/dev/shm", "warning"),
        ({"gpus": []}, "GPUs", "failed"),
        ({"gpus": ["GPU 0", "GPU 1"]}, "GPUs", "failed"),
        ({"infiniband": []}, "InfiniBand", "failed"),
        ({"memlock": "65536"}, "InfiniBand", "failed"),
    ],
)
def test_one_rank_that_sees_otherwise_is_a_finding(
    tmp_path: Path, seen: dict[str, Any], what: str, verdict: str
) -> None:
    assert {w: v for w, v in verdicts(tmp_path, **seen).items() if v != "ok"} == {what: verdict}
