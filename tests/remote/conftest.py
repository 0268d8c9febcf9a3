"""A real sshd on loopback, a laptop's project, and a cluster: another home with settings and a cache of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cli.conftest import Project, make_project
from tests.conftest import PROVISIONED, ROOT

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitUserEnvironment no
PrintMotd no
SetEnv {settings}
"""


@dataclass
class Login:
    """The login node: an sshd that can be stopped, with what a command finds there."""

    folder: Path
    port: int
    settings: dict[str, str]
    sockets: Path  # of shared connections; their names must be short
    _sshd: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        said = " ".join(f'"{name}={value}"' for name, value in self.settings.items())
        config = CONFIG.format(port=self.port, folder=self.folder, settings=said)
        (self.folder / "sshd_config").write_text(config)
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert program is not None
        if os.geteuid() == 0:  # where no service has made it
            Path("/run/sshd").mkdir(exist_ok=True)
        log = (self.folder / "sshd.log").open("ab")
        command = [program, "-f", str(self.folder / "sshd_config"), "-D", "-e"]
        self._sshd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail((self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        """The daemon and each connection that it has, as when the machine is rebooted; what was started there lives."""
        assert self._sshd is not None
        self._sshd.kill()
        self._sshd.wait()
        self.drop()

    def drop(self) -> None:
        """End each connection, as a network does."""
        for pid in self.connections():
            os.kill(pid, signal.SIGKILL)

    def connections(self) -> list[int]:
        """Processes of sshd that serve a connection to this port."""
        found = subprocess.run(
            ["ss", "-Htnp", f"sport = :{self.port}"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        return sorted({int(part.split(",")[0]) for part in found.split("pid=")[1:]})


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def make_key(file: Path) -> str:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return file.with_name(f"{file.name}.pub").read_text()


@pytest.fixture(scope="session")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    if not PROVISIONED:
        for program in ("ssh", "rsync", "ss", "sshd"):
            if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
                pytest.skip(f"needs {program}")
    with tempfile.TemporaryDirectory(prefix="xgen", dir="/tmp") as sockets:
        one = make_login(tmp_path_factory.mktemp("login"), Path(sockets))
        one.start()
        yield one
        one.stop()


def make_login(folder: Path, sockets: Path, keys_of: Path | None = None, **settings: str) -> Login:
    """A login node with a home of its own, not started. `keys_of`: the folder of another, whose keys it has."""
    folder.chmod(0o755)
    if keys_of is None:
        (folder / "authorized_keys").write_text(make_key(folder / "key"))
        make_key(folder / "host_key")
    else:
        for file in (keys_of / "authorized_keys", *keys_of.glob("*key"), *keys_of.glob("*key.pub")):
            shutil.copy(file, folder)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    (folder / "home").mkdir()
    given = {"PATH": path, "HOME": str(folder / "home"), "LANG": "C.UTF-8", **settings}
    return Login(folder, free_port(), given, sockets)


@dataclass(frozen=True)
class Laptop:
    """A checkout on a machine without SLURM, from which one login node is known."""

    project: Project
    login: Login
    env: dict[str, str]

    def xgen(self, *arguments: str, timeout: float = 120, **env: str) -> CompletedProcess[str]:
        """With `--host`."""
        return self.plain("--host", self.host, *arguments, timeout=timeout, **env)

    def plain(self, *arguments: str, timeout: float = 120, **env: str) -> CompletedProcess[str]:
        return self.project.xgen(*arguments, env=self.env | env, timeout=timeout)

    def start(self, *arguments: str, stdout: Path, stderr: Path) -> subprocess.Popen[bytes]:
        """A command that goes on, with its output in files."""
        command = [sys.executable, "-m", "xgen.cli.main", "--host", self.host, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.env}
        with stdout.open("wb") as out, stderr.open("wb") as err:
            return subprocess.Popen(
                command, cwd=self.project.path, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def host(self) -> str:
        return f"localhost:{self.login.port}"

    def git(self, *arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(command, cwd=self.project.path, check=True, timeout=60, capture_output=True)


def make_laptop(folder: Path, login: Login) -> Laptop:
    project = make_project(folder)
    programs = folder / "bin"
    programs.mkdir()
    for name in ("ssh", "rsync", "git"):
        (programs / name).symlink_to(shutil.which(name) or name)
    key = (login.folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[localhost]:{login.port} {key}")
    (folder / "ssh_config").write_text(
        f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile /dev/null\nUpdateHostKeys no\n"
        f"IdentityFile {login.folder}/key\nIdentitiesOnly yes\nIdentityAgent none\n"
    )
    laptop = Laptop(
        project,
        login,
        {
            "PATH": str(programs),
            "XGEN_SSH_COMMAND": f"ssh -F {folder}/ssh_config",
            "XDG_RUNTIME_DIR": str(login.sockets),
            "XGEN_CLUSTER": "local",
            "XGEN_STATUS_TIMEOUT": "100",  # on a machine that is busy with other tests
        },
    )
    (project.path / ".gitignore").write_text("runs/\nstore\n")
    laptop.git("init", "-q")
    laptop.git("add", ".")
    laptop.git("commit", "-qm", "one")
    return laptop


@pytest.fixture
def laptop(tmp_path: Path, login: Login) -> Laptop:
    return make_laptop(tmp_path, login)
