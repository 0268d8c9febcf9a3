"""Fetching over loopback: a server that speaks the hub's API, and one that breaks off."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
FILES = {
    "README.md": b"# Web\n",
    "data/train-00000.jsonl": b"".join(b'{"text": "document %d"}\n' % n for n in range(20_000)),
    "data/test [1].jsonl": b'{"text": "for the test"}\n',
    "tokenizer.json": b"{}",
}


@dataclass
class Server:
    """What it has, and what goes wrong: `breaks_after` bytes a connection ends, once; there is no answer while `broken`
    says so; `lies` names a changed file."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    breaks_after: int = 0
    broken: Callable[[], bool] = lambda: False
    lies: str = ""
    etag: str = '"1"'
    ranges: list[str] = field(default_factory=list)
    seen_tokens: set[str] = field(default_factory=set)
    address: str = ""


def answer(server: Server, handler: BaseHTTPRequestHandler) -> None:
    path = unquote(urlsplit(handler.path).path)
    server.seen_tokens.add(handler.headers.get("Authorization", ""))
    if path == "/api/datasets/org/web" or path.startswith("/api/datasets/org/web/revision/"):
        if path.rpartition("/")[2] in ("web", "main", COMMIT):
            send(handler, json.dumps({"id": "org/web", "sha": COMMIT, "siblings": []}).encode())
        else:
            send(handler, b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
    elif path.startswith("/api/datasets/org/web/tree/"):
        folder = path.partition("/tree/")[2].partition("/")[2]
        deep = "recursive=true" in handler.path.lower()
        below = {name: data for name, data in server.files.items() if name.startswith(folder)}
        entries = [listed(name, data) for name, data in below.items() if deep or "/" not in name[len(folder) + 1 :]]
        if not deep and not folder:
            entries.append({"type": "directory", "path": "data", "oid": "0" * 40, "size": 0})
        send(handler, json.dumps(entries).encode(), headers={"Content-Type": "application/json"})
    elif path.startswith(tuple(f"/datasets/org/web/resolve/{revision}/" for revision in (COMMIT, "main"))):
        name = path.split("/", 6)[6]
        if name not in server.files:
            send(handler, b"", 404, {"X-Error-Code": "EntryNotFound"})
            return
        sha = hashlib.sha256(server.files[name]).hexdigest()
        data = server.files[name][::-1] if name == server.lies else server.files[name]
        send(handler, data, headers={"ETag": f'"{sha}"', "X-Repo-Commit": COMMIT}, server=server)
    elif path.startswith("/files/") and path.removeprefix("/files/") in server.files:
        send(handler, server.files[path.removeprefix("/files/")], headers={"ETag": server.etag}, server=server)
    else:
        send(handler, b"{}", 404, {"X-Error-Code": "RepoNotFound"})


def listed(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": blob}
    if name.startswith("data/"):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def send(
    handler: BaseHTTPRequestHandler,
    data: bytes,
    status: int = 200,
    headers: dict[str, str] | None = None,
    server: Server | None = None,
) -> None:
    asked = handler.headers.get("Range")
    if server and asked and handler.headers.get("If-Range") in (None, (headers or {}).get("ETag")):
        server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").split("-")[0])
        headers = {**(headers or {}), "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        data, status = data[start:], 206
    handler.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "GET":
        if server and 0 < server.breaks_after < len(data):
            data, server.breaks_after = data[: server.breaks_after], 0
            handler.close_connection = True
        handler.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if state.broken():
                self.close_connection = True
                return
            answer(state, self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Not into the test's output."""

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    state.address = f"http://127.0.0.1:{web.server_port}"
    yield state
    web.shutdown()
    thread.join()
    web.server_close()


def fetch(server: Server, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    hub = {"HF_ENDPOINT": server.address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "xgen.cli.main", "fetch", *map(str, arguments)],
        cwd=ROOT,
        env={**known, **hub, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_data_set_of_the_hub_comes_whole_and_a_second_call_brings_nothing(server: Server, tmp_path: Path) -> None:
    listing = fetch(server, "dataset", "org/web", "--to", tmp_path / "web", "--dry-run")
    assert listing.returncode == 0 and "data/train-00000.jsonl" in listing.stdout and COMMIT in listing.stdout
    assert not (tmp_path / "web").exists()
    result = fetch(server, "dataset", "org/web", "--to", tmp_path / "web", "--json")
    assert result.returncode == 0, result.stderr
    fetched = json.loads(result.stdout)
    assert fetched["revision"] == COMMIT and fetched["files"].keys() == FILES.keys()
    for name, data in FILES.items():
        assert (tmp_path / "web" / name).read_bytes() == data
        assert fetched["files"][name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    kept = json.loads((tmp_path / "web" / "xgen-fetch.json").read_text())
    assert kept["files"] == fetched["files"]
    before = (tmp_path / "web" / "xgen-fetch.json").stat().st_mtime_ns
    again = fetch(server, "dataset", "org/web", "--to", tmp_path / "web")
    assert "xgen data build STORE --input" in again.stdout
    assert (tmp_path / "web" / "xgen-fetch.json").stat().st_mtime_ns == before
    assert f"Bearer {TOKEN}" in server.seen_tokens
    assert TOKEN not in result.stdout + result.stderr + again.stdout + again.stderr + json.dumps(kept)


def test_only_what_was_asked_for_comes(server: Server, tmp_path: Path) -> None:
    result = fetch(server, "dataset", "org/web", "--include", "data/test*", "--to", tmp_path, "--json")
    assert list(json.loads(result.stdout)["files"]) == ["data/test [1].jsonl"]
    none = fetch(server, "dataset", "org/web", "--include", "*.parquet", "--to", tmp_path)
    assert none.returncode == 2 and "has no file like *.parquet; it has README.md" in none.stderr


def test_file_with_other_content_than_the_hub_lists_is_found_and_fetched_again(server: Server, tmp_path: Path) -> None:
    server.lies = "data/test [1].jsonl"
    result = fetch(server, "dataset", "org/web", "--to", tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert not (tmp_path / "xgen-fetch.json").exists()
    server.lies = ""
    assert fetch(server, "dataset", "org/web", "--to", tmp_path).returncode == 0
    assert (tmp_path / "data/test [1].jsonl").read_bytes() == FILES["data/test [1].jsonl"]


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["dataset", "org/none"], {}, "org/none: is not on the hub, or not for you; check KIND and NAME"),
        (["dataset", "org/web", "--revision", "v9"], {}, "org/web: has no such revision; write a branch"),
        (["dataset", "org/web"], {"HF_HUB_OFFLINE": "1"}, "org/web: HF_HUB_OFFLINE is set; unset it"),
        (["film", "org/web"], {}, "KIND 'film' is not known; write dataset, model or tokenizer"),
        (["model", "a b c"], {}, "a b c: is not on the hub"),
    ],
)
def test_mistake_is_one_line(
    server: Server, tmp_path: Path, arguments: list[str], env: dict[str, str], said: str
) -> None:
    result = fetch(server, *arguments, "--to", tmp_path / "x", **env)
    assert result.returncode == 2 and result.stderr.startswith(said) and result.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_hub_that_cannot_be_reached_says_to_try_again(server: Server, tmp_path: Path) -> None:
    result = fetch(server, "dataset", "org/web", "--to", tmp_path / "x", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 1 and "the hub does not answer" in result.stderr and "Traceback" not in result.stderr


def test_broken_download_goes_on_by_range(server: Server, tmp_path: Path) -> None:
    server.breaks_after = 100_000
    url = server.address.replace("//", "//user:secret@") + "/files/data/train-00000.jsonl?signature=secret"
    broken = fetch(server, "dataset", url, "--to", tmp_path)
    assert broken.returncode == 1 and "broke off at 100,000 of" in broken.stderr and "secret" not in broken.stderr
    assert not (tmp_path / "xgen-fetch.json").exists() and not (tmp_path / "train-00000.jsonl").exists()
    whole = fetch(server, "dataset", url, "--to", tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert server.ranges == ["bytes=100000-"]
    assert (tmp_path / "train-00000.jsonl").read_bytes() == FILES["data/train-00000.jsonl"]
    assert "secret" not in (tmp_path / "xgen-fetch.json").read_text() + whole.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-00000.jsonl", "xgen-fetch.json"]


def test_content_that_changed_meanwhile_is_fetched_from_the_beginning(server: Server, tmp_path: Path) -> None:
    server.breaks_after = 100_000
    url = f"{server.address}/files/data/train-00000.jsonl"
    fetch(server, "dataset", url, "--to", tmp_path)
    server.files["data/train-00000.jsonl"] = b'{"text": "new"}\n' * 10_000
    server.etag = '"2"'
    assert fetch(server, "dataset", url, "--to", tmp_path).returncode == 0
    assert (tmp_path / "train-00000.jsonl").read_bytes() == server.files["data/train-00000.jsonl"]


def test_file_with_another_checksum_is_refused_and_a_missing_one_named(server: Server, tmp_path: Path) -> None:
    url = f"{server.address}/files/README.md"
    wrong = fetch(server, "dataset", url, "--to", tmp_path, "--sha256", "0" * 64)
    assert wrong.returncode == 2 and "it was removed" in wrong.stderr and not (tmp_path / "README.md").exists()
    good = fetch(server, "dataset", url, "--to", tmp_path, "--sha256", hashlib.sha256(FILES["README.md"]).hexdigest())
    assert good.returncode == 0
    missing = fetch(server, "dataset", f"{server.address}/files/none", "--to", tmp_path)
    assert missing.returncode == 2 and "/files/none: the server says 404" in missing.stderr


def test_any_file_system_that_fsspec_knows_can_be_read(server: Server, tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_text('{"text": "x"}\n')
    result = fetch(server, "dataset", f"file://{tmp_path}/there.jsonl", "--to", tmp_path / "here")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "here/there.jsonl").read_text() == '{"text": "x"}\n'
    none = fetch(server, "dataset", "nosuch://bucket/file", "--to", tmp_path / "here")
    assert none.returncode == 2 and "nosuch://bucket/file: " in none.stderr and "Traceback" not in none.stderr
