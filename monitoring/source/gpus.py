"""Rows of the nodes' dashboard: what the GPUs of each run do."""

from __future__ import annotations

from monitoring.source.charts import Bars, Lines
from monitoring.source.dashboard import Row
from monitoring.source.look import HERE, TO_NODE, TO_NODE_OF_SERIES, TO_RUN, TO_RUN_OF_SERIES, by_host
from monitoring.source.panel import Query
from monitoring.source.table import Column, Table

_CHOSEN = 'hostname=~"$node", run=~"$run"'
_HELD = f"topk by (hostname, gpu) (1, xgen_gpu_info{{{_CHOSEN}}})"
_XID_RECORD = 'gpu:xgen_gpu_xid:max1h{hostname=~"$node"}'
USE = f"node:xgen_gpu_use_percent:avg{{{_CHOSEN}}}"
XID = (  # with the run that holds the GPU, if one does
    f"({_XID_RECORD} * on (hostname, gpu) group_left (run, job_id) {_HELD} "
    f"or {_XID_RECORD} unless on (hostname, gpu) xgen_gpu_info)"
)
TEMPERATURE = f"{by_host('DCGM_FI_DEV_GPU_TEMP')} * on (hostname, gpu) group_left (run) {_HELD}"
UNREAD = "none: no GPU is read"
_IDLE = f"gpu:xgen_gpu_idle_use_percent:avg15m{{{_CHOSEN}}}"
_MEMORY = f"node:xgen_gpu_memory_used:ratio{{{_CHOSEN}}}"

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
DETAILS = Row(
    8,
    (
        Table(
            title="GPUs to look at",
            description="Held by a run, and idle for 15 minutes or with an XID error. Idle: ask who holds it. XID 79: "
            "fell off the bus; 48, 63, 64, 94, 95: memory; drain the node.",
            width=14,
            rows=f"max by (hostname, gpu, run, job_id) ({_IDLE} or {XID})",
            no_value="none: no GPU is known to be idle or broken",
            sort="-XID",
            columns=(
                Column(title="Node", label="hostname", link=TO_NODE, width=120),
                Column(title="GPU", label="gpu", width=60),
                Column(title="Run", label="run", link=TO_RUN, no_value="none"),
                Column(title="Job", label="job_id", width=110, no_value="none"),
                Column(
                    title="XID",
                    expr=f"max by (hostname, gpu) ({XID})",
                    decimals=0,
                    show="filled",
                    levels=("red",),
                    width=80,
                    no_value="none",
                ),
                Column(
                    title="Use, 15 min",
                    expr=f"max by (hostname, gpu) ({_IDLE})",
                    unit="percent",
                    decimals=0,
                    width=110,
                    no_value="none",
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
