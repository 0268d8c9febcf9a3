"""The machines: which are out of use and why, and what the GPUs of each run do."""

from __future__ import annotations

from monitoring.source.charts import Bands, Stat, States
from monitoring.source.dashboard import Dashboard, Row, Variable
from monitoring.source.gpus import DETAILS, GPUS, TEMPERATURE, UNREAD, USE, XID
from monitoring.source.look import (
    EXPORTER,
    HERE,
    TO_NODE,
    TO_NODE_OF_SERIES,
    or_zero,
)
from monitoring.source.panel import PLAIN, Levels, Named, Query
from monitoring.source.table import Column, Table

# SLURM's states by what they mean for a job; a node that is drained takes no new one, what runs there goes on.
# A star: it does not answer.
_IN_USE, _FREE = 'status=~"(alloc|mix|comp)[^*]*"', 'status=~"(idle|plan)[^*]*"'
_RESERVED = 'status=~"(res|maint|power|reboot|block|future)[^*]*"'
_DRAINED, _DOWN = 'status=~"(drain|drng)[^*]*"', 'status=~"(down|fail|err|inval|unk).*|.*[*]"'
_OUT_OF_USE = 'status=~"(drain|drng|down|fail|err|inval|unk).*|.*[*]"'
_CHOSEN = f'{HERE}, partition=~"$partition", node=~"$node"'
_SEEN = f"slurm_node_status{{{_CHOSEN}}}"
_CLASSES = (
    ("in use", _IN_USE, "green"),
    ("free", _FREE, "blue"),
    ("reserved", _RESERVED, "purple"),
    ("drained", _DRAINED, "orange"),
    ("down", _DOWN, "red"),
)


def _status(states: str) -> str:
    return f"max by (node, status) (slurm_node_status{{{_CHOSEN}, {states}}} == 1)"


def _counted(states: str) -> str:
    record = "status:slurm_nodes:count"
    return or_zero(f"sum({record}{{{HERE}, {states}}})", f"{record}{{{HERE}}}")


def _number(title: str, states: str, description: str, levels: Levels) -> Stat:
    return Stat(
        title=title,
        description=description,
        width=3,
        queries=(Query(or_zero(f"count({_status(states)})", _SEEN), "nodes", instant=True),),
        decimals=0,
        no_value="blind",
        levels=levels,
    )


_NUMBERS = Row(
    4,
    (
        _number("Nodes in use", _IN_USE, "Nodes on which jobs run.", PLAIN),
        _number("Nodes free", _FREE, "Nodes that would take a job now.", PLAIN),
        _number(
            "Nodes drained",
            _DRAINED,
            "Nodes that take no new job. The reason is in the table below: repair what it names, then "
            "`scontrol update nodename=NODE state=resume`.",
            ("text", (1, "orange")),
        ),
        _number(
            "Nodes down",
            _DOWN,
            "Nodes that do not answer the scheduler. Jobs on them are lost; xgen's runs start again elsewhere.",
            ("text", (1, "red")),
        ),
        Stat(
            title="GPUs free",
            description="GPUs that a job could have now: on nodes that are up and take jobs.",
            width=3,
            queries=(Query(f"sum(slurm_gpus_idle{{{HERE}}})", "free", instant=True),),
            decimals=0,
            no_value="no GPUs known",
        ),
        Stat(
            title="GPU use",
            description="Mean over the GPUs that the chosen runs hold. It says that a kernel ran, not that it was a "
            "good one: MFU, on the dashboard of the run, says that.",
            width=3,
            queries=(Query(f"avg({USE})", "use", instant=True),),
            unit="percent",
            decimals=0,
            no_value=UNREAD,
        ),
        Stat(
            title="Hottest GPU",
            description="From about 85 °C on most GPUs slow down: look at the node's fans and the room.",
            width=3,
            queries=(Query(f"max({TEMPERATURE})", "temperature", instant=True),),
            unit="celsius",
            decimals=0,
            no_value=UNREAD,
            levels=("text", (0, "green"), (80, "orange"), (88, "red")),
        ),
        Stat(
            title="GPUs with an XID",
            description="GPUs that reported an error in the last hour (alert XgenGpuXid). 79: fell off the bus; 48, "
            "63, 64, 94, 95: memory. Drain the node; the run resumes elsewhere.",
            width=3,
            queries=(Query(f"count({XID}) or 0 * count(DCGM_FI_DEV_XID_ERRORS)", "GPUs", instant=True),),
            decimals=0,
            no_value=UNREAD,
            levels=("text", (0, "green"), (1, "red")),
        ),
    ),
)
_REASON = f'max by (node, reason) (slurm_node_drain_reason_info{{{HERE}, node=~"$node"}})'
_BROKEN = _status(_OUT_OF_USE)
_NODES = Row(
    8,
    (
        Table(
            title="Nodes out of use",
            description="Drained or down, with the reason that a person or a health check gave. Repair, then "
            "`scontrol update nodename=NODE state=resume`. Many changes of state: it comes and goes (alert "
            "XgenNodeFlapping); keep it out until that is understood.",
            width=14,
            rows=f"{_REASON} * on (node) group_left (status) topk by (node) (1, {_BROKEN}) or label_replace("
            f'{_BROKEN} unless on (node) {_REASON}, "reason", "no reason was given", "", "")',
            no_value="none: no node is known to be out of use",
            sort="Node",
            columns=(
                Column(title="Node", label="node", link=TO_NODE, width=110),
                Column(title="State", label="status", width=110, show="color", levels=("orange",)),
                Column(title="Reason", label="reason"),
                Column(
                    title="Changes of state",
                    expr="max by (node) (increase(xgen_slurm_node_state_changes_total[$__range])) "
                    f"and on (node) {_BROKEN}",
                    decimals=0,
                    width=130,
                ),
            ),
        ),
        Bands(
            title="Nodes by state",
            description="Of the whole cluster. Orange and red is capacity that is lost. All red at once: the "
            "scheduler or its network, not the nodes.",
            width=10,
            queries=tuple(Query(_counted(states), name) for name, states, _ in _CLASSES),
            unit="locale",
            decimals=0,
            no_value="no exporter",
            series=tuple(Named(name, color) for name, _, color in _CLASSES),
            steps=True,
        ),
    ),
)


def _out_of_use(states: str) -> str:
    return f"max by (node) (node:slurm_node_out_of_use:max{{{_CHOSEN}, {states}}})"


_TIMES = Row(
    7,
    (
        States(
            title="Nodes that were out of use",
            description="When a node was drained or down; a gap: it took work. Bands that change together are one "
            "cause: a switch, a power line, the scheduler.",
            width=24,
            queries=(Query(f"{_out_of_use(_DRAINED)} * 0 or {_out_of_use(_DOWN)} * 0 + 1", "{{node}}"),),
            no_value="none: no node is known to have been out of use",
            levels=("orange", (1, "red")),
            texts={0: ("drained", "orange"), 1: ("down", "red")},
            links=(TO_NODE_OF_SERIES,),
        ),
    ),
)
DASHBOARD = Dashboard(
    name="nodes",
    title="xgen nodes and GPUs",
    description="The machines: which are out of use and why, and what the GPUs of each run do.",
    variables=(
        EXPORTER,
        Variable("partition", "Partition", "label_values(slurm_node_status, partition)", many=True, all=True),
        Variable("node", "Node", 'label_values(slurm_node_status{partition=~"$partition"}, node)', many=True, all=True),
        Variable("run", "Run", "label_values(xgen_gpu_info, run)", many=True, all=True),
    ),
    rows=(_NUMBERS, _NODES, _TIMES, GPUS, DETAILS),
)
