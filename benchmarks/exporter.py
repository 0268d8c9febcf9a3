"""`xgen exporter` on a large cluster: `python -m benchmarks.exporter [--json] [--seconds N] [--nodes N] [--jobs N]`.

SLURM's commands are scripts on PATH that print what a cluster of 5,000 nodes (each in two partitions, 8 GPUs) and
20,000 jobs would; 2,000 run directories have 2.5 million events; the exporter is the real process. "poll" is all
collectors once, with the start of the process: every event is read. A later poll of the runs follows 30 s of theirs.
Scrapes are timed over whole polls, from the connection to the last byte, by one client and by eight at 5 a second; the
commands that were started in both times are counted. The peer is a bare server that sends the same bytes and does
nothing else: what the machine's other work costs a scrape. The shape of `--json` is that of SLURM 23.11.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Figure, Result, peak_memory
from benchmarks.fleet_runs import make_runs
from benchmarks.slurm_outputs import make_cluster

GOALS = {
    "scrape p99": 100.0, "scrape p99, 8 scrapers": 100.0, "poll": 10.0, "first poll of the runs": 10.0,
    "later poll of the runs": 1.0, "memory": 500.0,
}  # fmt: skip
_PAUSE = 0.2  # seconds between two scrapes of a client
_PATIENCE = 300  # seconds until the first poll of each is done
_PROFILE = (
    "scheduler: slurm\nrun_root: {root}/runs\npartitions: {{p0: {{}}}}\nmetrics: {{port: 0, slurm_output: {how}}}\n"
)


@dataclass(frozen=True)
class ExporterResult(Result):
    """`facts` are counts, not times."""

    facts: Mapping[str, float]

    def print(self, as_json: bool) -> None:
        super().print(as_json)
        if not as_json:
            for name, value in self.facts.items():
                print(f"{name}: {value:,.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=int, default=65, help="how long scrapes are timed, twice; a poll is every 30")
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=20000)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="polls that are timed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options).print(options.json)


def run(folder: Path, options: argparse.Namespace) -> Result:
    make_cluster(folder, options.nodes, options.jobs)
    running = [line.split("|")[0] for line in (folder / "squeue.txt").read_text().splitlines() if "|RUNNING|" in line]
    make_runs(folder / "runs", options.runs, running)
    for how in ("rows", "json"):
        (folder / f"{how}.yaml").write_text(_PROFILE.format(root=folder, how=how))
    environment = {**os.environ, "PATH": f"{folder}/bin:/usr/bin:/bin"}
    polls = {
        how: [poll_once(folder / f"{how}.yaml", environment) for _ in range(options.rounds)] for how in ("rows", "json")
    }
    runs = poll_runs(folder / "runs", environment)
    scrapes, calls = {}, {}
    with serving(folder / "rows.yaml", environment) as (process, port):
        for number in (1, 8):
            before = count_calls(folder)
            scrapes[number] = scrape(port, number, options.seconds)
            calls[number] = (count_calls(folder) - before) * 60 / options.seconds
        text = get(port, gzip=False)
        packed = get(port, gzip=True)
        high = peak_memory(process.pid)
    bare = scrape_bare(packed, 8, options.seconds)
    series = {m[1]: float(m[2]) for m in re.finditer(rb'xgen_exporter_series\{collector="(\w+)"\} (\S+)', text)}
    figures = {
        "scrape p99": Figure.of([p99(scrapes[1])], "ms"),
        "scrape p99, 8 scrapers": Figure.of([p99(scrapes[8])], "ms"),
        "scrape": Figure.of(scrapes[1], "ms"),
        "scrape, 8 scrapers": Figure.of(scrapes[8], "ms"),
        "poll": Figure.of([cpu for cpu, _ in polls["rows"]]),
        "poll with --json": Figure.of([cpu for cpu, _ in polls["json"]]),
        "first poll of the runs": Figure.of([runs["first"]]),
        "later poll of the runs": Figure.of(runs["later"]),
        "memory": Figure.of([high], "MB"),
        "memory of a poll": Figure.of([memory for _, memory in polls["rows"]], "MB"),
        "memory of a poll with --json": Figure.of([memory for _, memory in polls["json"]], "MB"),
    }
    facts = {
        "series": sum(series.values()),
        **{f"series of {name.decode()}": count for name, count in series.items()},
        "bytes of a scrape": float(len(text)),
        "bytes of a scrape with gzip": float(len(packed)),
        "commands a minute, 1 scraper": calls[1],
        "commands a minute, 8 scrapers": calls[8],
    }
    peers = {"bare server p99, 8 scrapers": Figure.of([p99(bare)], "ms")}
    return ExporterResult("exporter", figures, peers, GOALS, facts)


def poll_runs(run_root: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The collector of runs alone: see `benchmarks.fleet_runs.poll`."""
    command = [sys.executable, "-m", "benchmarks.fleet_runs", str(run_root)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks.fleet_runs: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


_REPORT = """
import atexit, re, sys, time
from pathlib import Path
from xgen.cli.main import main
def say():
    high = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
    print("USED", time.process_time(), int(high[1]) / 1024, file=sys.stderr)
atexit.register(say)
sys.argv[0] = "xgen"
main()
"""


def poll_once(profile: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """CPU seconds of `xgen exporter --once`, without its commands, and its memory in MB."""
    command = [sys.executable, "-c", _REPORT, "exporter", "--cluster", str(profile), "--once"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"xgen exporter --once: {done.stderr}")
    _, cpu, memory = done.stderr.splitlines()[-1].split()
    return float(cpu), float(memory)


_BARE = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
body = sys.stdin.buffer.read()
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def scrape_bare(body: bytes, number: int, seconds: float) -> list[float]:
    with subprocess.Popen([sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(body)
        process.stdin.close()
        try:
            return scrape(int(process.stdout.readline()), number, seconds)
        finally:
            process.terminate()


@contextmanager
def serving(profile: Path, environment: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The exporter, once all that it serves is there."""
    command = [sys.executable, "-m", "xgen.cli.main", "exporter", "--cluster", str(profile)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r":(\d+)/metrics", line := process.stderr.readline())
            if found is None:
                raise SystemExit(line)
            until = time.monotonic() + _PATIENCE
            for name in (b"nodes", b"runs"):
                while b'xgen_exporter_collector_success{collector="%s"} 1' % name not in get(int(found[1]), gzip=False):
                    if time.monotonic() > until:
                        raise SystemExit(f"not within {_PATIENCE} s: a poll of {name.decode()} that works")
                    time.sleep(0.2)
            yield process, int(found[1])
        finally:
            process.terminate()


def get(port: int, gzip: bool) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip" if gzip else "identity"})
    body = connection.getresponse().read()
    connection.close()
    return body


def scrape(port: int, number: int, seconds: float) -> list[float]:
    """Milliseconds of each scrape that `number` clients made in that time, as Prometheus does, with gzip."""
    taken: list[float] = []
    end = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            get(port, gzip=True)
            taken.append(1000 * (time.perf_counter() - began))
            time.sleep(_PAUSE * random.uniform(0.5, 1.5))

    clients = [threading.Thread(target=client) for _ in range(number)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return taken


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


def count_calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


if __name__ == "__main__":
    main()
