"""The announced attempts of all runs, for Prometheus' http_sd: the same as the files of <run_root>/.discovery."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from xgen.metrics.exporter.collector import CollectorError, gauges

_Known = tuple[tuple[int, int, int], list[Any] | None]


class Targets:
    """Reads only the files that changed. `body` is the JSON list of the last good poll."""

    name = "targets"
    interval = 10.0
    timeout = 10.0

    def __init__(self, folder: Path) -> None:
        self.body = b"[]"
        self._folder = folder
        # By file name: what tells that it is another one, and what it says; None: it says nothing sensible.
        self._read: dict[str, _Known] = {}

    def poll(self) -> Iterable[Metric]:
        found: dict[str, _Known] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".json"):
                        self._look_at(entry, found)
        except FileNotFoundError:
            pass  # no run has announced itself yet
        except OSError as error:
            raise CollectorError("missing", f"{self._folder}: {error.strerror}") from None
        self._read = found
        entries_of = [entries for _, (_, entries) in sorted(found.items())]
        self.body = json.dumps([entry for entries in entries_of if entries is not None for entry in entries]).encode()
        unreadable = entries_of.count(None)
        yield gauges(
            "xgen_exporter_discovery_files",
            "Files by which attempts announce themselves; what is unreadable is left out of /sd.",
            ["state"],
            {("announced",): len(entries_of) - unreadable, ("unreadable",): unreadable},
        )

    def _look_at(self, entry: os.DirEntry[str], found: dict[str, _Known]) -> None:
        try:
            stat = entry.stat()
            mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            known = self._read.get(entry.name)
            if known is None or known[0] != mark:
                known = mark, _entries(Path(entry.path).read_bytes())
            found[entry.name] = known
        except FileNotFoundError:
            pass  # the attempt has just ended


def _entries(text: bytes) -> list[Any] | None:
    """What Prometheus would take: target groups, each of addresses and labels that are text."""
    try:
        groups = json.loads(text)
    except ValueError:
        return None
    good = isinstance(groups, list) and all(
        isinstance(group, dict)
        and isinstance(group.get("targets"), list)
        and isinstance(group.get("labels", {}), dict)
        and all(isinstance(value, str) for value in (*group["targets"], *group.get("labels", {}).values()))
        for group in groups
    )
    return groups if good else None
