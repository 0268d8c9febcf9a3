"""What `xgen exporter` serves of a cluster is what is promised to the dashboards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.metrics.fake_slurm import FakeSlurm, read_page, slurm
from tests.metrics.fleet_runs import root
from tests.metrics.test_gpus_allocated import allocated
from tests.metrics.test_gpus_nvml import driver, library, polls
from tests.monitoring.known import promised
from xgen.metrics.exporter import Exporter
from xgen.metrics.slurm import collectors

__all__ = ["driver", "library", "root", "slurm"]


def test_what_is_promised_of_slurm_is_exported_with_these_labels(slurm: FakeSlurm) -> None:
    exporter = Exporter(collectors(["gpu"]), "1.2.3", log=pytest.fail)
    for poller in exporter.pollers.values():
        poller.poll()
    exported: dict[str, set[str]] = {}
    for name, pairs in read_page(exporter.page().decode()):
        exported.setdefault(name, set()).update(key for key, _ in pairs)
    of_slurm = {n: of for n, of in promised().items() if n.startswith(("slurm_", "xgen_slurm_", "xgen_exporter_"))}
    assert {name for name in of_slurm if name not in exported} == set()
    for name, labels in of_slurm.items():
        assert exported[name] == labels - {"job", "instance"}, name


def test_what_is_promised_of_gpus_is_exported(slurm: FakeSlurm, root: Path, driver: Path) -> None:
    [info] = allocated(slurm, root).poll()
    assert {frozenset(sample.labels) for sample in info.samples} == {promised()[info.name] - {"job", "instance"}}
    [nvml] = polls(driver)
    assert {name for name in promised() if name.startswith("DCGM_")} <= nvml.keys()
