"""What ssh and rsync say, in words that tell what to do."""

from __future__ import annotations

import re

from xgen.spec import Ssh


class RemoteError(Exception):
    """The cluster was not reached, or not as it must be. `passes`: it may be over soon; `stale`: it is over now, for a
    shared connection had died unnoticed and is gone."""

    def __init__(self, message: str, *, passes: bool = False, stale: bool = False) -> None:
        super().__init__(message)
        self.passes, self.stale = passes, stale


def ssh_fault(ssh: Ssh, said: str) -> RemoteError:
    """Of ssh that has ended with 255, by what it printed."""
    host = ssh.said
    last = ([line for line in said.splitlines() if line.strip()] or ["ssh ended without a word"])[-1].strip()
    if "IDENTIFICATION HAS CHANGED" in said:
        place = re.search(r"Offending .* key in (\S+)", said)
        known = f"'[{ssh.host}]:{ssh.port}'" if ssh.port not in (None, 22) else ssh.host
        return RemoteError(
            f"{host}: its host key is another than the one in {place[1] if place else 'known_hosts'}; somebody may "
            f"stand in between: ask the site before you write ssh-keygen -R {known}"
        )
    if "Host key verification failed" in said or "host key is known" in said:
        return RemoteError(
            f"{host}: its host key is not known here; write {_by_hand(ssh)} once, and compare the fingerprint that it "
            "shows with the site's"
        )
    if "Could not resolve hostname" in said:
        return RemoteError(f"{host}: no host of that name; look at the spelling, the network, the VPN", passes=True)
    if "Permission denied" in said:
        ways = re.search(r"Permission denied \((.*)\)", said)
        key = f"the key {ssh.identity} is" if ssh.identity else "your keys are"
        more = " or open a shared connection by hand (ControlMaster in ~/.ssh/config)" if _asks(ways) else ""
        return RemoteError(
            f"{host}: {key} refused{f' (it takes {ways[1]})' if ways else ''}; look with {_by_hand(ssh)}, "
            f"add the key there or to the agent (ssh-add), write another user or identity{more}"
        )
    if "mux_client_" in said:
        return RemoteError(f"{host}: the connection that was shared had died", passes=True, stale=True)
    if "Connection refused" in said:
        return RemoteError(f"{host}: nothing listens there: {last}; look at the port, or try later", passes=True)
    return RemoteError(f"{host}: {last}", passes=True)


def _asks(ways: re.Match[str] | None) -> bool:
    """Whether a person could answer: a password, a second factor."""
    return bool(ways and re.search("keyboard-interactive|password", ways[1]))


def _by_hand(ssh: Ssh) -> str:
    port = f" -p {ssh.port}" if ssh.port else ""
    return f"ssh{port} {ssh.said}"


def no_far_end(ssh: Ssh, code: int, printed: str, said: str) -> RemoteError:
    """Of an xgen there that has not answered; ssh itself had no complaint."""
    text = f"{printed}\n{said}".strip()
    last = text.splitlines()[-1].strip() if text else f"exit code {code}"
    if code in (126, 127) or "not found" in text or "No such file" in text:
        return RemoteError(
            f"{ssh.said}: no {ssh.xgen} there, on the PATH of a command over ssh; write where it is: --remote-xgen "
            "PATH, XGEN_REMOTE_XGEN, or ssh: {xgen: PATH} in the profile"
        )
    if "far-end" in text:
        return RemoteError(f"{ssh.said}: the xgen there is another version: it does not know far-end; install this one")
    return RemoteError(f"{ssh.said}: {ssh.xgen} there did not answer: {last}")


def other_version(ssh: Ssh, theirs: str, ours: str) -> RemoteError:
    return RemoteError(f"{ssh.said}: xgen is {theirs} there and {ours} here; install the same one on both")


def rsync_fault(ssh: Ssh, tree: str, code: int, said: str) -> RemoteError:
    if "No space left" in said or "quota" in said.lower():
        what = "no space is left" if "No space left" in said else "the quota is used up"
        return no_copy(ssh, f"{tree}: {what}")
    if code == 255:
        return ssh_fault(ssh, said)
    if re.search(r"rsync: (command )?not found|rsync: No such file", said):
        return RemoteError(f"{ssh.said}: no rsync there; install it, or load its module for commands over ssh")
    if blocked := re.search(r"cannot delete non-empty directory: (.*)|could not make way for [^:]*: (.*)", said):
        name = (blocked[1] or blocked[2]).strip()
        return RemoteError(
            f"{ssh.said}: {tree}/{name} is a folder with files of the cluster's own, and {name} here is none; nothing "
            "was submitted. Move one of the two away"
        )
    lines = [line for line in said.splitlines() if not line.startswith("rsync error:")] or said.splitlines()
    last = lines[0] if lines else f"rsync ended with {code}"
    return RemoteError(f"{ssh.said}: {last}", passes=code in (10, 12, 30, 35))


def no_copy(ssh: Ssh, said: str) -> RemoteError:
    """Of a folder there that takes no copy of a checkout."""
    return RemoteError(
        f"{ssh.said}: {said}; nothing was submitted. Make room there, or write another folder, ssh: {{folder: PATH}} "
        "in the profile"
    )
