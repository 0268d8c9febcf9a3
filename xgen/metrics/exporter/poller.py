"""One collector's thread, and what of its last polls may be served."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from xgen.metrics.exporter.collector import REASONS, Collector, CollectorError, Reason
from xgen.metrics.exporter.page import Part, render

MAX_SERIES = 500_000  # of one collector; more is a fault of a label, and is not served
_FRESH = 3  # intervals


@dataclass(frozen=True)
class State:
    """What a poller knows; replaced as one, so that a scrape never mixes two polls."""

    part: Part | None = None  # of the last poll that succeeded
    polled: float = float("-inf")  # when it ended: monotonic seconds
    last_success: float = 0.0  # the same as time since 1970; 0: never
    succeeded: bool = False  # the last poll
    duration: float | None = None  # seconds, of the last poll
    errors: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))


class Poller:
    """Polls until it is closed; whatever a poll does, it holds up no scrape and no other collector."""

    def __init__(
        self, collector: Collector, polled: Callable[[], object], log: Callable[[str], None] | None = None
    ) -> None:
        """`polled` is called after each poll."""
        self.collector = collector
        self.state = State()
        self._polled = polled
        self._log = log or _to_stderr
        self._stop = threading.Event()

    def start(self, offset: float = 0.0) -> None:
        """Poll now, and from then on `offset` seconds after each interval: pollers that all begin now part."""
        name = f"poll-{self.collector.name}"
        threading.Thread(target=self._run, args=(offset,), name=name, daemon=True).start()

    def stop(self) -> None:
        """No poll begins after this; one that is under way is not waited for."""
        self._stop.set()

    @property
    def expires(self) -> float:
        """When the last good poll is too long ago: monotonic seconds."""
        return self.state.polled + _FRESH * self.collector.interval

    def part(self) -> Part | None:
        """The last good poll's, or None when that is too long ago."""
        return self.state.part if time.monotonic() <= self.expires else None

    def healthy(self) -> bool:
        """The last poll succeeded, and not too long ago: a poll that never comes back is a failure too."""
        return self.state.succeeded and time.monotonic() <= self.expires

    def poll(self) -> None:
        """One poll. Never raises."""
        self._poll()
        self._polled()

    def _poll(self) -> None:
        before, began = self.state, time.monotonic()
        try:
            part = render(self.collector.poll())
            if part.num_series > MAX_SERIES:
                raise CollectorError("too_many_series", f"{part.num_series} series; at most {MAX_SERIES} are served")
        except CollectorError as error:
            self._failed(before, began, error.reason, str(error))
        except Exception as error:  # noqa: BLE001 - a fault in one collector must not end it, nor touch another
            self._failed(before, began, "crashed", f"{error!r}\n{traceback.format_exc()}")
        else:
            now = time.monotonic()
            self.state = replace(
                before, part=part, polled=now, last_success=time.time(), succeeded=True, duration=now - began
            )
            if before.duration is not None and not before.succeeded:
                self._log(f"{self.collector.name}: is back")

    def _failed(self, before: State, began: float, reason: Reason, text: str) -> None:
        errors = {**before.errors, reason: before.errors[reason] + 1}
        self.state = replace(before, succeeded=False, duration=time.monotonic() - began, errors=errors)
        if before.succeeded or before.duration is None:  # the first of a row; the count says how many more
            self._log(f"{self.collector.name}: {reason}: {text}")

    def _run(self, offset: float) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.poll()
            self._stop.wait(max(0.0, self.collector.interval + offset - (time.monotonic() - began)))
            offset = 0.0


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"xgen exporter: {line}\n")  # one write, one line
    sys.stderr.flush()
