"""A job that hangs under the contract: written down, killed, and tried again."""

from __future__ import annotations

import sys

from tests.cluster_unit.conftest import Bench, events, exit_code, reason, status, tell
from tests.conftest import ROOT, xgen

WORK = ROOT / "tests/cluster/work/hangs.py"


def test_a_command_that_says_nothing_for_its_limit_is_ended_and_tried_again(bench: Bench) -> None:
    run = bench.submit([sys.executable, str(WORK)], hang={"limit": "12s"}, restart={"max_failures": 2})
    assert exit_code(run) == 0, tell(run)
    assert (status(run, 1), status(run, 2)) == ("crashed", "finished")
    assert ": hung: no sign of progress for " in reason(run, 1)
    (hang,) = events(run, "hang")
    assert (hang.attempt, hang.step) == (1, None)
    folder = run.attempt_dir(1) / "hang"
    line = next(n for n, text in enumerate(WORK.read_text().splitlines(), 1) if "# the planted line" in text)
    assert f"planted (tests/cluster/work/hangs.py:{line})" in (folder / "rank-1.txt").read_text().replace(str(ROOT), "")
    assert sorted(file.name for file in folder.iterdir()) == [
        "decided", "declared", "rank-0.txt", "rank-1.txt", "summary.txt",
    ]  # fmt: skip
    said = xgen("show", run.name, "--cluster", str(bench.path / "local.yaml"))
    assert "attempt 1 hung: attempts/0001/hang/summary.txt says where each rank stood" in " ".join(said.stdout.split())
    assert not (run.attempt_dir(2) / "hang").exists()
