"""What clients get over HTTP: real ones, plain and over TLS, with and without a password, and Prometheus itself."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import PROVISIONED
from tests.metrics.fake_slurm import FakeSlurm, read_page, slurm, value, wait_for
from xgen.metrics import write_target
from xgen.metrics.exporter import App, Exporter, SetupError, Targets, read_users, tls_context
from xgen.metrics.exporter.poller import Poller
from xgen.metrics.serve import Serving
from xgen.metrics.slurm import collectors

__all__ = ["slurm"]
USERS = {"prometheus": "correct horse: battery"}


@dataclass(frozen=True)
class Served:
    port: int
    targets: Poller


Serve = Callable[..., Served]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    root.mkdir()
    return root


@pytest.fixture
def serve(slurm: FakeSlurm, runs: Path) -> Iterator[Serve]:
    targets = Targets(runs / ".discovery")
    exporter = Exporter([targets, *collectors(["gpu"])], "1.2.3", log=pytest.fail)
    for poller in exporter.pollers.values():
        poller.poll()
    serving: list[Serving] = []

    def start(users: dict[str, str] | None = None, tls: ssl.SSLContext | None = None) -> Served:
        serving.append(Serving(App(exporter, targets, users), "127.0.0.1", name="web", tls=tls))
        return Served(serving[-1].port, exporter.pollers[targets.name])

    yield start
    for one in serving:
        one.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exporter")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(days=1), now + timedelta(days=1))
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *formats))
    return cert_file, key_file


def get(url: str, ca: Path | None = None, **headers: str) -> tuple[dict[str, str], bytes]:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): text for name, text in headers.items()})
    context = ssl.create_default_context(cafile=ca) if ca else None
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return dict(answer.headers), answer.read()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_a_scrape_is_the_same_with_and_without_gzip(serve: Serve) -> None:
    url = f"http://127.0.0.1:{serve().port}/metrics"
    headers, plain = get(url)
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Content-Encoding" not in headers
    headers, packed = get(url, Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert len(packed) < len(plain) / 3
    assert gzip.decompress(packed) == plain
    curl = subprocess.run(["curl", "-sS", "--fail", "--compressed", url], capture_output=True, timeout=30, check=True)
    assert curl.stdout == plain
    series = read_page(plain.decode())
    assert value(series, "xgen_exporter_build_info", version="1.2.3") == 1
    assert value(series, "slurm_exporter_collector_success", collector="queue") == 1
    assert value(series, "xgen_exporter_collector_interval_seconds", collector="shares") == 300
    # What it says about itself is not among what it counts.
    mine = [name for name, labels in series if name.startswith(("xgen_exporter_", "slurm_exporter_"))]
    counted = sum(count for (name, _), count in series.items() if name == "xgen_exporter_series")
    assert counted == len(series) - len(mine) + 2  # the two of the collector `targets` have that prefix too


def test_other_paths_and_methods(serve: Serve) -> None:
    base = f"http://127.0.0.1:{serve().port}"
    assert get(f"{base}/-/healthy")[1] == b"healthy\n"
    assert b"/metrics" in get(f"{base}/")[1]
    for path, method, code in (("/nothing", "GET", 404), ("/metrics", "POST", 405)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(base + path, method=method, data=b""[:0]), timeout=10)
        assert caught.value.code == code
    head = urllib.request.Request(f"{base}/metrics", method="HEAD")
    with urllib.request.urlopen(head, timeout=10) as answer:
        assert int(answer.headers["Content-Length"]) > 1000
        assert answer.read() == b""


def test_discovery_is_what_the_files_say(serve: Serve, runs: Path) -> None:
    for number in (1, 2):
        file = runs / f".discovery/run-{number}.json"
        write_target(file, address="10.0.0.1", port=4000 + number, run=f"run-{number}", attempt=1, job_id="7")
    served = serve()
    served.targets.poll()
    url = f"http://127.0.0.1:{served.port}"
    headers, body = get(f"{url}/sd")
    assert headers["Content-Type"] == "application/json"
    files = sorted((runs / ".discovery").glob("*.json"))
    assert json.loads(body) == [entry for file in files for entry in json.loads(file.read_text())]

    # One attempt ends, one file is broken: neither touches the third.
    (runs / ".discovery/run-1.json").unlink()
    for name, text in (("half", '[{"targets": ["10.0'), ("odd", '[{"targets": [7]}]'), ("odder", '{"targets": []}')):
        (runs / f".discovery/{name}.json").write_text(text)
    served.targets.poll()
    assert [entry["labels"]["run"] for entry in json.loads(get(f"{url}/sd")[1])] == ["run-2"]
    series = read_page(get(f"{url}/metrics")[1].decode())
    states = {s: value(series, "xgen_exporter_discovery_files", state=s) for s in ("announced", "unreadable")}
    assert states == {"announced": 1, "unreadable": 3}


def test_a_file_that_changes_is_read_again_and_no_other(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_target(runs / f".discovery/{name}.json", address="::1", port=1, run=name, attempt=1, job_id="7")
    targets, original = Targets(runs / ".discovery"), Path.read_bytes
    read: list[str] = []

    def tell(path: Path) -> bytes:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", tell)
    list(targets.poll())
    list(targets.poll())
    assert sorted(read) == ["a.json", "b.json"]
    write_target(runs / ".discovery/b.json", address="::1", port=1, run="b", attempt=2, job_id="7")
    list(targets.poll())
    assert read[2:] == ["b.json"]
    assert [entry["labels"]["attempt"] for entry in json.loads(targets.body)] == ["1", "2"]


def test_runs_that_cannot_be_read_are_not_none(serve: Serve, runs: Path) -> None:
    served = serve()
    assert get(f"http://127.0.0.1:{served.port}/sd")[1] == b"[]"
    served.targets.collector.interval = 0  # what it knows is too old at once
    # An empty list would end all targets; on an error Prometheus keeps those it has.
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(f"http://127.0.0.1:{served.port}/sd")
    assert caught.value.code == 503


def test_a_password_where_the_profile_asks_for_one(serve: Serve) -> None:
    base = f"http://127.0.0.1:{serve(users=USERS).port}"
    good = basic("prometheus", USERS["prometheus"])
    assert b"slurm_nodes_total" in get(f"{base}/metrics", Authorization=good)[1]
    assert get(f"{base}/sd", Authorization=good)[1] == b"[]"
    assert get(f"{base}/-/healthy")[1] == b"healthy\n"
    wrong = ["", "Basic", "Basic !!!", "Bearer x", basic("prometheus", "no"), basic("nobody", ""), basic("", "")]
    for header in wrong:
        for path in ("/metrics", "/sd", "/"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                get(base + path, Authorization=header)
            assert caught.value.code == 401
            assert caught.value.headers["WWW-Authenticate"].startswith("Basic ")
            assert b"slurm" not in caught.value.read()


def test_a_password_that_is_no_text_is_a_wrong_one(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    port = serve(users=USERS).port
    for credentials in ("é".encode(), base64.b64encode(b"\xff:\xff"), b"\x80\xff"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\nAuthorization: Basic " + credentials + b"\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.0 401 ")
    assert "Traceback" not in capfd.readouterr().err


def test_tls(serve: Serve, certificate: tuple[Path, Path]) -> None:
    served = serve(users=USERS, tls=tls_context(*certificate))
    url, good = f"https://127.0.0.1:{served.port}/metrics", basic("prometheus", USERS["prometheus"])
    assert b"slurm_nodes_total" in get(url, certificate[0], Authorization=good)[1]
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        get(url, Authorization=good)
    with pytest.raises((OSError, urllib.error.URLError)):  # it speaks no plain HTTP
        get(url.replace("https", "http"), Authorization=good)


def test_clients_that_say_nothing_hold_up_no_other(serve: Serve, certificate: tuple[Path, Path]) -> None:
    served = serve(tls=tls_context(*certificate))
    silent = [socket.create_connection(("127.0.0.1", served.port), timeout=5) for _ in range(20)]
    began = time.monotonic()
    assert b"slurm_nodes_total" in get(f"https://127.0.0.1:{served.port}/metrics", certificate[0])[1]
    assert time.monotonic() - began < 2
    for connection in silent:
        connection.close()


def test_what_the_profile_names_must_be_there(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with pytest.raises(SetupError, match=r"metrics\.tls: .*nothing\.pem: No such file"):
        tls_context(cert, tmp_path / "nothing.pem")
    with pytest.raises(SetupError, match="are no certificate and its key"):
        tls_context(cert, cert)
    locked = tmp_path / "locked.pem"
    command: list[str | Path] = ["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, capture_output=True, timeout=30, check=True)
    with pytest.raises(SetupError, match=r"metrics\.tls: .*locked\.pem has a password; write"):
        tls_context(cert, locked)
    file = tmp_path / "users"
    with pytest.raises(SetupError, match=r"metrics\.basic_auth\.file: .*No such file"):
        read_users(file)
    file.write_text("a:1\nb:2:3\n")
    file.chmod(0o640)
    with pytest.raises(SetupError, match="chmod 600"):
        read_users(file)
    file.chmod(0o600)
    assert read_users(file) == {"a": "1", "b": "2:3"}
    for text in ("", "a\n", "a:\n", ":1\n", "a:1\na:2\n"):
        file.write_text(text)
        with pytest.raises(SetupError, match="one line name:password"):
            read_users(file)
    file.write_bytes(b"a:\xff\n")
    with pytest.raises(SetupError, match="is no UTF-8"):
        read_users(file)


def test_prometheus_itself_scrapes_over_tls_with_a_password_and_finds_the_runs(
    serve: Serve, certificate: tuple[Path, Path], runs: Path, tmp_path: Path
) -> None:
    if shutil.which("prometheus") is None:
        assert not PROVISIONED, "prometheus is not installed; write: make setup"
        pytest.skip("prometheus is not installed")
    write_target(runs / ".discovery/tiny.json", address="127.0.0.1", port=1, run="tiny", attempt=1, job_id="7")
    served = serve(users=USERS, tls=tls_context(*certificate))
    served.targets.poll()
    (tmp_path / "password").write_text(USERS["prometheus"])
    auth = f"basic_auth: {{username: prometheus, password_file: {tmp_path}/password}}"
    common, here = f"{auth}, tls_config: {{ca_file: {certificate[0]}}}", f"127.0.0.1:{served.port}"
    discovery = f"{{url: 'https://{here}/sd', refresh_interval: 1s, {common}}}"
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s}}\nscrape_configs:\n"
        f"  - {{job_name: xgen-exporter, scheme: https, {common}, static_configs: [{{targets: ['{here}']}}]}}\n"
        f"  - {{job_name: xgen-runs, http_sd_configs: [{discovery}]}}\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip

    def ask(query: str) -> list[dict[str, Any]]:
        try:
            answer = get(f"http://127.0.0.1:{port}/api/v1/query?query={query}")[1]
        except OSError:
            return []
        found: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        return found

    try:
        wait_for(lambda: ask("slurm_gpus_alloc"), 30)
        assert ask("slurm_gpus_alloc")[0]["value"][1] == "15"
        wait_for(lambda: ask('up{job="xgen-runs"}'), 30)
        metric = ask('up{job="xgen-runs"}')[0]["metric"]
        assert (metric["run"], metric["instance"]) == ("tiny", "127.0.0.1:1")
    finally:
        process.terminate()
        process.wait(30)
        log.close()
    assert "err" not in (tmp_path / "log").read_text()
