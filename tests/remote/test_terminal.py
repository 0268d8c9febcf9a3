"""Commands that have the terminal of the laptop, or its input: exec, shell, watch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.remote.conftest import Laptop
from tests.remote.test_commands import submitted
from tests.remote.test_lost import counts, wait_for
from tests.terminal import Terminal


def command(laptop: Laptop, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "xgen.cli.main", "--host", laptop.host, *arguments]


def on_terminal(laptop: Laptop, terminal: Terminal, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(laptop, *arguments), cwd=laptop.project.path, env=environment(laptop) | {"TERM": "xterm"},
        stdin=terminal.fd, stdout=terminal.fd, stderr=terminal.fd, start_new_session=True,
    )  # fmt: skip


def environment(laptop: Laptop) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **laptop.env}


def test_a_command_beside_a_task_has_the_terminal_or_the_input_of_the_laptop(laptop: Laptop, tmp_path: Path) -> None:
    (laptop.project.path / "counts.yaml").write_text(counts(tmp_path / "stop"))
    run = submitted(laptop, "counts.yaml")
    wait_for(
        "a line", lambda: (run.attempt_dir(1) / "out.log").exists() and (run.attempt_dir(1) / "out.log").read_text()
    )
    script = 'test -t 0 && stty size; echo "$XGEN_ATTEMPT $1"; exit 5'
    with Terminal(columns=111, lines=33) as terminal:
        assert on_terminal(laptop, terminal, "exec", run.name, "--", "sh", "-c", script, "sh", "a  b'c").wait(150) == 5
        assert terminal.close().replace("\r\n", "\n") == "33 111\n1 a  b'c\n"

    piped = subprocess.run(
        command(laptop, "exec", run.name, "--", "tr", "a", "b"),
        cwd=laptop.project.path, env=environment(laptop), input=b"banana\x00", capture_output=True, timeout=150,
    )  # fmt: skip
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, b"bbnbnb\x00", b"")

    with Terminal() as terminal:
        watch = on_terminal(laptop, terminal, "watch")
        assert terminal.until(run.name, 150).startswith("\x1b[?1049h")
        terminal.type("\x03")
        assert watch.wait(150) == 0
    (tmp_path / "stop").touch()
