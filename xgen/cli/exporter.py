"""`xgen exporter`: a cluster's metrics for Prometheus, until it is stopped."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, usage

if TYPE_CHECKING:
    from xgen.metrics.exporter import Collector, Exporter, Targets
    from xgen.spec import Profile
    from xgen.spec.cluster import Metrics


def command(
    cluster: ClusterOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="Ask everything once, print the metrics, and end; 1 when something failed.")
    ] = False,
    gpus: Annotated[
        bool, typer.Option("--gpus", help="Of the GPUs of this node instead: what dcgm-exporter would serve.")
    ] = False,
) -> None:
    """Serve the metrics of a cluster: its SLURM, all its runs, and where Prometheus finds those that train.

    Asks each source at its own pace, however many Prometheus servers ask here: /metrics, /sd, /-/healthy. Where it
    listens, TLS and passwords are keys of `metrics` in the cluster profile. docs/monitoring.md names every metric.
    """
    from pathlib import Path

    import xgen
    from xgen.metrics.exporter import Exporter, SetupError
    from xgen.spec import find_profile, load_profile

    name, file = find_profile(cluster, Path.cwd())
    profile = load_profile(file)
    try:
        targets, collectors = (None, [_gpus()]) if gpus else collectors_of(profile, name)
        exporter = Exporter(collectors, xgen.__version__)
        if once:
            sys.exit(_once(exporter))
        serve(exporter, targets, profile.metrics, name)
    except SetupError as error:
        usage(str(error))


def collectors_of(profile: Profile, cluster: str) -> tuple[Targets, list[Collector]]:
    """All of a cluster; where Prometheus finds its runs is one of them."""
    from pathlib import Path

    from xgen.metrics import fleet, gpu, slurm
    from xgen.metrics.exporter import Targets

    targets = Targets(Path(profile.run_root) / ".discovery")
    found: list[Collector] = []
    if profile.scheduler == "slurm":
        found = slurm.collectors(list(profile.partitions), as_json=profile.metrics.slurm_output == "json")
    queue = next((one for one in found if isinstance(one, slurm.Queue)), None)
    runs = fleet.Runs(Path(profile.run_root), cluster, profile.default_partition, queue)
    settling = fleet.Settling(
        Path(profile.run_root), lambda: runs.lost, lambda: runs.not_launched, acts=profile.metrics.settle
    )
    messages = fleet.Messages(profile, cluster, lambda: settling.left)
    return targets, [targets, *found, runs, settling, messages, *([gpu.Allocated(queue, runs)] if queue else [])]


def serve(exporter: Exporter, targets: Targets | None, settings: Metrics, cluster: str) -> None:
    """Until SIGTERM or SIGINT; no targets: the GPUs of this node. Raises SetupError."""
    import gc
    import signal
    import threading
    from pathlib import Path

    from xgen.metrics.discovery import host_port
    from xgen.metrics.exporter import App, read_users, tls_context
    from xgen.metrics.serve import Serving

    port, key = (settings.port, "port") if targets else (settings.gpu_port, "gpu_port")
    users = read_users(Path(settings.basic_auth.file)) if settings.basic_auth else None
    tls = tls_context(Path(settings.tls.cert), Path(settings.tls.key)) if settings.tls else None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        serving = Serving(App(exporter, targets, users), settings.address, port, name="web", tls=tls)
    except OSError as error:
        place = f"cluster profile: metrics.address {settings.address!r}, metrics.{key} {port}"
        usage(f"{place}: {error.strerror}; write an address of this machine, and a port that is free")
    sys.setswitchinterval(0.0005)  # while a poll computes, a scrape must not wait 5 ms at each of its steps
    gc.freeze()  # nor for a look through all modules
    exporter.start()
    url = f"{'https' if tls else 'http'}://{host_port(settings.address, serving.port)}"
    print(f"xgen exporter: {cluster}: {url}/metrics", file=sys.stderr, flush=True)
    stop.wait()
    serving.close()
    exporter.close()


def _gpus() -> Collector:
    """Raises SetupError."""
    from xgen.metrics.gpu import Nvml

    return Nvml()


def _once(exporter: Exporter) -> int:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(exporter.pollers)) as pool:
        for poller in exporter.pollers.values():
            pool.submit(poller.poll)
    sys.stdout.write(exporter.page().decode())
    for name, poller in exporter.pollers.items():
        part, seconds = poller.part(), poller.state.duration or 0.0
        print(f"{name:<12} {part.num_series if part else 'failed':>8} series  {seconds:.2f} s", file=sys.stderr)
    return 0 if all(poller.healthy() for poller in exporter.pollers.values()) else 1
