"""`xgen exporter`, whose collectors ask FACTOR times as often: python -m benchmarks.alarms.exporter --cluster FILE."""

from __future__ import annotations

import argparse
from pathlib import Path

import xgen
from benchmarks.alarms import FACTOR
from xgen.cli.exporter import collectors_of, serve
from xgen.metrics.exporter import Exporter
from xgen.spec import find_profile, load_profile

_LEAST = 3.0  # seconds that a command may take: the machine is no faster


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alarms.exporter", description=__doc__)
    parser.add_argument("--cluster", metavar="FILE", required=True, help="cluster profile")
    name, file = find_profile(parser.parse_args().cluster, Path.cwd())
    profile = load_profile(file)
    targets, collectors = collectors_of(profile, name)
    for collector in collectors:
        collector.interval /= FACTOR
        collector.timeout = max(_LEAST, collector.timeout / FACTOR)
    serve(Exporter(collectors, xgen.__version__), targets, profile.metrics, name)


if __name__ == "__main__":
    main()
