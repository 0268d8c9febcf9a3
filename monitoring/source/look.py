"""Colours that mean the same on every dashboard, the links between them, and PromQL that several have."""

from __future__ import annotations

from monitoring.source.dashboard import Variable, open_dashboard
from monitoring.source.panel import Levels, Named, Texts

GREY, FAINT = "#6e7687", "#9a9ca8"
PHASES = (
    Named("train", "green"),
    Named("generate", "#56A64B"),  # of online RL
    Named("verify", "#C8F2C2"),
    Named("work", "#96D98D"),  # of runs without steps
    Named("data_wait", "yellow"),
    Named("validation", "#2f9e8f"),
    Named("checkpoint", "blue"),
    Named("replay", "orange"),
    Named("start", "#7a86a8"),
    Named("restore", "light-blue"),
    Named("queued", "#50545c"),
    Named("stop", "purple"),
)
# States of a run, in the order in which they need a person.
STATES: Texts = {
    "finished": ("finished", "blue"),
    "cancelled": ("cancelled", GREY),
    "queued": ("queued", FAINT),
    "stopping": ("stopping", "purple"),
    "running": ("running", "green"),
    "failed": ("failed", "red"),
    "lost": ("lost", "red"),
}
SEVERITIES: Texts = {"critical": ("critical", "red"), "warning": ("warning", "orange")}
RESTARTS = (
    Named("preempted", "blue"),
    Named("time_limit", "light-blue"),
    Named("crashed", "red"),
    Named("lost", "red"),
)
ENDS = (  # of SLURM's jobs
    Named("completed", "green"),
    Named("failed", "red"),
    Named("node_fail", "orange"),
    Named("out_of_memory", "#C15C17"),
    Named("timeout", "yellow"),
    Named("preempted", "blue"),
    Named("requeued", "light-blue"),
    Named("cancelled", GREY),
)
# A value that is absent takes the first colour, in Grafana: it must not be one that says that all is well.
NONE_IS_GOOD: Levels = ("text", (0, "green"), (1, "red"))
RATIO: Levels = ("text", (0, "orange"), (0.8, "green"))  # red is for what is broken, not for what is slow
UP: Levels = ("red", (1, "green"))  # of what is 0 or 1
ANSWERS: Texts = {0: ("does not answer", "red"), 1: ("answers", "green")}
STEP_AGE: Levels = ("text", (0, "green"), (300, "orange"), (900, "red"))  # as XgenRunStalled
UNSAVED_AGE: Levels = ("text", (0, "green"), (3600, "orange"), (7200, "red"))  # as XgenRunCheckpointTooOld

TO_RUN = open_dashboard("run", "Open the run", run="${__value.text}")
TO_RUN_OF_SERIES = open_dashboard("run", "Open the run", run="${__field.labels.run}")
TO_NODE = open_dashboard("nodes", "Open the node", node="${__value.text}")
TO_NODE_OF_SERIES = open_dashboard("nodes", "Open the node", node="${__field.labels.node}")

EXPORTER = Variable(
    "exporter", "Cluster's exporter", "label_values(xgen_exporter_build_info, instance)", many=True, all=True
)
PROJECT = Variable("project", "Project", "label_values(xgen_run_info, project)", many=True, all=True)
USER = Variable("user", "User", "label_values(xgen_run_info, user)", many=True, all=True)
HERE = 'instance=~"$exporter"'
ALERTS = 'alertname=~"Xgen.+"'
DONE = (  # part of the plan
    "(max by (run) (xgen_run_highest_step) / max by (run) (xgen_run_planned_steps) "
    'or sum by (run) (xgen_run_shards{state="finished"}) / sum by (run) (xgen_run_shards))'
)


def or_zero(count: str, seen: str) -> str:
    """A count that is 0, not absent, while `seen` is there: the same poll's, so that what nobody sees is no 0."""
    return f"{count} or 0 * count({seen})"


def runs_in(state: str, chosen: str) -> str:
    """How many of the chosen runs are in this state; the poll that sees them sees their file system too."""
    count = f'count((xgen_run_state{{state="{state}"}} == 1) and on (run) {chosen})'
    return or_zero(count, "xgen_filesystem_size_bytes")


def by_host(gpu_metric: str) -> str:
    """dcgm-exporter's label is Hostname up to 4.5, hostname after."""
    return f'max by (hostname, gpu) (label_replace({gpu_metric}, "hostname", "$1", "Hostname", "(.+)"))'
