"""What is wrong between a laptop and a cluster is said with what to do, by a real ssh against a real sshd."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.conftest import PROVISIONED
from tests.remote.conftest import Laptop, Login, free_port, make_key, make_laptop
from xgen.remote.client import ask, run
from xgen.remote.faults import RemoteError
from xgen.spec import SpecError, Ssh, parse_login


@pytest.fixture
def here(tmp_path: Path, login: Login, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    """This process is the laptop."""
    laptop = make_laptop(tmp_path, login)
    monkeypatch.chdir(laptop.project.path)
    for name in ("XGEN_SSH_COMMAND", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, laptop.env[name])
    return laptop


def said(ssh: Ssh) -> str:
    with pytest.raises(RemoteError) as failed:
        ask(ssh, ["status"], None, 120)
    return str(failed.value)


def of(laptop: Laptop, **more: object) -> Ssh:
    return Ssh.model_validate({"host": "localhost", "port": laptop.login.port, **more})


def test_a_host_that_there_is_not(here: Laptop) -> None:
    message = said(of(here, host="no-such-host.invalid"))
    assert message == "no-such-host.invalid: no host of that name; look at the spelling, the network, the VPN"


def test_a_port_on_which_nothing_listens(here: Laptop) -> None:
    assert re.fullmatch(
        r"localhost: nothing listens there: ssh: connect to host localhost port \d+: Connection refused; look at the "
        "port, or try later",
        said(of(here, port=free_port())),
    )


def test_a_host_key_that_is_not_known(here: Laptop) -> None:
    (here.project.path.parent / "known_hosts").write_text("")
    assert said(of(here)) == (
        f"localhost: its host key is not known here; write ssh -p {here.login.port} localhost once, and compare the "
        "fingerprint that it shows with the site's"
    )
    assert (here.project.path.parent / "known_hosts").read_text() == ""


def test_a_host_key_that_has_changed(here: Laptop, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[localhost]:{here.login.port} {make_key(tmp_path / 'other')}")
    assert said(of(here)) == (
        f"localhost: its host key is another than the one in {known}:1; somebody may stand in between: ask the site "
        f"before you write ssh-keygen -R '[localhost]:{here.login.port}'"
    )


def test_a_key_that_is_refused(here: Laptop, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    settings = (tmp_path / "ssh_config").read_text()
    (tmp_path / "ssh_config").write_text(settings.replace(f"IdentityFile {here.login.folder}/key\n", ""))
    message = said(of(here, identity=str(tmp_path / "stranger")))
    assert message == (
        f"localhost: the key {tmp_path}/stranger is refused (it takes publickey); look with ssh -p {here.login.port} "
        "localhost, add the key there or to the agent (ssh-add), write another user or identity"
    )
    assert said(of(here, identity=str(tmp_path / "none"))) == (
        f"localhost: the key {tmp_path}/none is no file that can be read; write another identity"
    )


def test_an_xgen_that_is_not_there_or_is_another_version(here: Laptop, tmp_path: Path) -> None:
    assert said(of(here, xgen="/opt/none/xgen")) == (
        "localhost: no /opt/none/xgen there, on the PATH of a command over ssh; write where it is: --remote-xgen PATH, "
        "XGEN_REMOTE_XGEN, or ssh: {xgen: PATH} in the profile"
    )
    other = tmp_path / "xgen"
    other.write_text(
        "#!/bin/sh\necho welcome\n"
        """echo 'xgen-far-end Hello {"protocol":1,"version":"0.0.9","home":"/","tree":"","error":""}'\n"""
    )
    other.chmod(0o755)
    message = said(of(here, xgen=str(other)))
    assert re.fullmatch(r"localhost: xgen is 0\.0\.9 there and \S+ here; install the same one on both", message)
    other.write_text("#!/bin/sh\necho 'Error: No such command 'far-end'.' >&2\nexit 2\n")
    assert said(of(here, xgen=str(other))).startswith("localhost: the xgen there is another version: ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    if not PROVISIONED:
        pytest.skip("only root makes a file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True, timeout=60)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


def test_a_disk_that_is_full(here: Laptop, small_disk: Path) -> None:
    (here.project.path / "large.py").write_text("#" * 200_000)
    with pytest.raises(RemoteError) as failed:
        run(of(here, folder=str(small_disk)), ["submit", "hello.yaml"])
    assert re.fullmatch(
        rf"localhost: {small_disk}/project-\w+: no space is left; nothing was submitted. Make room there, or write "
        r"another folder, ssh: \{folder: PATH\} in the profile",
        str(failed.value),
    )
    assert not list(small_disk.glob("*/runs"))


def test_a_checkout_that_does_not_go_over(here: Laptop) -> None:
    (here.project.path.parent / "beside.yaml").write_text("kind: command\n")
    with pytest.raises(
        SpecError, match=r"^\.\./beside\.yaml: is outside of .*/project, which is what the cluster gets"
    ):
        run(of(here), ["submit", "hello.yaml", "--cluster", "../beside.yaml"])


def test_no_ssh_here(here: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XGEN_SSH_COMMAND", "no-such-ssh")
    assert said(of(here)) == "no-such-ssh is not on PATH; install the OpenSSH client"
    monkeypatch.undo()
    assert shutil.which("ssh")


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "host:0", "host:70000", "host:x", "@host"])
def test_what_is_no_login(text: str) -> None:
    with pytest.raises(SpecError, match=r"--host: .* is no login; write \[user@\]host\[:port\]"):
        parse_login(text)


def test_a_login_that_ssh_would_take_for_an_option_and_a_folder_of_another_home() -> None:
    with pytest.raises(SpecError, match=r"^--host: 'me@-x': '-x' is no name; write e\.g\. login\.example\.org$"):
        parse_login("me@-x")
    for folder in ("~bob/x", "copies"):
        with pytest.raises(ValidationError, match="write the whole path, or one that begins with ~/"):
            Ssh(host="atlas", folder=folder)
    assert [Ssh(host="atlas", folder=folder).folder for folder in ("~/x", "~", "/x")] == ["~/x", "~", "/x"]


def test_a_login_as_people_write_it() -> None:
    logins = [parse_login(text) for text in ("atlas", "me@login.atlas:2222", "[fe80::1]:22", "me@[::1]")]
    assert [(one.user, one.host, one.port) for one in logins] == [
        (None, "atlas", None), ("me", "login.atlas", 2222), (None, "fe80::1", 22), ("me", "::1", None),
    ]  # fmt: skip


def test_the_command_line_says_it_and_ends_with_4(laptop: Laptop) -> None:
    done = laptop.plain("--host", f"localhost:{free_port()}", "status")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("localhost: nothing listens there: ")
    done = laptop.plain("--remote-xgen", "/x", "status")
    assert (done.returncode, done.stderr) == (
        2, "--remote-xgen: says where xgen is on the host of --host; write that too\n",
    )  # fmt: skip
