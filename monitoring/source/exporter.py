"""Whether what the other dashboards show is fresh: the exporter, its collectors, the scheduler that they ask."""

from __future__ import annotations

from monitoring.source.charts import Bands, Lines, Stat, States
from monitoring.source.dashboard import Dashboard, Row
from monitoring.source.look import ANSWERS, EXPORTER, HERE, NONE_IS_GOOD, TO_RUN, UP
from monitoring.source.panel import Query
from monitoring.source.table import Column, Table

_HERE = f"{{{HERE}}}"
_AGE = f"time() - max by (collector) (xgen_exporter_collector_last_success_timestamp_seconds{_HERE})"
_INTERVAL = f"max by (collector) (xgen_exporter_collector_interval_seconds{_HERE})"
_SUCCESS = f"min by (collector) (xgen_exporter_collector_success{_HERE})"
_SILENT = 'up{job="xgen-runs"} == 0'

_NUMBERS = Row(
    4,
    (
        Stat(
            title="Exporter",
            description="Whether it answers Prometheus. If not (alert XgenExporterBlind): `systemctl status "
            "xgen-exporter` on its node; until then fleet, nodes and pipeline show nothing new.",
            width=4,
            queries=(
                Query(
                    f"min(up{{{HERE}}} and on (instance) last_over_time(xgen_exporter_build_info[1d]))",
                    "up",
                    instant=True,
                ),
            ),
            no_value="never seen",
            levels=UP,
            texts=ANSWERS,
            filled=True,
        ),
        Stat(
            title="Collectors that fail",
            description="What they read is dropped after three intervals, not shown as if it were fresh. The table "
            "below says which and since when; the exporter's log says why.",
            width=4,
            queries=(Query(f"count({_SUCCESS} == 0) or 0 * count({_SUCCESS})", "failing", instant=True),),
            decimals=0,
            no_value="blind",
            levels=NONE_IS_GOOD,
        ),
        Stat(
            title="Scheduler",
            description="Whether slurmctld answers. If not (alert XgenSchedulerDown): jobs go on, but nothing starts, "
            "and no run can be requeued.",
            width=4,
            queries=(Query(f"min(xgen_slurm_controller_up{_HERE})", "up", instant=True),),
            no_value="unknown",
            levels=UP,
            texts=ANSWERS,
            filled=True,
        ),
        Stat(
            title="Silent trainers",
            description="Announced and silent: hanging, dead without a word, or out of Prometheus' reach (alert "
            "XgenRunNotAnswering). The table below names them.",
            width=4,
            queries=(Query(f'count({_SILENT}) or 0 * count(up{{job="xgen-runs"}})', "silent", instant=True),),
            decimals=0,
            no_value="none: no run is announced",
            levels=NONE_IS_GOOD,
        ),
        Stat(
            title="Scrape time",
            description="What a scrape costs the exporter. Rendered bytes are served, so it stays far under 100 ms "
            "whatever the size of the cluster; above, its machine is overloaded.",
            width=4,
            queries=(
                Query(
                    f"max(scrape_duration_seconds{{{HERE}}} and on (instance) xgen_exporter_build_info)",
                    "scrape",
                    instant=True,
                ),
            ),
            unit="s",
            no_value="blind",
            levels=("text", (0, "green"), (0.1, "orange"), (1, "red")),
        ),
        Stat(
            title="Series",
            description="What the exporter adds to Prometheus. A jump: many new users, nodes or runs. About 2.3 KB of "
            "Prometheus' memory each.",
            width=4,
            queries=(Query(f"sum(xgen_exporter_series{_HERE})", "series", instant=True),),
            unit="locale",
            decimals=0,
            no_value="blind",
        ),
    ),
)
_COLLECTORS = Row(
    10,
    (
        Table(
            title="Collectors",
            description="Each polls in a thread of its own, so that one that hangs holds up no other. Age above three "
            "intervals: its series are gone until it works again.",
            width=14,
            rows=f"max by (collector) (xgen_exporter_collector_success{_HERE})",
            no_value="blind",
            sort="Collector",
            columns=(
                Column(title="Collector", label="collector"),
                Column(
                    title="Last poll",
                    expr=_SUCCESS,
                    show="filled",
                    levels=UP,
                    texts={0: ("failed", "red"), 1: ("worked", "green")},
                    width=100,
                ),
                Column(title="Age", expr=_AGE, unit="s", decimals=0, width=90),
                Column(
                    title="of interval",
                    expr=f"({_AGE}) / {_INTERVAL}",
                    unit="percentunit",
                    decimals=0,
                    show="color",
                    levels=("text", (0, "green"), (1.5, "orange"), (3, "red")),
                    width=100,
                ),
                Column(
                    title="Poll takes",
                    expr=f"max by (collector) (xgen_exporter_collector_duration_seconds{_HERE})",
                    unit="s",
                    width=100,
                ),
                Column(
                    title="Errors",
                    expr=f"sum by (collector) (increase(xgen_exporter_collector_errors_total{_HERE}[$__range]))",
                    decimals=0,
                    width=80,
                ),
                Column(
                    title="Series",
                    expr=f"sum by (collector) (xgen_exporter_series{_HERE})",
                    unit="locale",
                    decimals=0,
                    width=80,
                ),
            ),
        ),
        States(
            title="Polls",
            description="When each collector worked. All red at once: the scheduler. One alone: its command, or what "
            "it reads.",
            width=10,
            queries=(Query(_SUCCESS, "{{collector}}"),),
            no_value="blind",
            levels=UP,
            texts={0: ("failed", "red"), 1: ("worked", "green")},
        ),
    ),
)
_TIMES = Row(
    8,
    (
        Lines(
            title="Age of the data",
            description="Since the last poll that worked, as a part of the collector's interval. Above the line the "
            "data is dropped and the other dashboards have gaps.",
            width=8,
            queries=(Query(f"({_AGE}) / {_INTERVAL}", "{{collector}}"),),
            unit="percentunit",
            high=6,
            axis="from zero",
            no_value="blind",
            legend="list",
            levels=("text", (3, "red")),
            limits=True,
        ),
        Lines(
            title="Time a poll takes",
            description="Longer than before: the scheduler is busy, or its file system is slow. A poll is killed at "
            "its time-out.",
            width=8,
            queries=(Query(f"max by (collector) (xgen_exporter_collector_duration_seconds{_HERE})", "{{collector}}"),),
            unit="s",
            axis="from zero",
            no_value="blind",
            legend="list",
        ),
        Bands(
            title="Errors by reason",
            description="Polls that failed. timeout: the command hangs; exit: it says no; missing: it is not "
            "installed; malformed: SLURM writes what the exporter does not know, report it with the version.",
            width=8,
            queries=(
                Query(
                    "sum by (collector, reason) "
                    f"(increase(xgen_exporter_collector_errors_total{_HERE}[$__rate_interval])) > 0",
                    "{{collector}}: {{reason}}",
                ),
            ),
            decimals=0,
            no_value="none: no poll failed",
            bars=True,
            step="2m",
        ),
    ),
)
_CYCLES = ("last_cycle", "main, last"), ("mean_cycle", "main, mean"), ("backfill_last_cycle", "backfill, last")
_SCHEDULER = Row(
    8,
    (
        Lines(
            title="Scheduler's cycles",
            description="How long slurmctld takes to look through its queue. Above a second jobs start late: too many "
            "jobs, or too many squeue calls by others.",
            width=8,
            queries=tuple(Query(f"max(slurm_scheduler_{metric}{_HERE})", name) for metric, name in _CYCLES),
            unit="µs",
            axis="from zero",
            no_value="unknown",
            legend="list",
        ),
        Lines(
            title="Scheduler's load",
            description="Threads of slurmctld, and messages that wait for the database. Messages that only grow: "
            "slurmdbd is down, and accounting will be lost when the queue is full.",
            width=8,
            queries=(
                Query(f"max(slurm_scheduler_threads{_HERE})", "threads"),
                Query(f"max(slurm_scheduler_dbd_queue_size{_HERE})", "for the database"),
                Query(f"max(slurm_scheduler_queue_size{_HERE})", "for others"),
            ),
            unit="locale",
            decimals=0,
            axis="from zero",
            no_value="unknown",
            legend="list",
        ),
        Table(
            title="Trainers that do not answer",
            description="Announced, and silent at the last scrape. `xgen status RUN` says whether the job runs: then "
            "it hangs, or Prometheus cannot reach its node.",
            width=8,
            rows=f"max by (run, node, job_id) ({_SILENT})",
            no_value="none: no trainer is known to be silent",
            sort="Run",
            columns=(
                Column(title="Run", label="run", link=TO_RUN),
                Column(title="Job", label="job_id", width=90),
                Column(title="Node", label="node", width=110),
            ),
        ),
    ),
)

DASHBOARD = Dashboard(
    name="exporter",
    title="xgen exporter health",
    description="Whether what the other dashboards show is fresh: the exporter, its collectors, the scheduler.",
    variables=(EXPORTER,),
    rows=(_NUMBERS, _COLLECTORS, _TIMES, _SCHEDULER),
)
