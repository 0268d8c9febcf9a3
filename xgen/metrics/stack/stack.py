"""Exporter, Prometheus, Alertmanager and Grafana on this machine: started, looked at, ended."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from xgen.metrics.discovery import host_port
from xgen.metrics.stack.config import StackError, write_alertmanager, write_grafana, write_prometheus
from xgen.metrics.stack.process import Process, Started
from xgen.runs import write_atomic
from xgen.spec import Profile

# In the order in which they start; by which names they are installed, and where each says that it is ready.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "exporter": (),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "prometheus": ("prometheus",),
    "grafana": ("grafana-server",),
}
_READY = {
    "exporter": "/-/healthy", "alertmanager": "/-/ready", "prometheus": "/-/ready", "grafana": "/api/health",
}  # fmt: skip
_MARK = "xgen-monitor"  # a file in the state folder: made by us, and by nobody else
_READY_SECONDS = 60.0
_LISTENS = re.compile(r"^xgen exporter: .*: (https?://\S+)/metrics$", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """What `up` was asked for."""

    profile: Profile
    profile_file: Path
    source: Path  # folder like monitoring/
    ports: Mapping[str, int]  # of all but the exporter, whose port is the profile's
    interval: str | None  # instead of those in prometheus.yml
    retention: str
    webhook: str | None
    with_exporter: bool  # else it is one that runs already, at the profile's address


@dataclass(frozen=True)
class Seen:
    """A program as it is now. `url` is '' for what does not run."""

    name: str
    installed: bool
    ready: bool = False
    url: str = ""
    pid: int | None = None
    log: str = ""


@dataclass(frozen=True)
class Stack:
    """All that is written lies in `state`."""

    state: Path
    processes: Mapping[str, Process] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "processes", {name: Process(self.state / name) for name in PROGRAMS})

    def options(self) -> dict[str, Any]:
        """What the last `up` that went well had to remember; nothing when there was none. Raises StackError."""
        try:
            return dict(json.loads(self._options.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise StackError(f"{self._options}: {error}; remove it, and give `up` all options anew") from None

    def up(self, wanted: Wanted, options: Mapping[str, Any]) -> None:
        """Start what does not run, or was started with other settings; the others read rules and routes anew.

        `options` are what to remember for the next one. Raises StackError.
        """
        for name in ("prometheus", "alertmanager"):
            if _program(name) is None:
                package = PROGRAMS[name][0]
                raise StackError(f"{package} is not installed; write: make setup (Debian: apt-get install {package})")
        with self._locked():
            try:
                self._claim()
                self._start_all(wanted)
                write_atomic(self._options, json.dumps(dict(options)), mode=0o600)
            except OSError as error:
                raise StackError(f"{error.filename}: {error.strerror}") from None

    def down(self, remove: bool = False) -> None:
        """End all; with `remove` what they have written goes too. Raises StackError."""
        with self._locked():
            for process in reversed(list(self.processes.values())):
                process.stop()
            if remove and (self.state / _MARK).exists():
                shutil.rmtree(self.state)
        if remove:
            self._lock.unlink(missing_ok=True)

    def look(self) -> list[Seen]:
        return [self._look(name, process) for name, process in self.processes.items()]

    def _look(self, name: str, process: Process) -> Seen:
        installed, started = name == "exporter" or _program(name) is not None, process.running()
        if started is None:
            return Seen(name, installed)
        return Seen(name, installed, _ready(name, started.url), started.url, started.pid, str(process.log))

    def _start_all(self, wanted: Wanted) -> None:
        address = {name: f"http://127.0.0.1:{port}" for name, port in wanted.ports.items()}
        (Path(wanted.profile.run_root) / ".discovery").mkdir(parents=True, exist_ok=True)
        if wanted.with_exporter:
            exporter = self._exporter(wanted)
        else:
            self.processes["exporter"].stop()
            exporter = _profiles_exporter(wanted.profile)
        folder = self._folder("alertmanager")
        config = write_alertmanager(folder, wanted.source, wanted.webhook)
        _check("amtool", "check-config", config)
        self._start(
            "alertmanager",
            [f"--config.file={config}", f"--storage.path={folder / 'data'}", "--cluster.listen-address="],
            address["alertmanager"],
        )
        folder = self._folder("prometheus")
        config = write_prometheus(
            folder, wanted.source, wanted.profile, exporter, address["alertmanager"], wanted.interval
        )
        _check("promtool", "check", "config", config)
        options = [f"--storage.tsdb.path={folder / 'data'}", f"--storage.tsdb.retention.time={wanted.retention}"]
        self._start("prometheus", [f"--config.file={config}", *options], address["prometheus"])
        if _program("grafana"):
            self._grafana(wanted, address)

    def _exporter(self, wanted: Wanted) -> str:
        """Its address, which it prints: the profile may leave the port to it."""
        process = self.processes["exporter"]
        command = [sys.executable, "-m", "xgen.cli.main", "exporter", "--cluster", str(wanted.profile_file)]
        asked = f"{command} {wanted.profile.metrics!r} {wanted.profile.run_root}"
        started = process.running()
        if started is None or started.asked != asked:
            process.stop()
            started = process.start(command, "", asked, {})
        until = time.monotonic() + _READY_SECONDS
        while not started.url:
            if found := _LISTENS.search(process.log.read_text()):
                started = Started(started.pid, started.ticks, _reachable(found[1]), asked)
                process.remember(started)
            elif process.running() is None or time.monotonic() > until:
                raise self._failed("exporter")
            else:
                time.sleep(0.05)
        return started.url

    def _grafana(self, wanted: Wanted, address: Mapping[str, str]) -> None:
        folder = self._folder("grafana")
        home = Path("/usr/share/grafana")
        environment = {
            "PROMETHEUS_URL": address["prometheus"],
            "GF_PATHS_DATA": str(folder / "data"),
            "GF_PATHS_PROVISIONING": str(write_grafana(folder, wanted.source)),
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(wanted.ports["grafana"]),
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        }
        options = [f"--homepath={home}"] if home.is_dir() else []
        self._start("grafana", options, address["grafana"], environment)

    def _start(self, name: str, options: Sequence[str], url: str, environment: Mapping[str, str] | None = None) -> None:
        """`options` name all but the address. One that runs with the same ones reads its files anew."""
        process, program = self.processes[name], _program(name)
        assert program is not None
        command = [program, *options]
        if name != "grafana":
            command += [f"--web.listen-address={url.removeprefix('http://')}", "--log.level=warn"]
        asked = f"{command} {environment}"
        started = process.running()
        if started is None or started.asked != asked:
            process.stop()
            _need_free(name, url)
            process.start(command, url, asked, environment or {})
        elif name != "grafana":  # which looks for changes itself
            process.reload()
        until = time.monotonic() + _READY_SECONDS
        while not _ready(name, url):
            if process.running() is None or time.monotonic() > until:
                raise self._failed(name)
            time.sleep(0.1)

    def _failed(self, name: str) -> StackError:
        process = self.processes[name]
        process.stop()
        return StackError(f"{name} did not start; its log is {process.log}\n{process.last_words()}")

    def _folder(self, name: str) -> Path:
        folder = self.processes[name].folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _claim(self) -> None:
        if self.state.is_dir() and any(self.state.iterdir()) and not (self.state / _MARK).exists():
            raise StackError(f"--state: {self.state} is not empty and not made by xgen monitor; name another")
        self.state.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
        (self.state / _MARK).touch()

    @property
    def _options(self) -> Path:
        return self.state / "options.json"

    @property
    def _lock(self) -> Path:
        return self.state.with_name(f"{self.state.name}.lock")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time. What is started does not inherit the lock."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _profiles_exporter(profile: Profile) -> str:
    settings = profile.metrics
    return _reachable(f"{'https' if settings.tls else 'http'}://{host_port(settings.address, settings.port)}")


def _reachable(url: str) -> str:
    """One that listens everywhere is asked on this machine."""
    return re.sub(r"//(0\.0\.0\.0|\[::\]):", "//127.0.0.1:", url)


def _program(name: str) -> str | None:
    return next((found for known in PROGRAMS[name] if (found := shutil.which(known))), None)


def _check(tool: str, *arguments: str | Path) -> None:
    """What is wrong in a file would else stand in a log only: one that runs goes on with what it had."""
    if shutil.which(tool):
        try:
            done = subprocess.run(
                [tool, *arguments], capture_output=True, text=True, timeout=_READY_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise StackError(f"{tool} said nothing for {_READY_SECONDS:g} s of {arguments[-1]}") from None
        if done.returncode:
            raise StackError(f"{tool} says:\n{(done.stdout + done.stderr).strip()}")


def _ready(name: str, url: str) -> bool:
    context = ssl._create_unverified_context() if url.startswith("https") else None  # it is asked whether it lives
    try:
        with urllib.request.urlopen(url + _READY[name], timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPException):  # the last is of what speaks no HTTP
        return False


def _need_free(name: str, url: str) -> None:
    port = int(url.rpartition(":")[2])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            option = "--port" if name == "prometheus" else f"--{name}-port"
            raise StackError(f"{option}: {port} is taken by another program; write {option} N") from None
