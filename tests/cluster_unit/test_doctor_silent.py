"""A run root whose file system does not answer, on a real mount that is stopped: said, and nobody waits for ever."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROVISIONED
from xgen.cluster.doctor.storage import judge_run_root, look_at_run_root


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A mounted file system, and the process that answers for it."""
    if not (shutil.which("squashfuse") and Path("/dev/fuse").exists()):
        assert not (PROVISIONED and Path("/dev/fuse").exists()), "squashfuse comes with slurm/packages.txt"
        pytest.skip("needs squashfuse and /dev/fuse")
    (tmp_path / "source/runs").mkdir(parents=True)
    place, image = tmp_path / "mount", tmp_path / "image"
    place.mkdir()
    subprocess.run(["mksquashfs", tmp_path / "source", image, "-quiet"], check=True, timeout=60, capture_output=True)
    server = subprocess.Popen(["squashfuse", "-f", image, place])
    try:
        deadline = time.monotonic() + 20
        while not (place / "runs").is_dir():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield place, server
    finally:
        server.send_signal(signal.SIGCONT)
        server.terminate()  # and it unmounts
        server.wait(20)


def test_a_run_root_that_does_not_answer_is_a_failure_in_the_time_that_it_had(
    mount: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    place, server = mount
    (refused,) = judge_run_root(look_at_run_root(place / "runs"), [])
    assert (refused.severity, "Read-only file system" in refused.evidence) == ("failed", True)

    server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    root = look_at_run_root(place / "runs", seconds=1)
    assert time.monotonic() - began < 20
    (found,) = judge_run_root(root, [])
    assert (root.hangs, found.severity, found.fix) == (True, "failed", "mount it anew here, or ask who runs its server")
    assert found.evidence == f"{place}/runs cannot be written: its file system did not answer within 1 s"
