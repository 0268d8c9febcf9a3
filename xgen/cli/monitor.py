"""`xgen monitor up|down|status`: the whole view of a cluster on one machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json, usage

if TYPE_CHECKING:
    from xgen.metrics.stack import Seen

_CHECKOUT = Path(__file__).resolve().parents[2]
_DEFAULTS: dict[str, Any] = {
    "config": str(_CHECKOUT / "monitoring"), "port": 19090, "alertmanager-port": 19093, "grafana-port": 13000,
    "interval": "none", "retention": "15d", "webhook": "none", "exporter": True,
}  # fmt: skip
StateOption = Annotated[
    Path, typer.Option("--state", metavar="DIR", help="Where all that it writes lies; one for each stack.")
]

app = typer.Typer(
    help="Run Prometheus, Alertmanager, the exporter, and Grafana where it is installed, on this machine.\n\n"
    "For a cluster's own servers see docs/monitoring.md: compose.yaml and systemd units.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def up(
    cluster: ClusterOption = None,
    state: StateOption = _CHECKOUT / ".cache" / "monitor",
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="DIR", help="prometheus.yml, alertmanager.yml, rules/, dashboards/."),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Of Prometheus. Default: 19090.")] = None,
    alertmanager_port: Annotated[
        int | None, typer.Option("--alertmanager-port", min=1, max=65535, help="Default: 19093.")
    ] = None,
    grafana_port: Annotated[
        int | None, typer.Option("--grafana-port", min=1, max=65535, help="Default: 13000.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="2s", help="Of scrapes and rules; none: prometheus.yml's.")
    ] = None,
    retention: Annotated[
        str | None, typer.Option("--retention", metavar="15d", help="How long samples are kept. Default: 15d.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="Who is told of alerts; none: nobody.")
    ] = None,
    exporter: Annotated[
        bool | None,
        typer.Option("--exporter/--no-exporter", help="Start one, or ask the one that the profile's address has."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Start what does not run yet. Safe to repeat: what runs reads rules and routes anew.

    An option that is not given stays as it was in the last `up` of this --state.
    """
    import re

    from xgen.metrics.stack import Stack, StackError, Wanted
    from xgen.spec import find_profile, load_profile

    for option, value in (("--interval", None if interval == "none" else interval), ("--retention", retention)):
        if value is not None and not re.fullmatch(r"([1-9][0-9]*(ms|[smhdwy]))+", value):
            usage(f"{option}: {value} is no duration; write e.g. 2s or 15d")
    _, file = find_profile(cluster, Path.cwd())
    given = {
        "config": None if config is None else str(config.resolve()), "port": port,
        "alertmanager-port": alertmanager_port, "grafana-port": grafana_port, "interval": interval,
        "retention": retention, "webhook": webhook, "exporter": exporter,
    }  # fmt: skip
    stack = Stack(state.resolve())
    try:
        kept = {name: value for name, value in stack.options().items() if given.get(name, 0) is None}
        _tell_kept(kept)
        options = {**_DEFAULTS, **kept, **{name: value for name, value in given.items() if value is not None}}
        interval, webhook = (None if options[name] == "none" else options[name] for name in ("interval", "webhook"))
        ports = {
            "prometheus": options["port"], "alertmanager": options["alertmanager-port"],
            "grafana": options["grafana-port"],
        }  # fmt: skip
        wanted = Wanted(
            load_profile(file), file.resolve(), Path(options["config"]), ports, interval, options["retention"], webhook,
            options["exporter"],
        )  # fmt: skip
        stack.up(wanted, {name: value for name, value in options.items() if value != _DEFAULTS[name]})
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


def _tell_kept(kept: dict[str, Any]) -> None:
    """What holds though it was not given. The path of a webhook may be its secret."""
    words = [
        "--no-exporter"
        if name == "exporter"
        else f"--{name} {urlsplit(value).hostname if name == 'webhook' else value}"
        for name, value in kept.items()
    ]
    if words:
        print(f"as in the last up: {', '.join(words)}", file=sys.stderr)


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
