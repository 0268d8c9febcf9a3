"""A short run as rank 0 lives it: real events, a real exporter, real time; the numbers are those of a toy model."""

from __future__ import annotations

import math
import time

from xgen.metrics import RunExporter, remove_target, write_target
from xgen.runs import EventWriter, RunDir, read_events, replay

_TOKENS_PER_STEP = 8192
_STEP_SECONDS = 0.1


def play_attempt(
    run: RunDir, attempt: int, first_step: int, steps: int, stage: str, *, preempted: bool = False
) -> None:
    """One attempt: restore, `steps` steps from `first_step` on, a save, an orderly end. The guard skips step 75."""
    host, rank0 = (EventWriter(run, writer, attempt, "7") for writer in ("host", "rank0"))
    host.write("started", nodes="n1", stage=stage)
    ledger = replay(read_events(run))
    rank0.subscribe(ledger)
    exporter = RunExporter(ledger)
    port = exporter.start()
    write_target(run.discovery_file, address="127.0.0.1", port=port, run=run.name, attempt=attempt, job_id="7")
    resumed = first_step - 1
    rank0.write("restore_begin")
    rank0.write("restore_end", step=resumed)
    exporter.resumed(resumed)
    last = resumed + steps
    for step in range(first_step, last + 1):
        began = time.time()
        time.sleep(_STEP_SECONDS)
        wait = 0.1 * _STEP_SECONDS
        if step == first_step:
            rank0.write("first_step", step=step)
        exporter.on_step(
            step,
            loss=8 * math.exp(-step / 40) + 2 + 0.1 * math.sin(step),
            grad_norm=1 + 2 * math.exp(-step / 20) + 0.1 * math.cos(3 * step),
            lr=3e-4 * min(1, step / 30),
            tokens=step * _TOKENS_PER_STEP,
            step_seconds=time.time() - began,
            data_wait_seconds=wait,
        )
        if step % 10 == 0:
            rank0.write("progress", step=step, tokens=step * _TOKENS_PER_STEP, data_wait=wait * (step - resumed))
        if step % 50 == 0 or step == last:
            save(rank0, exporter, step)
            exporter.on_validation({"web": 2 + 20 / step, "code": 1 + 20 / step})
        if step == 75:  # Prometheus has seen the attempt by then
            rank0.write("guard", step=step, action="skip", reason="loss nan")
    if preempted:
        rank0.write("signal", signal="SIGUSR2", step=last)
        rank0.write("stopping", step=last)
    remove_target(run.discovery_file)
    exporter.close()
    host.write("exited", exit_code=0)
    if preempted:
        host.write("requeued", reason="preempted")
    else:
        host.write("finished")


def save(rank0: EventWriter, exporter: RunExporter, step: int) -> None:
    began = time.time()
    rank0.write("checkpoint_begin", step=step)
    time.sleep(0.15)
    rank0.write("checkpoint_durable", step=step, seconds=0.15)
    exporter.on_checkpoint(step, time.time() - began, time.time())
