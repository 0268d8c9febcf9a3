"""The run directory, its events, and the arithmetic over them. Standard library and pydantic only."""

from xgen.runs.events import Event, EventListener, EventName, EventReader, EventWriter, read_events
from xgen.runs.ledger import (
    GUARD_ACTIONS,
    PHASES,
    PRODUCTIVE,
    RESTART_REASONS,
    Attempt,
    Evaluated,
    Ledger,
    Phase,
    RestartReason,
    replay,
)
from xgen.runs.outcome import (
    EXIT_FAILED,
    EXIT_FINISHED,
    EXIT_REFUSED,
    EXIT_STOPPED,
    AttemptOutcome,
    RankOutcome,
    read_attempt_outcome,
)
from xgen.runs.rundir import RUN_NAME, RunDir, list_runs, new_run_id, write_atomic
from xgen.runs.stop import STOP_SIGNALS, StopFlag
from xgen.runs.task import Diverged, Refused, TaskContext

__all__ = [
    "EXIT_FAILED",
    "EXIT_FINISHED",
    "EXIT_REFUSED",
    "EXIT_STOPPED",
    "GUARD_ACTIONS",
    "PHASES",
    "PRODUCTIVE",
    "RESTART_REASONS",
    "RUN_NAME",
    "STOP_SIGNALS",
    "Attempt",
    "AttemptOutcome",
    "Diverged",
    "Evaluated",
    "Event",
    "EventListener",
    "EventName",
    "EventReader",
    "EventWriter",
    "Ledger",
    "Phase",
    "RankOutcome",
    "Refused",
    "RestartReason",
    "RunDir",
    "StopFlag",
    "TaskContext",
    "list_runs",
    "new_run_id",
    "read_attempt_outcome",
    "read_events",
    "replay",
    "write_atomic",
]
