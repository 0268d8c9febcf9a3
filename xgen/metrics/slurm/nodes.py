"""Nodes, CPUs and GPUs: by state and partition, and each node by itself, from one `sinfo`.

The names are those of the SLURM exporters in use. What a node has counts once in the totals, however many partitions
it is in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import Metric

from xgen.cluster import values
from xgen.metrics.exporter import CollectorError
from xgen.metrics.exporter.collector import counters, gauge, gauges
from xgen.metrics.exporter.command import chunks, output
from xgen.metrics.slurm import json_rows
from xgen.metrics.slurm.rows import NodeRow, parse, wide_columns

_COMMAND = ("sinfo", "--all", "--Node")
# The first letters of sinfo's word, and the metric's: as the exporters in use sort them.
_STATES = {
    "alloc": "alloc", "comp": "comp", "down": "down", "drain": "drain", "fail": "fail", "err": "err", "idle": "idle",
    "inval": "inval", "maint": "maint", "mix": "mix", "res": "resv", "planned": "planned",
}  # fmt: skip
_MAX_REASON = 200  # characters of a label; Prometheus is told to refuse 250 (monitoring/prometheus.yml)
_PER_NODE = ["node", "status", "partition"]


class Nodes:
    name = "nodes"
    interval = 30.0
    timeout = 25.0

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._usable: dict[str, bool] = {}  # by node: whether it took work at the last poll
        self._changes: Counter[str] = Counter()

    def poll(self) -> Iterable[Metric]:
        rows = self.rows()
        if not rows:
            raise CollectorError("malformed", "sinfo: no nodes at all")
        self._count_changes(rows)
        return self._metrics(rows)

    def rows(self) -> list[NodeRow]:
        """Raises CollectorError."""
        if self._as_json:
            return list(json_rows.nodes(chunks((*_COMMAND, "--json"), self.timeout)))
        command = (*_COMMAND, "--noheader", "--noconvert", f"--Format={wide_columns(NodeRow)}")
        return parse(NodeRow, output(command, self.timeout), "sinfo")

    def _count_changes(self, rows: Sequence[NodeRow]) -> None:
        """From taking work to not taking it, or back; a node that is gone is forgotten.

        After its start the controller knows of no node until that answers, which is no change of the node.
        """
        known = self._usable
        now = {
            row.node: known.get(row.node, True) if values.base_state(row.state) == "unknown" else _usable(row.state)
            for row in rows
        }
        for node, usable in now.items():
            self._changes[node] += self._usable.get(node, usable) != usable
        self._usable = now
        self._changes = Counter({node: self._changes[node] for node in now})

    def _metrics(self, rows: Sequence[NodeRow]) -> Iterator[Metric]:
        once = list({row.node: row for row in rows}.values())
        yield from _by_state(rows)
        yield gauge("slurm_nodes_total", "Nodes, each once.", len(once))
        yield from _cpus(once, rows)
        yield from _gpus(once, rows)
        yield from _each(rows)
        broken = {row.node: row for row in once if row.reason and not _usable(row.state)}
        yield gauges(
            "slurm_node_drain_reason_info",
            "1 for the reason that somebody or SLURM gave for a node that takes no work.",
            ["node", "reason"],
            {(node, row.reason[:_MAX_REASON]): 1 for node, row in broken.items()},
        )
        yield gauges(
            "slurm_node_drain_since_timestamp_seconds",
            "When it was given.",
            ["node"],
            {(node,): row.reason_time for node, row in broken.items() if row.reason_time is not None},
        )
        yield counters(
            "xgen_slurm_node_state_changes_total",
            "How often the node began or ceased to take work, as far as polls saw.",
            ["node"],
            {(node,): changes for node, changes in self._changes.items()},
        )


def _usable(state: str) -> bool:
    """It takes work, or has it and takes more later; what does not answer does not."""
    return values.base_state(state) in values.WORKING | {"maint", "reserved"} and "*" not in state


def _by_state(rows: Sequence[NodeRow]) -> Iterator[Metric]:
    nodes: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    groups = set()
    for row in rows:
        state = next((metric for prefix, metric in _STATES.items() if row.state.startswith(prefix)), "other")
        features = ",".join(sorted(row.features.split(","))) or "null"
        groups.add((row.partition, features))
        nodes[state][row.partition, features] += 1
    for state in (*_STATES.values(), "other"):
        counts = {group: nodes[state][group] for group in groups}
        yield gauges(f"slurm_nodes_{state}", f"Nodes in state {state}.", ["partition", "active_feature_set"], counts)


def _cpus(once: Sequence[NodeRow], rows: Sequence[NodeRow]) -> Iterator[Metric]:
    for index, (name, word) in enumerate((("alloc", "allocated"), ("idle", "idle"), ("other", "other"), ("total", ""))):
        text = {"": "CPUs.", "other": "CPUs of nodes that take no work."}.get(word, f"CPUs that are {word}.")
        yield gauge(f"slurm_cpus_{name}", text, sum(row.cpus[index] for row in once))
        by_partition: Counter[tuple[str]] = Counter()
        for row in rows:
            by_partition[(row.partition,)] += row.cpus[index]
        yield gauges(f"slurm_partition_cpus_{word or 'total'}", text, ["partition"], by_partition)


def _gpus(once: Sequence[NodeRow], rows: Sequence[NodeRow]) -> Iterator[Metric]:
    """Those of a node that takes no work are `other`, whether they are allocated or not."""
    total = sum(values.gpus(row.gres) for row in once)
    working = [row for row in once if values.base_state(row.state) in values.WORKING]
    alloc = sum(values.gpus(row.gres_used) for row in working)
    idle = sum(values.gpus(row.gres) for row in working) - alloc
    yield gauge("slurm_gpus_total", "GPUs.", total)
    yield gauge("slurm_gpus_alloc", "GPUs that are allocated.", alloc)
    yield gauge("slurm_gpus_idle", "GPUs that are idle.", idle)
    yield gauge("slurm_gpus_other", "GPUs of nodes that take no work.", total - alloc - idle)
    yield gauge("slurm_gpus_utilization", "Allocated GPUs over all.", alloc / total if total else 0)
    allocated, free = Counter[tuple[str]](), Counter[tuple[str]]()
    for row in rows:
        if values.base_state(row.state) in values.WORKING:
            used = values.gpus(row.gres_used)
            allocated[(row.partition,)] += used
            free[(row.partition,)] += values.gpus(row.gres) - used
    yield gauges("slurm_partition_gpus_allocated", "GPUs that are allocated.", ["partition"], allocated)
    yield gauges("slurm_partition_gpus_idle", "GPUs that are idle.", ["partition"], free)


def _each(rows: Sequence[NodeRow]) -> Iterator[Metric]:
    keys = {(row.node, row.state, row.partition): row for row in rows}
    yield gauges("slurm_node_status", "1 for the node's state.", _PER_NODE, dict.fromkeys(keys, 1))
    for index, name in enumerate(("alloc", "idle", "other", "total")):
        counts = {key: row.cpus[index] for key, row in keys.items()}
        yield gauges(f"slurm_node_cpu_{name}", f"CPUs of the node, {name}.", _PER_NODE, counts)
    memory = {key: row.mem_alloc for key, row in keys.items()}
    yield gauges("slurm_node_mem_alloc", "Allocated memory in MiB.", _PER_NODE, memory)
    memory = {key: row.mem_total for key, row in keys.items()}
    yield gauges("slurm_node_mem_total", "Memory in MiB.", _PER_NODE, memory)
    for name, gres in (("total", "gres"), ("used", "gres_used")):
        amounts: Mapping[tuple[str, ...], int] = {
            (*key, kind): amount for key, row in keys.items() for kind, amount in getattr(row, gres).items()
        }
        yield gauges(f"slurm_node_gres_{name}", f"Generic resources, {name}.", [*_PER_NODE, "gres_type"], amounts)
