"""All runs, and the cluster that they share: what is wrong, what it costs, who uses what."""

from __future__ import annotations

from monitoring.source.capacity import CHOSEN, COST, PARTITIONS, QUEUE, USE, held
from monitoring.source.charts import Stat
from monitoring.source.dashboard import Annotation, Dashboard, Row
from monitoring.source.look import (
    ALERTS,
    DONE,
    EXPORTER,
    HERE,
    NONE_IS_GOOD,
    PROJECT,
    RATIO,
    SEVERITIES,
    STATES,
    STEP_AGE,
    TO_NODE,
    TO_RUN,
    UNSAVED_AGE,
    USER,
    or_zero,
    runs_in,
)
from monitoring.source.panel import Query
from monitoring.source.table import Column, Table

_ALIVE = 'xgen_run_state{state=~"queued|running|stopping|failed|lost"} == 1'


# In GPU-minutes: the record has a sample a minute.
_WORK = held('phase=~"train|work"')
_TRAINED, _HELD = f"sum(sum_over_time({_WORK}[$__range]))", f"sum(sum_over_time({held()}[$__range]))"


def _of_alive(expr: str) -> str:
    return f"{expr} and on (run) ({_ALIVE}) and on (run) {CHOSEN}"


_SINCE = f"(time() - ALERTS_FOR_STATE{{{ALERTS}}})"
_WHAT = "alertname, severity, run, node, gpu, partition, collector"
_FIRING = f'ALERTS{{alertstate="firing", {ALERTS}}}'
_IDLE_GPUS = "count(gpu:xgen_gpu_idle_use_percent:avg15m) or 0 * count(DCGM_FI_DEV_GPU_UTIL)"

