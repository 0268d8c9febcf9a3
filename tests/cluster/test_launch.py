"""A job that its node could not start: SLURM requeues it and holds it for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, wait_for_event, wait_until
from xgen.cluster.slurm import queue
from xgen.runs import read_events

pytestmark = pytest.mark.cluster
_SPOOLS = [Path(f"/var/lib/xgen-dev-slurm/spool-n{number}") for number in (1, 2, 3, 4)]


@pytest.fixture
def mend() -> Iterator[Callable[[], None]]:
    """No node can start a job until this is called."""
    for spool in _SPOOLS:
        spool.rename(spool.with_suffix(".away"))
        spool.touch()

    def mended() -> None:
        for spool in _SPOOLS:
            if not spool.is_dir():
                spool.unlink()
                spool.with_suffix(".away").rename(spool)

    yield mended
    mended()


def test_whoever_looks_lets_it_go_again_but_not_for_ever(cluster: Cluster, mend: Callable[[], None]) -> None:
    run = cluster.submit("jobs/tiny/hello.yaml", "restart.max_failures=1", "resources.partition=preempt")

    def is_held() -> bool:
        """Asked of SLURM: whoever asks xgen settles."""
        return any(row.name == run.name and "launch failed requeued held" in row.reason for row in queue())

    wait_until(is_held, 60, "SLURM holds it")
    said = cluster.xgen("status", run.name)
    assert "could not be started by its node, and SLURM holds job" in said.stderr
    assert "; it is released" in said.stderr
    wait_until(is_held, 60, "SLURM holds it again")
    said = cluster.xgen("status", run.name)
    assert "that was so 1 times in a row" in said.stderr
    mend()
    assert cluster.xgen("release", run.name).returncode == 0
    wait_for_event(run, "finished")
    assert [event.action for event in read_events(run) if event.event == "settled"] == ["xgen status"]
