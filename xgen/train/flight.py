"""torch's flight recorder: the last collectives of each rank, kept in memory and written down when the attempt hangs.

It is on, a ring of 2,000 calls. NCCL writes it by itself when one of its collectives times out; of any hang that the
watchdog declares, each rank does when it is asked where it stands (xgen/hang/).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from xgen.runs import TaskContext
from xgen.runs.flight import flight_folder

if TYPE_CHECKING:
    from torchtitan.config import CommConfig

_CALLS = 2000
_LOOK_EVERY = 0.2  # seconds between two looks at memory of this process


def turn_on(comm: CommConfig, context: TaskContext, backend: str) -> None:
    """Record from now on, and write the record down once somebody asks this rank for its stacks. torchtitan tells torch
    by the environment; TORCH_FR_BUFFER_SIZE in the spec's own says how many calls, 0 for none."""
    comm.trace_buf_size = int(os.environ.get("TORCH_FR_BUFFER_SIZE", _CALLS))
    comm.save_traces_folder = str(flight_folder(context.run, context.attempt) / backend)
    if comm.trace_buf_size and (stacks := context.progress.stacks) is not None:
        threading.Thread(target=_await_question, args=(context, stacks), daemon=True, name="xgen-flight").start()


def _await_question(context: TaskContext, stacks: int) -> None:
    """The handler that answers is C, and tells no Python: but its answer is there to be seen."""
    size = os.fstat(stacks).st_size
    while os.fstat(stacks).st_size == size:
        time.sleep(_LOOK_EVERY)
    dump(flight_folder(context.run, context.attempt), context.rank)


def dump(folder: Path, rank: int) -> None:
    """The records of this rank, of each backend that it used, on disk."""
    import torch.distributed as dist
    from torch._C import _distributed_c10d

    for backend, record in (("gloo", "_dump_fr_trace"), ("nccl", "_dump_nccl_trace")):
        if not hasattr(_distributed_c10d, record) or (backend == "nccl" and not _uses_nccl(dist)):
            continue
        try:
            written = folder / backend / f"rank_{rank}"
            written.parent.mkdir(parents=True, exist_ok=True)
            building = written.with_name(f".{written.name}.tmp")
            # To find the places in the source torch wants its compiler; to import that there may not be the time.
            for with_places in (False, True) if "torch._dynamo" in sys.modules else (False,):
                building.write_bytes(getattr(_distributed_c10d, record)(includeStackTraces=with_places))
                building.replace(written)
        except Exception as error:  # noqa: BLE001 - it is a help, and not the work
            print(f"the flight record of {backend} cannot be written: {error}", file=sys.stderr, flush=True)


def _uses_nccl(dist: ModuleType) -> bool:
    return bool(dist.is_initialized() and "nccl" in str(dist.get_backend_config()))