_NUMBERS = Row(
    4,
    (
        Stat(
            title="Alerts",
            description="Alerts that fire now; the table below says which. Each has a section in docs/monitoring.md "
            "that says what to do. Blind: neither alerts nor an exporter, so nobody knows.",
            width=3,
            queries=(Query(or_zero(f"count({_FIRING})", "xgen_exporter_build_info"), "alerts", instant=True),),
            decimals=0,
            no_value="blind",
            levels=NONE_IS_GOOD,
            filled=True,
        ),
        Stat(
            title="Running",
            description="Runs that run now, of the projects and users chosen above.",
            width=3,
            queries=(Query(runs_in("running", CHOSEN), "runs", instant=True),),
            decimals=0,
            no_value="blind",
        ),
        Stat(
            title="Waiting",
            description="Runs that wait for the scheduler. The queue below says for what; `xgen status RUN` of one.",
            width=3,
            queries=(Query(runs_in("queued", CHOSEN), "runs", instant=True),),
            decimals=0,
            no_value="blind",
        ),
        Stat(
            title="GPUs allocated",
            description="Of all GPUs of the cluster, whoever holds them. Low while jobs wait: see the reasons in the "
            "queue below; drained nodes are on Nodes & GPUs.",
            width=4,
            queries=(
                Query(
                    f"sum(slurm_gpus_alloc{{{HERE}}}) / (sum(slurm_gpus_total{{{HERE}}}) > 0)",
                    "allocated",
                    instant=True,
                ),
            ),
            unit="percentunit",
            decimals=0,
            low=0,
            high=1,
            no_value="no GPUs known",
        ),
        Stat(
            title="GPUs held, idle",
            description="GPUs that a job holds and that did under 5 % on average in the last 15 minutes (alert "
            "XgenGpusIdle). Nodes & GPUs names them and their runs; ask who holds them.",
            width=3,
            queries=(Query(_IDLE_GPUS, "idle", instant=True),),
            decimals=0,
            no_value="none: no GPU is read",
            levels=("text", (0, "green"), (1, "orange")),
        ),
        Stat(
            title="Goodput",
            description="Of the time for which runs held GPUs in this time range, the part in new steps (or at work, "
            "of runs without steps), weighted by GPUs; queueing is not in it. Below 80 %: What the GPUs do, below, "
            "says what takes the rest.",
            width=4,
            queries=(Query(f"{_TRAINED} / ({_HELD} > 0)", "goodput", instant=True),),
            unit="percentunit",
            decimals=1,
            low=0,
            high=1,
            no_value="no run yet",
            levels=RATIO,
        ),
        Stat(
            title="GPU-hours lost",
            description="What runs held in this time range beyond that: starts, restores, replays, saves, waiting for "
            "data. What faults and preemptions cost.",
            width=4,
            queries=(Query(f"({_HELD} - {_TRAINED}) / 60", "GPU-hours", instant=True),),
            unit="suffix:GPU-h",
            no_value="no run yet",
        ),
    ),
)
_WRONG = Row(
    8,
    (
        Table(
            title="What is wrong now",
            description="Alerts that fire, the critical ones first. docs/monitoring.md has a section of each: what "
            "it means and what to do.",
            width=24,
            rows=f"max by ({_WHAT}) ({_FIRING})",
            no_value="none: no alert fires",
            sort="Severity",
            columns=(
                Column(title="Alert", label="alertname", width=260),
                Column(title="Severity", label="severity", show="filled", texts=SEVERITIES, width=110),
                Column(title="Run", label="run", link=TO_RUN, no_value="none"),
                Column(title="Node", label="node", link=TO_NODE, no_value="none", width=170),
                Column(title="GPU", label="gpu", no_value="none", width=60),
                Column(title="Partition", label="partition", no_value="none", width=170),
                Column(title="Collector", label="collector", no_value="none", width=170),
                Column(
                    title="For",
                    expr=f"max by ({_WHAT}) ({_SINCE} and ignoring (alertstate) {_FIRING})",
                    unit="s",
                    decimals=0,
                    width=130,
                ),
            ),
        ),
    ),
)
_RUNS = Row(
    12,
    (
        Table(
            title="Runs",
            description="Runs that are not done, and those that failed in the last week. Those with alerts first. A "
            "click on the name opens the run.",
            width=24,
            rows="max by (run, user, kind, stage, state) ("
            f"({_ALIVE}) * on (run) group_left (user, kind, stage) topk by (run) (1, {CHOSEN}))",
            no_value="none: no run is under way",
            sort="-Alerts",
            columns=(
                Column(title="Run", label="run", link=TO_RUN, width=210),
                Column(title="State", label="state", show="filled", texts=STATES, width=90),
                Column(
                    title="Alerts",
                    expr=_of_alive(f"count by (run) ({_FIRING})"),
                    show="color",
                    levels=NONE_IS_GOOD,
                    width=70,
                    no_value="none",
                ),
                Column(title="User", label="user", width=100),
                Column(title="Kind", label="kind", width=100),
                Column(title="Stage", label="stage", width=120, no_value="none"),
                Column(title="GPUs", expr=_of_alive("max by (run) (xgen_run_gpus)"), decimals=0, width=70),
                Column(
                    title="Progress",
                    expr=_of_alive(DONE),
                    unit="percentunit",
                    decimals=0,
                    show="bar",
                    levels=("blue",),
                    high=1,
                    width=150,
                    no_value="none",
                ),
                Column(
                    title="Speed",
                    expr=_of_alive("max by (run) (run:xgen_train_tokens:rate1m)"),
                    unit="si:tok/s",
                    decimals=1,
                    width=110,
                    no_value="none",
                ),
                Column(
                    title="Effective time",
                    expr=_of_alive("max by (run) (xgen_run_effective_time_ratio)"),
                    unit="percentunit",
                    decimals=0,
                    show="color",
                    levels=RATIO,
                    width=110,
                    no_value="none",
                ),
                Column(
                    title="Since a step",
                    expr=_of_alive("max by (run) (run:xgen_train_progress_age_seconds:min)"),
                    unit="s",
                    decimals=0,
                    show="color",
                    levels=STEP_AGE,
                    width=105,
                    no_value="none",
                ),
                Column(
                    title="At stake",
                    expr=_of_alive("max by (run) (run:xgen_train_unsaved_seconds:min)"),
                    unit="s",
                    decimals=0,
                    show="color",
                    levels=UNSAVED_AGE,
                    width=100,
                    no_value="none",
                ),
                Column(
                    title="Restarts",
                    expr=_of_alive("sum by (run) (xgen_run_restarts_total)"),
                    decimals=0,
                    width=85,
                ),
            ),
        ),
    ),
)
DASHBOARD = Dashboard(
    name="fleet",
    title="xgen fleet",
    description="All runs and the cluster that they share: what is wrong, what it costs, who uses what.",
    since="now-24h",
    variables=(EXPORTER, PROJECT, USER),
    annotations=(
        Annotation(
            "Alerts",
            "red",
            f"max by (alertname) ({_FIRING})",
            "{{alertname}}",
            "docs/monitoring.md says what to do",
            value_is_time=False,
        ),
    ),
    rows=(_NUMBERS, _WRONG, _RUNS, USE, QUEUE, COST, PARTITIONS),
)
