"""Tests that mostly wait, each for a run of its own, and disturb no other: they run at once.

Marked `together`, a test takes no fixture but `cluster` or `boxed`, and `tmp_path`. The first of them runs all that are
selected, in threads; each then reports what came of it. What takes GPUs by preemption, ends a daemon or a node, changes
a partition or the environment must not be among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

AT_ONCE = 6  # most have a rank on two of the four nodes, and all are on one machine


def is_together(item: pytest.Item) -> bool:
    """Whether it runs at once with the others. What has failed so and is run once more runs alone."""
    return item.get_closest_marker("together") is not None and getattr(item, "execution_count", 1) < 2


class Together:
    """The outcomes of the marked tests. `fixtures`: how each is made, of a folder."""

    def __init__(
        self, items: list[pytest.Function], folder: Callable[[str], Path], fixtures: Mapping[str, Callable[[Path], Any]]
    ) -> None:
        self._outcomes: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for number, item in enumerate(items):
                own = folder(f"together{number}")
                wanted = [name for name in signature(item.function).parameters if name in fixtures]
                given = {name: fixtures[name](own) for name in wanted}
                given |= item.callspec.params if hasattr(item, "callspec") else {}
                self._outcomes[item.nodeid] = threads.submit(item.function, **given)
            wait(self._outcomes.values())

    def report(self, item: pytest.Item) -> None:
        """Raises what the test has raised."""
        self._outcomes[item.nodeid].result()
