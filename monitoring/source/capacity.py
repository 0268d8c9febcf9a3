"""Rows of the fleet's dashboard: who uses what, what waits, what it costs."""

from __future__ import annotations

from monitoring.source.charts import Bands, Bars, Lines
from monitoring.source.dashboard import Row
from monitoring.source.look import ENDS, HERE, PHASES, RESTARTS
from monitoring.source.panel import Named, Query
from monitoring.source.table import Column, Table

CHOSEN = f'xgen_run_info{{{HERE}, project=~"$project", user=~"$user"}}'


def held(phases: str = "") -> str:
    """GPUs that runs hold, by what they do: all of it, or in phases that match."""
    chosen = f'{HERE}, project=~"$project", user=~"$user"'
    return f"phase:xgen_run_gpus:sum{{{chosen}{phases and ', '}{phases}}}"


_PARTITION = (
    ("GPUs free", "slurm_partition_gpus_idle"),
    ("allocated", "slurm_partition_gpus_allocated"),
    ("CPUs free", "slurm_partition_cpus_idle"),
    ("Running", "slurm_partition_jobs_running"),
    ("Pending", "slurm_partition_jobs_pending"),
)

USE = Row(
    9,
    (
        Bands(
            title="GPUs by user",
            description="GPUs of running jobs, by who runs them; all jobs of the cluster, not only xgen's.",
            width=12,
            queries=(Query(f"sum by (user) (slurm_user_gpus_running{{{HERE}}})", "{{user}}"),),
            unit="locale",
            decimals=0,
            no_value="none: no job runs",
            legend="table",
            steps=True,
        ),
        Bands(
            title="What the GPUs do",
            description="GPUs that runs hold, by the phase they are in: green is new steps. A lasting band of another "
            "colour is what to mend: replay asks for more frequent saves, data_wait for faster data, start for "
            "smaller images.",
            width=12,
            queries=(Query(f"sum by (phase) ({held()})", "{{phase}}"),),
            unit="locale",
            decimals=0,
            no_value="no run yet",
            series=PHASES,
            legend="table",
        ),
    ),
)
QUEUE = Row(
    8,
    (
        Bands(
            title="Pending jobs by reason",
            description="Priority and Resources: wait, or ask for less. QOSMax… and Assoc…: a limit of the account. "
            "ReqNodeNotAvail: nodes are down or reserved. Dependency: the stage before is not done.",
            width=8,
            queries=(Query(f"sum by (reason) (xgen_slurm_pending_jobs{{{HERE}}})", "{{reason}}"),),
            unit="locale",
            decimals=0,
            no_value="none: no job waits",
            steps=True,
        ),
        Lines(
            title="Longest wait by partition",
            description="Age of the oldest job that waits. A line that only rises while GPUs are free: the queue is "
            "stuck (alert XgenQueueStuck).",
            width=8,
            queries=(
                Query(f"max by (partition) (xgen_slurm_queue_oldest_pending_seconds{{{HERE}}})", "{{partition}}"),
            ),
            unit="s",
            no_value="none: no job waits",
            axis="from zero",
            legend="list",
        ),
        Bands(
            title="GPUs of the cluster",
            description="Allocated, free, and neither: on nodes that are drained, down or reserved.",
            width=8,
            queries=tuple(
                Query(f"sum(slurm_gpus_{state}{{{HERE}}})", name)
                for state, name in (("alloc", "allocated"), ("idle", "free"), ("other", "out of use"))
            ),
            unit="locale",
            decimals=0,
            no_value="no GPUs known",
            series=(Named("allocated", "green"), Named("free", "blue"), Named("out of use", "orange")),
            steps=True,
        ),
    ),
)
COST = Row(
    7,
    (
        Bars(
            title="GPU-hours by user",
            description="What runs of each user held in this time range; the eight users who held most.",
            width=6,
            queries=(
                Query(
                    "topk(8, sum by (user) (max by (run) (increase(xgen_run_gpu_seconds_total[$__range])) "
                    f"* on (run) group_left (user) max by (run, user) ({CHOSEN})) / 3600)",
                    "{{user}}",
                    instant=True,
                ),
            ),
            unit="suffix:GPU-h",
            decimals=0,
            low=0,
            no_value="none: no run held a GPU",
            color="blue",
        ),
        Bars(
            title="Fair share by user",
            description="SLURM's factor of the eight users whose jobs wait longest. Near 1: has used little of it; "
            "near 0: far more than it.",
            width=6,
            queries=(Query(f"bottomk(8, max by (user) (slurm_user_fairshare{{{HERE}}}))", "{{user}}", instant=True),),
            unit="none",
            decimals=2,
            low=0,
            high=1,
            no_value="none: no fair share",
            color="blue",
        ),
        Bars(
            title="Restarts by reason",
            description="Attempts after the first that began in this time range. Preempted and time limit are the "
            "cluster's doing; crashed and lost are to be looked at.",
            width=6,
            queries=(
                Query(
                    "sum by (reason) (max by (run, reason) (increase(xgen_run_restarts_total[$__range])) "
                    f"and on (run) {CHOSEN})",
                    "{{reason}}",
                    instant=True,
                ),
            ),
            decimals=0,
            low=0,
            no_value="no run yet",
            color="blue",
            series=RESTARTS,
        ),
        Bars(
            title="Disk that is free",
            description="Of the file system that holds the runs. Under 10 % saves will soon fail: remove old "
            "checkpoints and runs (alert XgenDiskFilling).",
            width=6,
            queries=(
                Query(
                    f"min by (path) (xgen_filesystem_free_bytes{{{HERE}}} / xgen_filesystem_size_bytes{{{HERE}}})",
                    "{{path}}",
                    instant=True,
                ),
            ),
            unit="percentunit",
            decimals=0,
            low=0,
            high=1,
            no_value="no exporter",
            levels=("text", (0, "red"), (0.1, "orange"), (0.2, "green")),
        ),
    ),
)
PARTITIONS = Row(
    8,
    (
        Table(
            title="Partitions",
            description="Where a job would start now: GPUs or CPUs that are free, and how long others wait already.",
            width=14,
            rows=f"max by (partition) (slurm_partition_cpus_idle{{{HERE}}})",
            no_value="no partition known",
            sort="Partition",
            columns=(
                Column(title="Partition", label="partition"),
                *(
                    Column(title=title, expr=f"max by (partition) ({metric}{{{HERE}}})", decimals=0, width=100)
                    for title, metric in _PARTITION
                ),
                Column(
                    title="Longest wait",
                    expr=f"max by (partition) (xgen_slurm_queue_oldest_pending_seconds{{{HERE}}})",
                    unit="s",
                    decimals=0,
                    width=110,
                    no_value="none",
                ),
            ),
        ),
        Bands(
            title="Jobs that ended",
            description="All jobs of the cluster by how they ended. Many that failed at once: a node or a file system. "
            "Many that were preempted: move to another partition, or save more often.",
            width=10,
            queries=(
                Query(
                    f"sum by (state) (increase(xgen_slurm_jobs_ended_total{{{HERE}}}[$__rate_interval])) > 0",
                    "{{state}}",
                ),
            ),
            unit="locale",
            decimals=0,
            no_value="none: no job ended",
            series=ENDS,
            bars=True,
            step="10m",
        ),
    ),
)
