"""What SLURM's commands print, in every shape that its versions have, read as the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.fake_slurm import OUTPUTS
from xgen.cluster import values
from xgen.metrics.exporter import CollectorError
from xgen.metrics.slurm import json_rows
from xgen.metrics.slurm.rows import EndedRow, JobRow, NodeRow, ShareRow, columns, parse, wide_columns

JOBS = parse(JobRow, (OUTPUTS / "22.05.8_squeue_rows_as-our-dev-slurm-prints.txt").read_text(), "squeue")
NODES = parse(NodeRow, (OUTPUTS / "24.11.7_sinfo_rows_as-captured-by-sckyzo-exporter.txt").read_text(), "sinfo")


def shapes(command: str) -> list[Path]:
    found = sorted(OUTPUTS.glob(f"*_{command}_*.json"))
    assert len(found) == 4
    return found


def in_pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[start : start + size] for start in range(0, len(text), size))


def test_the_format_of_each_command_is_that_of_its_row() -> None:
    assert wide_columns(JobRow) == (
        "JobArrayID:|,UserName:|,Account:|,Partition:|,State:|,NumCPUs:|,EligibleTime:|,tres-alloc:|,Reason:"
    )
    assert wide_columns(NodeRow) == (
        "NodeList:|,PartitionName:|,StateLong:|,CPUsState:|,AllocMem:|,Memory:|,Gres:|,GresUsed:|,features_act:|,"
        "TimeStamp:|,Reason:"
    )
    assert columns(ShareRow) == "Account,User,RawShares,NormShares,RawUsage,NormUsage,FairShare,LevelFS"
    assert columns(EndedRow) == "JobIDRaw,State,Partition,End"


def test_rows_of_squeue() -> None:
    assert JOBS[0] == JobRow("101", "alice", "ml", ("gpu",), "RUNNING", 16, 1795687000.0, 8, "None")
    assert JOBS[1].partitions == ("gpu", "preempt")
    assert [(job.job, job.num_jobs) for job in JOBS if "_" in job.job] == [("103_[4-8:2,9%2]", 4), ("103_3", 1)]
    # Which nodes a job waits for is no label's value, and free text is cut.
    assert [job.reason for job in JOBS if job.user == "bob"] == [
        "Resources", "launch_failed_requeued_held", "ReqNodeNotAvail",
    ]  # fmt: skip


def test_rows_of_sinfo() -> None:
    n1, n1_again, _, _, n3, *_ = NODES
    assert (n1.partition, n1_again.partition) == ("gpu", "preempt")
    assert (n1.cpus, n1.gres, n1.gres_used) == ((16, 48, 0, 64), {"gpu:h100": 8}, {"gpu:h100": 4})
    # The separator in a free text is text.
    assert (n3.reason, n3.reason_time) == ("XID 79 | row remap, asked for by ops", 1795679800.0)
    assert NODES[-2].gres == {"gpu:a100": 2, "gpu:t4": 2, "shard:t4": 8}


@pytest.mark.parametrize("file", shapes("squeue"), ids=lambda file: file.name[:8])
@pytest.mark.parametrize("size", [1, 100, 1 << 16])
def test_jobs_are_the_same_in_json_of_every_version_however_it_comes(file: Path, size: int) -> None:
    assert list(json_rows.jobs(in_pieces(file.read_bytes(), size))) == JOBS


@pytest.mark.parametrize("file", shapes("sinfo"), ids=lambda file: file.name[:8])
@pytest.mark.parametrize("size", [7, 1 << 16])
def test_nodes_are_the_same_in_json_of_every_version_however_it_comes(file: Path, size: int) -> None:
    assert list(json_rows.nodes(in_pieces(file.read_bytes(), size))) == NODES


@pytest.mark.parametrize("file", shapes("squeue"), ids=lambda file: file.name[:8])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_json_that_is_cut_anywhere_is_no_answer(file: Path, data: st.DataObject) -> None:
    text = file.read_bytes().rstrip()
    end = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(CollectorError) as caught:
        list(json_rows.jobs(in_pieces(text[:end], 1 << 16)))
    assert caught.value.reason == "malformed"


def test_json_that_tells_of_an_error_is_no_answer() -> None:
    text = b'{"jobs": [], "errors": [{"error": "Unable to contact slurm controller"}]}'
    with pytest.raises(CollectorError, match="Unable to contact slurm controller"):
        list(json_rows.jobs([text]))


def test_json_without_an_end_is_given_up_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_MAX_OBJECT", 1000)
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b'"jobs": [' * 20

    with pytest.raises(CollectorError, match="without a whole job"):
        list(json_rows.jobs(endless()))
    assert read < 10


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("102|bob|ml|gpu|PENDING|8|17956", "ends in the middle of a line"),
        ("102|bob|ml\n", "3 columns instead of 9"),
        ("slurm is having a bad day\n", "1 columns instead of 9"),
        ("102|bob|ml|gpu|PENDING|eight|1795687000|cpu=8|None\n", "eight"),
        ("102|bob|ml|gpu|PENDING|8|soon|cpu=8|None\n", "soon"),
        ("\x00\xff\x00\n", "columns"),
    ],
    ids=["cut", "half a row", "a message", "no number", "no time", "garbage"],
)
def test_a_table_that_is_not_understood_is_no_answer(text: str, why: str) -> None:
    with pytest.raises(CollectorError, match=why) as caught:
        parse(JobRow, text, "squeue")
    assert caught.value.reason == "malformed"


def test_a_reason_of_two_lines_loses_its_second() -> None:
    first = "n1|gpu|down|0/0/4/4|0|16|(null)|(null)|(null)|Unknown|see\n"
    rows = parse(NodeRow, first + "the ticket\n" + first.replace("n1", "n2"), "sinfo")
    assert [(row.node, row.reason) for row in rows] == [("n1", "see"), ("n2", "see")]


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("gpu:2", {"gpu": 2}),
        ("gpu:(null):3(IDX:0-7)", {"gpu": 3}),
        ("gpu:A30:4(IDX:0,3),gpu:Q6K:40(S:0-1)", {"gpu:A30": 4, "gpu:Q6K": 40}),
        ("gpu:nvidia_a100_1g.5gb:21(S:0-1),mps:20", {"gpu:nvidia_a100_1g.5gb": 21, "mps": 20}),
        ("tmpsize:7T,gpu:l40s:1(IDX:0)", {"tmpsize": 7 << 40, "gpu:l40s": 1}),
        ("bandwidth:lustre:no_consume:4G", {"bandwidth:lustre": 4 << 30}),
        ("(null)", {}), ("N/A", {}), ("gpu", {}), ("gpu:h10", {}),
    ],
)  # fmt: skip
def test_generic_resources(text: str, amounts: dict[str, int]) -> None:
    assert values.gres(text) == amounts


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("cpu=8,mem=64G,node=1,billing=8,gres/gpu=4,gres/gpu:h100=4", 4),
        ("cpu=8,gres/gpu:a100=2,gres/gpu:h100=1", 3),
        ("cpu=8,mem=1G,gres/shard=3", 0),
        ("N/A", 0), ("", 0),
    ],
)  # fmt: skip
def test_gpus_of_a_job(text: str, gpus: int) -> None:
    assert values.tres_gpus(text) == gpus


@pytest.mark.parametrize(
    ("job", "number"), [("12", 1), ("12_3", 1), ("12+1", 1), ("12_[0-999%10]", 1000), ("12_[1,3-9:3]", 4)]
)
def test_jobs_behind_a_line(job: str, number: int) -> None:
    assert values.num_tasks(job) == number


@pytest.mark.parametrize(
    ("base", "flags", "state"),
    [
        ("IDLE", set(), "idle"), ("IDLE", {"DRAIN"}, "drained"), ("MIXED", {"DRAIN"}, "draining"),
        ("ALLOCATED", {"DRAIN", "NOT_RESPONDING"}, "draining*"), ("DOWN", {"NOT_RESPONDING"}, "down*"),
        ("IDLE", {"COMPLETING"}, "completing"), ("IDLE", {"MAINTENANCE"}, "maint"), ("MIXED", {"PLANNED"}, "mixed"),
        ("IDLE", {"PLANNED"}, "planned"), ("IDLE", {"FAIL"}, "fail"), ("DOWN", {"INVALID_REG"}, "inval"),
        ("IDLE", {"RESERVED"}, "reserved"), ("UNKNOWN", set(), "unknown"),
    ],
)  # fmt: skip
def test_the_state_that_sinfo_would_print(base: str, flags: set[str], state: str) -> None:
    assert values.node_state(base, flags) == state


def test_times() -> None:
    assert values.time("1795687000") == 1795687000.0
    assert values.time("2026-11-26T10:16:40") is not None  # a version that does not heed SLURM_TIME_FORMAT
    assert values.time("N/A") is None
    assert values.time("0") is None
