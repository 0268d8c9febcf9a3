"""Commands whose cluster is reached over ssh: `--host`, and profiles with `ssh:`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

from xgen.cli.common import usage

if TYPE_CHECKING:
    from xgen.spec import ElsewhereError


def run_at(host: str, program: str | None, options: list[str], words: list[str]) -> None:
    """Let that login node run the command, and leave with its exit code. Returns where this is that login node.
    Raises SpecError, RemoteError."""
    from xgen.remote import said

    if said.options is not None:
        return
    from xgen.remote.client import run
    from xgen.spec import parse_login

    more = {"xgen": program} if program else {}
    sys.exit(run(parse_login(host, **more), words, options))


def run_elsewhere(error: ElsewhereError) -> NoReturn:
    """Let the cluster of a profile run this command, and leave with its exit code. Raises SpecError, RemoteError."""
    from xgen.remote import said
    from xgen.remote.client import run

    if said.options is not None:
        usage(f"{error}, as the profile on this login node says; write here what the cluster is, without ssh:")
    sys.exit(run(error.ssh, sys.argv[1:], (), error.cluster))


def here(command: str) -> str:
    """A command of xgen as it is written where this one was given."""
    from xgen.remote import said

    return shlex.join(["xgen", *said.options]) + command.removeprefix("xgen") if said.options else command
