"""Rows of the nodes' dashboard: what the GPUs of each run do."""

from __future__ import annotations

from monitoring.source.charts import Bars, Lines
from monitoring.source.dashboard import Row
from monitoring.source.look import HERE, TO_NODE, TO_NODE_OF_SERIES, TO_RUN, TO_RUN_OF_SERIES, by_host
from monitoring.source.panel import Query
from monitoring.source.table import Column, Table

_INFO = 'topk by (hostname, gpu) (1, xgen_gpu_info{hostname=~"$node", run=~"$run"})'


def of_gpus(metric: str) -> str:
    """Of the GPUs that the chosen runs hold on the chosen nodes, with the run."""
    return f"({by_host(metric)} * on (hostname, gpu) group_left (run) {_INFO})"


USE = of_gpus("DCGM_FI_DEV_GPU_UTIL")
_RECENT_USE = of_gpus("avg_over_time(DCGM_FI_DEV_GPU_UTIL[15m])")
XID = of_gpus("max_over_time(DCGM_FI_DEV_XID_ERRORS[1h])")
_MEMORY = of_gpus("DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)")
TEMPERATURE = of_gpus("DCGM_FI_DEV_GPU_TEMP")
_POWER = of_gpus("DCGM_FI_DEV_POWER_USAGE")
UNREAD = "none: no GPU is read"

GPUS = Row(
    8,
    (
        Lines(
            title="GPU use by run",
            description="Mean over the GPUs that each run holds. Near 0 for long: held and idle. A saw: the GPUs wait "
            "for data, or for saves.",
            width=8,
            queries=(Query(f"avg by (run) ({USE})", "{{run}}"),),
            unit="percent",
            high=100,
            axis="from zero",
            no_value=UNREAD,
            legend="list",
            links=(TO_RUN_OF_SERIES,),
        ),
        Lines(
            title="GPU use by node",
            description="One node below the others of its run: it is slow, and all others wait for it. `xgen status` "
            "names the slowest rank.",
            width=8,
            queries=(Query(f'label_replace(avg by (hostname) ({USE}), "node", "$1", "hostname", "(.*)")', "{{node}}"),),
            unit="percent",
            high=100,
            axis="from zero",
            no_value=UNREAD,
            legend="list",
            links=(TO_NODE_OF_SERIES,),
        ),
        Lines(
            title="GPU memory by run",
            description="The fullest GPU of each run. Above 95 % a longer document or another stage may not fit: use "
            "more of fsdp or cp, or checkpoint activations.",
            width=8,
            queries=(Query(f"max by (run) ({_MEMORY})", "{{run}}"),),
            unit="percentunit",
            high=1,
            axis="from zero",
            no_value=UNREAD,
            legend="list",
            levels=("text", (0.95, "red")),
            limits=True,
            links=(TO_RUN_OF_SERIES,),
        ),
    ),
)
_KEYS = "by (hostname, gpu)"
_LOOK_AT = f"(({_RECENT_USE} < 5) or ({XID} > 0))"
DETAILS = Row(
    8,
    (
        Table(
            title="GPUs to look at",
            description="Held by a run, and idle for 15 minutes or with an XID error. Idle: ask who holds it. XID 79: "
            "fell off the bus; 48, 63, 64, 94, 95: memory; drain the node.",
            width=14,
            rows=f"max by (hostname, gpu, run) ({_LOOK_AT})",
            no_value="none: all GPUs that are held work",
            sort="-XID",
            columns=(
                Column(title="Node", label="hostname", link=TO_NODE, width=110),
                Column(title="GPU", label="gpu", width=60),
                Column(title="Run", label="run", link=TO_RUN),
                Column(
                    title="XID",
                    expr=f"max {_KEYS} ({XID}) > 0",
                    decimals=0,
                    show="filled",
                    levels=("red",),
                    width=70,
                    no_value="none",
                ),
                Column(
                    title="Use, 15 min",
                    expr=f"max {_KEYS} ({_RECENT_USE}) and on (hostname, gpu) {_LOOK_AT}",
                    unit="percent",
                    decimals=0,
                    width=100,
                ),
                Column(
                    title="Power",
                    expr=f"max {_KEYS} ({_POWER}) and on (hostname, gpu) {_LOOK_AT}",
                    unit="watt",
                    decimals=0,
                    width=90,
                ),
                Column(
                    title="Temperature",
                    expr=f"max {_KEYS} ({TEMPERATURE}) and on (hostname, gpu) {_LOOK_AT}",
                    unit="celsius",
                    decimals=0,
                    width=110,
                ),
            ),
        ),
        Lines(
            title="Slowest rank",
            description="How long the slowest rank takes for the same work, over the median rank. From 1.2 on all "
            "others wait for it (alert XgenRunSlowRank): `xgen status RUN` names its node; exclude it.",
            width=5,
            queries=(Query('max by (run) (xgen_train_slowest_rank_ratio{run=~"$run"})', "{{run}}"),),
            unit="none",
            decimals=2,
            axis="free",
            no_value="none: no run compares its ranks",
            legend="list",
            levels=("text", (1.2, "orange")),
            limits=True,
            links=(TO_RUN_OF_SERIES,),
        ),
        Bars(
            title="Nodes that change most",
            description="Changes of state in this time range. More than a few: it comes and goes (alert "
            "XgenNodeFlapping), and takes jobs that it then loses. Drain it.",
            width=5,
            queries=(
                Query(
                    "topk(8, max by (node) "
                    f'(increase(xgen_slurm_node_state_changes_total{{{HERE}, node=~"$node"}}[$__range])) > 0)',
                    "{{node}}",
                    instant=True,
                ),
            ),
            decimals=0,
            low=0,
            no_value="none: no state changed",
            levels=("blue", (4, "orange")),
            links=(TO_NODE_OF_SERIES,),
        ),
    ),
)
