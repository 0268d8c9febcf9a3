"""What the screen shows of a run: facts at one moment, no files behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xgen.cluster.status import State
from xgen.runs import Event, EventName, Phase


@dataclass(frozen=True)
class View:
    """Seconds are since the epoch or a duration, as the name says; what is not known is 0, '' or None."""

    name: str
    state: State
    reason: str = ""  # SLURM's, of a run that waits; else why it ended
    phase: Phase | None = None
    trains: bool = True
    attempt: int = 0
    nodes: str = ""
    step: int = 0
    planned_steps: int = 0
    loss: float | None = None  # of the newest step; None: none yet
    is_nan: bool = False  # the newest step's was no number
    losses: Sequence[float] = ()  # over all steps, a few dozen
    rate: float = 0.0  # tokens/s now
    planned_rate: float = 0.0
    step_seconds: float = 0.0  # of a usual step
    last_step_time: float = 0.0
    last_event_time: float = 0.0
    attempt_time: float = 0.0  # when it started
    durable_step: int = 0
    durable_time: float = 0.0
    save_interval: float = 0.0  # seconds between the last two checkpoints
    restart_times: Sequence[float] = ()
    data_wait: float = 0.0  # share of the attempt's training
    newest: dict[EventName, Event] = field(default_factory=dict)
    error: str = ""  # it cannot be read
