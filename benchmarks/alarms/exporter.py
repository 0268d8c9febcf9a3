"""`xgen exporter`, whose collectors ask FACTOR times as often: python -m benchmarks.alarms.exporter --cluster FILE."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.alarms import FACTOR
from xgen.cli.main import main
from xgen.metrics import exporter
from xgen.metrics.exporter import Collector

_LEAST = 3.0  # seconds that a command may take: the machine is no faster


class _Exporter(exporter.Exporter):
    def __init__(self, collectors: Sequence[Collector], *more: Any) -> None:
        for collector in collectors:
            collector.interval /= FACTOR
            collector.timeout = max(_LEAST, collector.timeout / FACTOR)
        super().__init__(collectors, *more)


if __name__ == "__main__":
    exporter.Exporter = _Exporter  # type: ignore[assignment, misc]
    sys.argv.insert(1, "exporter")
    main()
