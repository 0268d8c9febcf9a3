"""What ended without a decision is settled while the exporter watches, for the runs of its own user."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prometheus_client.core import Metric

from xgen.cluster.settle import NotSettledError, settle
from xgen.cluster.slurm import QueueRow, SchedulerError
from xgen.cluster.status import QueueView
from xgen.metrics.exporter.collector import counters
from xgen.runs import RunDir

_TEXT = "Runs that had ended without a decision, and were settled by this exporter."


class Settling:
    """In a thread of its own: a decision asks SLURM, which may take minutes. It asks again before it acts."""

    name = "settling"
    interval = 60.0
    timeout = 60.0

    def __init__(
        self,
        run_root: Path,
        lost: Callable[[], Mapping[str, str]],
        not_launched: Callable[[], Mapping[str, QueueRow]] = dict,
        *,
        acts: bool,
    ) -> None:
        """`lost`: runs of which the scheduler has no job although nobody decided, with what is said of them;
        `not_launched`: jobs of those that it holds since a node could not start them. Where the profile does not ask
        for it, it settles none, for it may not be its user's to submit."""
        self._root, self._lost, self._not_launched, self._acts = run_root, lost, not_launched, acts
        self._count = 0
        self.left: Mapping[str, str] = {}  # of these, those that nothing came of

    def poll(self) -> Iterable[Metric]:
        lost = self._lost()
        if self._acts:
            said = {name: self._settle(name, why, QueueView({})) for name, why in lost.items()}
            lost = {name: why for name, why in said.items() if why is not None}
            for name, row in self._not_launched().items():
                self._settle(name, "", QueueView({name: row}))
        self.left = lost
        return [counters("xgen_runs_settled_total", _TEXT, [], {(): self._count})]

    def _settle(self, name: str, why: str, view: QueueView) -> str | None:
        """What there is still to say of it; None where it is settled."""
        try:
            said = settle(RunDir(self._root / name), view, "exporter")
        except (OSError, SchedulerError, NotSettledError, subprocess.SubprocessError) as error:
            return str(error)
        if said is None:
            return why
        self._count += 1
        print(f"xgen exporter: {said}", file=sys.stderr, flush=True)
        return None
