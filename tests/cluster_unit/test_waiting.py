"""SLURM's reasons in words. The real ones of the dev SLURM: tests/cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.metrics.fake_slurm import FakeSlurm
from xgen.cluster.slurm import QueueRow
from xgen.cluster.waiting import REASONS, explain
from xgen.cluster.waiting_facts import facts


@pytest.mark.parametrize(
    ("reason", "meaning", "fix"),
    [
        ("(Priority)", "jobs of higher priority wait for the same nodes", "nothing"),
        ("Resources", "it is the next for its nodes, and they are busy", "nothing"),
        ("DependencyNeverSatisfied", "the job that it waits for has failed", "xgen resume"),
        ("PartitionTimeLimit", "its time is more than the partition allows", "write less resources.time"),
        ("QOSMaxGRESPerUser", "its QOS may have no more GPUs for one user", "nothing"),
        ("AssocGrpGRESMinutes", "its account or user may have no more GPU-minutes", "nothing"),
        ("AssocMaxNodePerJobLimit", "its account or user may have no more nodes in one job", "write less resources"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "nodes that it needs are down, drained, reserved or in another's use",
            "nothing, if they come back in time",
        ),
        ("Job's account not permitted to use this partition (a allows b not c)", "the account may not use", "write"),
        ("QOSMinGRES", "it asks for fewer GPUs than its QOS has to", "write more"),
        (
            "ReqNodeNotAvail, UnavailableNodes:n[1-2]",
            "nodes that it needs are down, drained, reserved or in another's use (n[1-2])",
            "nothing, if they come back in time",
        ),
        ("Whatever", "SLURM gives no other reason", "man squeue"),
    ],
)
def test_a_reason_is_told_with_what_to_do(reason: str, meaning: str, fix: str) -> None:
    said = explain(reason)
    assert said.meaning.startswith(meaning)
    assert said.fix.startswith(fix)


def test_the_page_of_the_reasons_has_all_of_them() -> None:
    page = (ROOT / "docs/why.md").read_text(encoding="utf-8").splitlines()
    rows = [f"| `{reason}` | {meaning} | {fix} |" for reason, meaning, fix in REASONS]
    assert [line for line in page if line in rows] == rows


@pytest.mark.parametrize(
    ("reason", "limit", "too_large"),
    [
        ("AssocGrpMemLimit", "GrpTRES=cpu=N(0),mem=65536(0)", True),  # MB
        ("AssocGrpMemLimit", "GrpTRES=cpu=N(0),mem=131072(0)", False),
        ("AssocGrpGRES", "GrpTRES=cpu=N(0),gres/gpu=4(0)", True),
        ("AssocGrpGRESMinutes", "GrpTRESMins=cpu=N(0),gres/gpu=4(0)", False),  # minutes, and the job has 8 GPUs
        ("AssocGrpGRESRunMinutes", "GrpTRESRunMins=cpu=N(0),gres/gpu=4(0)", False),
    ],
)
def test_a_job_that_is_too_large_for_a_limit_alone_is_known_by_the_limit_s_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, limit: str, too_large: bool
) -> None:
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    tres = "cpu=8,mem=128G,node=1,billing=8,gres/gpu=8"
    job = f"JobId=7 JobName=x UserId=ann(1000) Account=lab QOS=normal JobState=PENDING TimeLimit=01:00:00 TRES={tres}"
    (tmp_path / "job").write_text(f"{job}\n")
    (tmp_path / "assoc").write_text(
        f"ClusterName=c Account=lab UserName= Partition= Priority=0 ID=5\n    ParentAccount=(0) Lft=2\n    {limit}\n"
    )
    fake.say("scontrol", f'case "$2" in job) cat {tmp_path}/job ;; *) cat {tmp_path}/assoc ;; esac')
    found = facts(QueueRow("7", "x-abc234", "PENDING", reason, "gpu", "", "N/A", "0"))
    assert limit.partition("=")[0] in found.lines[-1]
    assert found.too_large is too_large


# Of the same table of the library, but no reasons for which a job waits.
_NO_REASONS = re.compile("Minutes|Unknown|BB|Energy|License(?!s)|Billing|Percent|Parameters|Plugin|MaxTasksPerNode")


def test_every_reason_that_slurm_has_is_known() -> None:
    """The names stand in SLURM's own library, one after the other."""
    library = next(Path("/usr/lib").glob("*/slurm-wlm/libslurmfull.so"), None)
    if library is None:
        pytest.skip("no SLURM here")
    words = re.findall(
        rb"\0((?:QOS|Assoc|Max|Partition|Job|Node|Dependency|Reservation|Invalid)[A-Za-z]+)(?=\0)", library.read_bytes()
    )
    reasons = {
        word for word in map(bytes.decode, words)
        if re.search("Limit$|Per[A-Z]|Grp|Down$|Held|Hold|Satisfied|^Invalid(QOS|Account)|^Dependency$", word)
        and not _NO_REASONS.search(word)
    }  # fmt: skip
    assert len(reasons) > 60
    assert {one for one in reasons if explain(one).meaning == "SLURM gives no other reason"} == set()
