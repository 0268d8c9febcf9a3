"""Ranks that hang and outlive SIGKILL: the host goes on without srun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster_unit.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_srun_is_killed_once_the_watchdogs_have_decided_and_nothing_ends(host: Host) -> None:
    script = (
        'mkdir -p "$ATTEMPT_DIR"; sleep 60 & tasks=$!; HANG_GRACE=0\n'
        'end_hung; kill -0 "$tasks" && echo left alone\n'
        'mkdir "$ATTEMPT_DIR/hang"; touch "$ATTEMPT_DIR/hang/decided"; end_hung; wait "$tasks"; echo $?\n'
        'sleep 60 & tasks=$!; HANG_GRACE=60; end_hung; kill -0 "$tasks" && echo in its grace; kill "$tasks"\n'
    )
    done = host.bash(script)
    assert done.stdout == "left alone\n137\nin its grace\n"
