"""docs/monitoring.md names what the exporter exports, with its type and labels, and nothing that it does not."""

from __future__ import annotations

from tests.metrics.documented import documented
from tests.metrics.fake_slurm import FakeSlurm, slurm
from xgen.metrics.exporter import Exporter, Targets
from xgen.metrics.slurm import collectors

__all__ = ["slurm"]


def test_every_metric_is_documented_with_type_and_labels(slurm: FakeSlurm) -> None:
    exporter = Exporter([Targets(slurm.bin / "none"), *collectors(["gpu"])], "1.2.3")
    for poller in exporter.pollers.values():
        poller.poll()
    kinds: dict[str, str] = {}
    labels: dict[str, frozenset[str]] = {}
    for line in exporter.page().decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kinds[name] = line.split()
        elif not line.startswith("#"):
            name, brace, rest = line.partition("{")
            words = rest.rpartition("}")[0].split('",') if brace else []
            labels[name.split(" ")[0]] = frozenset(word.partition("=")[0] for word in words)
    ours = {name: of for name, of in documented().items() if not name.startswith("xgen_train_")}
    assert {name: of.kind for name, of in ours.items() if name in kinds} == kinds
    assert {name: of.labels for name, of in ours.items() if name in labels} == labels
    prefixes = ("slurm_", "xgen_slurm_", "xgen_exporter_")
    assert [name for name in ours if name.startswith(prefixes) and name not in kinds] == []
