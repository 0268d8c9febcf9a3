"""What a command says and does when its connection fails, against a program that stands for ssh and the far end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import xgen
from xgen.remote import client
from xgen.remote.client import run
from xgen.remote.faults import RemoteError, rsync_fault
from xgen.remote.wire import PROTOCOL, Hello, hello_line, unquoted
from xgen.spec import Ssh

SSH = """\
#!/bin/sh
case "$*" in *" -G "*) exit 0;; esac
for last; do :; done
echo "$last" >> {folder}/asked
num=$(wc -l < {folder}/asked)
{script}
"""
REFUSED = "echo 'me@atlas: Permission denied (publickey).' >&2; exit 255"


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Let ssh be a script, in which `hello` answers. Returns the file with the far ends that were asked for."""
    hello = hello_line(Hello(protocol=PROTOCOL, version=xgen.__version__, home="/home/me", tree="")).decode().strip()

    def make(script: str) -> Path:
        program = tmp_path / "ssh"
        functions = f"hello() {{ read greeting; echo '{hello}'; }}\n"
        program.write_text(SSH.format(folder=tmp_path, script=functions + script))
        program.chmod(0o755)
        monkeypatch.setenv("XGEN_SSH_COMMAND", str(program))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "asked"

    return make


def test_a_command_that_goes_on_is_said_to_go_on_whatever_keeps_the_laptop_away(ssh: Callable[[str], Path]) -> None:
    ssh(f"case $num in 1) hello; read request; exit 255;; *) {REFUSED};; esac")
    with pytest.raises(RemoteError, match=r"your keys are refused .*; the command goes on at atlas; look what came"):
        run(Ssh(host="atlas"), ["resume", "hello"])


def test_a_log_that_is_cut_off_says_where_it_goes_on(ssh: Callable[[str], Path]) -> None:
    answer = r"printf 'o 11\n0: a\0001:5:0\n'"
    ssh(f"case $num in 1) hello; read request; {answer}; exit 255;; *) {REFUSED};; esac")
    with pytest.raises(RemoteError, match=r"refused .*; go on: xgen logs -f hello --after 1:5:0$"):
        run(Ssh(host="atlas"), ["logs", "-f", "hello"])


def test_a_connection_that_is_lost_each_time_before_anything_comes_is_given_up(
    ssh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "_PATIENCE", 0.5)
    asked = ssh("hello; read request; exit 255")
    with pytest.raises(RemoteError, match=r"^atlas: the connection was lost, for 0 s; the command goes on at atlas"):
        run(Ssh(host="atlas"), ["resume", "hello"])
    assert len(asked.read_text().splitlines()) == 2
    assert capsys.readouterr().err == ("atlas: the connection was lost; connecting again\natlas: connected again\n")


def test_the_command_of_exec_is_the_tasks_own(ssh: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "local.yaml").touch()
    asked = ssh("case $num in 1) hello;; *) exit 5;; esac")
    words = ["exec", "hello", "cat", f"{tmp_path}/local.yaml"]
    assert run(Ssh(host="atlas"), words) == 5
    request = unquoted(asked.read_text().split()[-1])
    assert (request.folder, list(request.words)) == ("/home/me", words)


def test_a_folder_of_the_clusters_own_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "copy/runs/a").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/runs").symlink_to("/")
    command = ["rsync", "--links", "--from0", "--files-from=-", f"{tmp_path}/project/", f"{tmp_path}/copy/"]
    done = subprocess.run(command, input=b"./runs\0", capture_output=True, timeout=60, check=False)
    error = rsync_fault(Ssh(host="atlas"), "/copy", done.returncode, done.stderr.decode())
    assert re.fullmatch(r"atlas: /copy/runs is a folder with files of the cluster's own, .* Move one .*", str(error))
    assert (tmp_path / "copy/runs/a").is_dir()
