"""The local executor's supervisor of a pipeline: `python -m xgen.cluster.local_supervisor PIPELINE_RUN`.

It starts each step once those that it needs have ended, one after the other; the step has a supervisor of its own,
which outlives this one.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from types import FrameType

from xgen.cluster import local
from xgen.cluster.pipeline import Record, read_record, step_run
from xgen.cluster.pipeline_state import ENDED_BADLY
from xgen.cluster.pipeline_submit import TODO, go_on
from xgen.cluster.slurm import SchedulerError
from xgen.cluster.status import QueueView, State, ask_state
from xgen.runs import EXIT_FAILED, EXIT_FINISHED, EXIT_STOPPED, STOP_SIGNALS, EventWriter, RunDir
from xgen.spec import SpecError

_PAUSE = 0.1  # seconds between two looks at a step


class PipelineSupervisor:
    """Runs the steps that it was started for."""

    def __init__(self, pipeline: RunDir, record: Record, todo: set[str]) -> None:
        self._pipeline, self._record, self._todo = pipeline, record, todo
        self._cancelled = False

    def main(self) -> int:
        signal.signal(signal.SIGTERM, self._on_cancel)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        states: dict[str, State] = {}
        for step, own in self._record.steps.items():
            run = step_run(self._pipeline, self._record, step)
            if step in self._todo:
                if any(not self._may_begin(states[other], how) for other, how in own.needs.items()):
                    states[step] = "blocked"
                    continue
                if self._cancelled:
                    return EXIT_STOPPED
                self._start(run)
            states[step] = self._await(run)
            if self._cancelled:
                return EXIT_STOPPED
        return EXIT_FINISHED if all(state == "finished" for state in states.values()) else EXIT_FAILED

    def _may_begin(self, state: State, how: str) -> bool:
        return state == "finished" or (how == "any" and state in (*ENDED_BADLY, "blocked"))

    def _on_cancel(self, _number: int, _frame: FrameType | None) -> None:
        self._cancelled = True

    def _start(self, run: RunDir) -> None:
        try:
            go_on(run)
        except (SpecError, SchedulerError, OSError) as error:
            print(f"{run.name}: {error}", flush=True)
            EventWriter(run, "client", run.last_attempt(), "").write("failed", reason=str(error), durable=True)

    def _await(self, run: RunDir) -> State:
        """The state that it ends in."""
        while local.is_alive(run) and not self._cancelled:
            time.sleep(_PAUSE)
        with suppress(ChildProcessError):  # one that another has started is no child
            os.waitpid(-1, os.WNOHANG)
        state, _ = ask_state(run, QueueView(None))
        return state


def supervise(pipeline: RunDir) -> int:
    record = read_record(pipeline)
    assert record
    return PipelineSupervisor(pipeline, record, set(os.environ.pop(TODO, "").split(","))).main()
