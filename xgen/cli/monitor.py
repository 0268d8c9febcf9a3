"""`xgen monitor up|down|status`: the whole view of a cluster on one machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json, usage

if TYPE_CHECKING:
    from xgen.metrics.stack import Seen

_CHECKOUT = Path(__file__).resolve().parents[2]
StateOption = Annotated[
    Path, typer.Option("--state", metavar="DIR", help="Where all that it writes lies; one for each stack.")
]

app = typer.Typer(
    help="Run Prometheus, Alertmanager, the exporter, and Grafana where it is installed, on this machine.\n\n"
    "For a cluster's own servers see docs/monitoring.md: compose.yaml and systemd units.",
    no_args_is_help=True,
)


@app.command()
def up(
    cluster: ClusterOption = None,
    state: StateOption = _CHECKOUT / ".cache" / "monitor",
    config: Annotated[
        Path, typer.Option("--config", metavar="DIR", help="prometheus.yml, alertmanager.yml, rules/, dashboards/.")
    ] = _CHECKOUT / "monitoring",
    port: Annotated[int, typer.Option("--port", help="Of Prometheus.")] = 19090,
    alertmanager_port: Annotated[int, typer.Option("--alertmanager-port")] = 19093,
    grafana_port: Annotated[int, typer.Option("--grafana-port")] = 13000,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="2s", help="Of scrapes and rules. Default: prometheus.yml's.")
    ] = None,
    retention: Annotated[str, typer.Option("--retention", metavar="15d", help="How long samples are kept.")] = "15d",
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="Who is told of alerts. Default: nobody.")
    ] = None,
    exporter: Annotated[
        bool, typer.Option("--exporter/--no-exporter", help="Start one, or ask the one that the profile's address has.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Start what does not run yet. Safe to repeat: what runs reads rules and routes anew."""
    import re

    from xgen.metrics.stack import Stack, StackError, Wanted
    from xgen.spec import find_profile, load_profile

    for option, value in (("--interval", interval), ("--retention", retention)):
        if value is not None and not re.fullmatch(r"([1-9][0-9]*(ms|[smhdwy]))+", value):
            usage(f"{option}: {value} is no duration; write e.g. 2s or 15d")
    _, file = find_profile(cluster, Path.cwd())
    ports = {"prometheus": port, "alertmanager": alertmanager_port, "grafana": grafana_port}
    wanted = Wanted(load_profile(file), file.resolve(), config.resolve(), ports, interval, retention, webhook, exporter)
    stack = Stack(state.resolve())
    try:
        stack.up(wanted)
    except StackError as error:
        print(f"xgen monitor: {error}", file=sys.stderr)
        sys.exit(1)
    _tell(stack.look(), as_json)


@app.command()
def status(state: StateOption = _CHECKOUT / ".cache" / "monitor", as_json: JsonOption = False) -> None:
    """What runs, and where. Exit code 1 unless all that is installed answers."""
    from xgen.metrics.stack import Stack

    seen = Stack(state.resolve()).look()
    _tell(seen, as_json)
    sys.exit(0 if all(one.ready for one in seen if one.installed) else 1)


@app.command()
def down(
    state: StateOption = _CHECKOUT / ".cache" / "monitor",
    remove: Annotated[bool, typer.Option("--remove", help="Remove all that they wrote, too.")] = False,
) -> None:
    """End all of it. What was measured stays for the next `up`."""
    from xgen.metrics.stack import Stack

    Stack(state.resolve()).down(remove)
    print("is down", file=sys.stderr)


def _tell(seen: list[Seen], as_json: bool) -> None:
    if as_json:
        print_json({one.name: one for one in seen})
        return
    for one in seen:
        if not one.installed:
            print(f"{one.name:<13} is not installed; dashboards: monitoring/dashboards")
        elif not one.url:
            print(f"{one.name:<13} is down")
        else:
            print(f"{one.name:<13} {one.url}{'' if one.ready else f'  does not answer: {one.log}'}")
