"""Which job and run holds which GPU, so that series of GPUs need no labels of jobs: from `scontrol show job`.

It is the one command of all versions that says the numbers of a job's GPUs. It prints command lines and comments too:
they are dropped where they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from xgen.cluster import values
from xgen.metrics.exporter import CollectorError
from xgen.metrics.exporter.collector import gauges
from xgen.metrics.exporter.command import chunks
from xgen.metrics.fleet import Runs
from xgen.metrics.slurm.queue import Queue

_COMMAND = ("scontrol", "show", "job", "--details")
_MAX_OUTPUT = 1 << 30
_JOB = re.compile(rb"JobId=(\d+)(?: ArrayJobId=(\d+) ArrayTaskId=(\d+))? ")
_HOLDS = (b"RUNNING", b"SUSPENDED", b"COMPLETING")
_NODES = re.compile(rb" {5}Nodes=(\S+) CPU_IDs=\S* Mem=\d+ GRES=(\S+)")


@dataclass(frozen=True)
class Held:
    job: str  # of an array's task ARRAY_TASK
    node: str
    gpu: str  # its number in SLURM's gres.conf


class Allocated:
    name = "gpus"
    interval = 60.0
    timeout = 25.0

    def __init__(self, queue: Queue, runs: Runs) -> None:
        self._queue, self._runs = queue, runs

    def poll(self) -> Iterable[Metric]:
        """Without a job that has GPUs, SLURM is not asked."""
        self._runs.looked.wait(self.timeout)
        names, answer = self._runs.names, self._queue.answer
        if names is None:
            raise CollectorError("missing", "the runs are not known yet, so no job is known to be one's")
        busy = answer is None or any(row.gpus and row.state.encode() in _HOLDS for row in answer.rows)
        held = parse(chunks(_COMMAND, self.timeout, _MAX_OUTPUT)) if busy else ()
        keys = {(one.node, one.gpu, names.get(one.job.partition("_")[0], ""), one.job): 1 for one in held}
        text = "1 for a GPU that a job holds; without a run, the job is not xgen's."
        return [gauges("xgen_gpu_info", text, ["hostname", "gpu", "run", "job_id"], keys)]


def parse(printed: Iterable[bytes]) -> Iterator[Held]:
    """The GPUs of jobs that hold some. Raises CollectorError."""
    job, holds, known = "", False, False
    for line in _lines(printed):
        if found := _JOB.match(line):
            number, array, task = (part.decode() for part in found.groups(b""))
            job, holds, known = f"{array}_{task}" if array else number, False, True
        elif line.startswith(b"   JobState="):
            holds = line[12:].split(b" ", 1)[0] in _HOLDS
        elif holds and (found := _NODES.fullmatch(line)):
            nodes, gres = (part.decode() for part in found.groups())
            for node in values.hosts(nodes):
                yield from (Held(job, node, str(gpu)) for gpu in values.gpu_numbers(gres))
        elif not known and line.strip() and not line.startswith((b"No jobs in the system", b"JobId=")):
            raise CollectorError("malformed", f"scontrol: {line[:120].decode(errors='replace')!r}: no job")


def _lines(printed: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in printed:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.rstrip() for line in lines)
    if rest.strip():
        raise CollectorError("malformed", f"scontrol: {rest[:120].decode(errors='replace')!r}: no whole line")
