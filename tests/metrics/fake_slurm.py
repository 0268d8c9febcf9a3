"""SLURM's commands as small scripts on PATH: they print what they are told to, hang, or fail as the real ones do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

OUTPUTS = Path(__file__).with_name("slurm_outputs")
DOWN = 'echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1'  # what they say
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def printing(name: str) -> str:
    return f"cat {OUTPUTS / name}"


# A cluster that answers: one script a command.
ANSWERS = {
    "squeue": printing("22.05.8_squeue_rows_as-our-dev-slurm-prints.txt"),
    "sinfo": f'[ "$1" = --version ] && echo "slurm 22.05.8" || '
    f"{printing('24.11.7_sinfo_rows_as-captured-by-sckyzo-exporter.txt')}",
    "scontrol": '[ "$1" = ping ] && echo "Slurmctld(primary) at ctl is UP" || '
    + printing("22.05.8_scontrol_show-job_as-our-dev-slurm-prints.txt"),
    "sdiag": printing("24.11.7_sdiag_as-captured-by-sckyzo-exporter.txt"),
    "sshare": printing("22.05.8_sshare_rows_as-our-dev-slurm-prints.txt"),
    "sacct": "true",
}


class FakeSlurm:
    """Scripts in a folder that is the first on PATH. Every call appends its arguments to `calls`."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.calls = folder / "bin", folder / "calls"
        self.bin.mkdir()
        self.calls.touch()
        for command, script in ANSWERS.items():
            self.say(command, script)

    def say(self, command: str, script: str) -> None:
        new = self.bin / f".{command}"
        new.write_text(f'#!/bin/sh\necho "{command} $*" >>{self.calls}\n{script}\n')
        new.chmod(0o755)
        new.rename(self.bin / command)  # a script that is being read stays whole

    def remove(self, command: str) -> None:
        (self.bin / command).unlink()

    def count(self, command: str) -> int:
        return sum(line.split()[0] == command for line in self.calls.read_text().splitlines())


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    return fake


def read_page(text: str) -> Series:
    """Every series of an exposition; a series that is there twice is an error, as it is for Prometheus."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, tuple(sorted(labels.items()))))


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
