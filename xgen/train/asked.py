"""A profile of a few steps, when a person asks for one (`xgen profile`).

Rank 0 looks at the request now and then; its number goes to all ranks with what they tell each other in every step
anyway (agreement.py), so they begin at the same step and nobody else looks at the file system. What is recorded changes
nothing of what is computed.
"""

from __future__ import annotations

import gc
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xgen.runs import TaskContext
from xgen.runs.asked import Operator, ProfileRequest, ProfileResult, profile_file, profile_folder, read_profile_request

if TYPE_CHECKING:
    from torch.profiler import profile

_LOOK_EVERY = 1.0  # seconds
_MOST_ROWS = 20
_MEMORY_EVENTS = 200_000  # that a snapshot goes back


class Asking:
    """On rank 0: the number of the newest request, 0 for none."""

    def __init__(self, context: TaskContext) -> None:
        self._context, self._looked, self._number = context, 0.0, 0
        self._seen = 0  # the file's time of change

    def __call__(self) -> int:
        if self._context.rank or (now := time.monotonic()) < self._looked + _LOOK_EVERY:
            return self._number
        self._looked = now
        try:
            changed = profile_file(self._context.run).stat().st_mtime_ns
        except OSError:
            return self._number
        if changed != self._seen:
            self._seen = changed
            request = read_profile_request(self._context.run)
            self._number = request.number if request and request.attempt == self._context.attempt else 0
        return self._number


@dataclass
class _Recording:
    request: ProfileRequest
    first_step: int
    folder: Path
    profiler: profile | None = None
    began: float = field(default_factory=time.perf_counter)
    step: ExitStack = field(default_factory=ExitStack)
    error: str = ""


class Profiling:
    """Of one rank; the trainer tells it of every step, on all ranks alike."""

    def __init__(self, context: TaskContext, device: torch.device) -> None:
        self._context, self._device = context, device
        self._seen = 0
        self._recording: _Recording | None = None

    def before_step(self, asked: int, step: int) -> None:
        """`asked`: what the ranks agreed on in the step before."""
        if asked and asked != self._seen and self._recording is None:
            self._seen = asked
            request = read_profile_request(self._context.run)
            if request and request.number == asked and self._context.rank in request.ranks:
                self._begin(request, step)
        if self._recording and self._recording.profiler:
            self._recording.step.enter_context(torch.profiler.record_function(f"step {step}"))

    def after_step(self, step: int) -> None:
        if (recording := self._recording) is None:
            return
        recording.step.close()
        if step >= recording.first_step + recording.request.steps - 1 or recording.error:
            self._end(recording, step)

    def finish(self, step: int) -> None:
        """What there is, where the training ends before so many steps."""
        if self._recording:
            self._end(self._recording, step)

    def _begin(self, request: ProfileRequest, step: int) -> None:
        folder = profile_folder(self._context.run, request.attempt, step)
        recording = self._recording = _Recording(request, step, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._wait_for_device()
            if self._remembers(request):
                torch.cuda.memory._record_memory_history(max_entries=_MEMORY_EVENTS)
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self._device.type == "cuda":
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            profiler = torch.profiler.profile(activities=activities)
            profiler.start()
            recording.profiler, recording.began = profiler, time.perf_counter()
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            recording.error = f"{type(error).__name__}: {error}"

    def _end(self, recording: _Recording, step: int) -> None:
        self._recording = None
        files: dict[str, Any] = {}
        seconds = time.perf_counter() - recording.began
        try:
            self._wait_for_device()
            seconds = time.perf_counter() - recording.began
            if recording.profiler:
                files |= self._export(recording, recording.profiler)
            if self._remembers(recording.request):
                snapshot = f"rank-{self._context.rank}.memory.pickle"
                torch.cuda.memory._dump_snapshot(str(recording.folder / snapshot))  # type: ignore[no-untyped-call]
                files["memory"] = snapshot
        except Exception as error:  # noqa: BLE001 - a full disk, or CUPTI that another tool holds: the training goes on
            recording.error = recording.error or f"{type(error).__name__}: {error}"
        if self._remembers(recording.request):  # whatever failed: it would slow down each allocation for good
            torch.cuda.memory._record_memory_history(enabled=None)
        result = ProfileResult(
            number=recording.request.number,
            rank=self._context.rank,
            first_step=recording.first_step,
            last_step=step,
            seconds=round(seconds, 6),
            device=self._device.type,
            error=" ".join(recording.error.split()),
            **files,
        )
        recording.profiler = None
        try:
            result.write(recording.folder)
        except OSError as error:
            print(f"the profile cannot be written: {error}", file=sys.stderr, flush=True)
        gc.collect()  # a trace is some million objects

    def _export(self, recording: _Recording, profiler: profile) -> dict[str, Any]:
        profiler.stop()
        trace = f"rank-{self._context.rank}.trace.json.gz"
        profiler.export_chrome_trace(str(recording.folder / trace))
        on_device = self._device.type == "cuda"
        rows = [
            (row.key, row.count, row.self_device_time_total if on_device else row.self_cpu_time_total)
            for row in profiler.key_averages()
            if not row.key.startswith("step ")
        ]
        whole = sum(microseconds for _, _, microseconds in rows) or 1
        rows.sort(key=lambda row: -row[2])
        top = tuple(
            Operator(name=name, calls=calls, seconds=micro / 1e6, share=micro / whole)
            for name, calls, micro in rows[:_MOST_ROWS]
        )
        return {"trace": trace, "top": top}

    def _remembers(self, request: ProfileRequest) -> bool:
        return request.memory and self._device.type == "cuda"

    def _wait_for_device(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
