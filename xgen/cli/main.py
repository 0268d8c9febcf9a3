"""`xgen`: the commands. Each is a file of its own, imported when it is asked for; this one only names them."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from importlib import import_module
from typing import Annotated, Any

# pydantic would look for plugins in the metadata of every installed package: 40 ms at each start, for none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import typer
import typer.main
from typer.core import TyperGroup

from xgen.cli.common import fail, usage

_COMMANDS = (
    "submit", "plan", "status", "watch", "show", "why", "top", "usage", "logs", "exec", "shell", "profile", "cancel",
    "hold", "release", "requeue", "resume", "fork", "sweep", "checkpoints", "compare", "export", "lengths", "samples",
    "notify", "fetch", "schema", "doctor", "exporter",
)  # fmt: skip
_GROUPS = ("cluster", "image", "data", "evals", "monitor", "runs", "nodes")
_HIDDEN = ("far-end",)  # for programs
_WORDS = "xgen.words"  # the command with all that follows it
_FILES_OF = {
    "cluster": ("init", "show", "projects"),
    "image": ("build", "check"),
}  # commands of a group that have a file of their own


class _ByNeed(TyperGroup):
    """Of forty files, the one that is asked for; all of them for the help, and for what there is not, which may be one
    that is spelled otherwise."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return [*_COMMANDS, *_GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        names = [*self.list_commands(ctx), *_HIDDEN]
        for name in [cmd_name] if cmd_name in names else names:
            self.commands[name] = _load(name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        ctx.meta[_WORDS] = list(args)
        return super().resolve_command(ctx, args)


@cache
def _load(name: str) -> Any:
    module = import_module(f"xgen.cli.{name.replace('-', '_')}")
    if name in _GROUPS:
        for part in _FILES_OF.get(name, ()):
            module.app.command(name=part)(import_module(f"xgen.cli.{name}_{part}").command)
        return typer.main.get_group(module.app)
    one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    one.command(name=name)(module.command)
    return typer.main.get_command(one)


app = typer.Typer(
    name="xgen",
    cls=_ByNeed,
    help="Typed job specs to SLURM: submit, watch, resume after preemption.\n\n"
    "Start with: xgen submit jobs/tiny/pretrain.yaml --cluster dev --dry-run",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _xgen(
    context: typer.Context,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="LOGIN",
            help="Let the xgen of this login node, [user@]host[:port], run the command, over ssh: docs/remote.md.",
        ),
    ] = None,
    remote_xgen: Annotated[
        str | None,
        typer.Option(
            "--remote-xgen", metavar="PATH", envvar="XGEN_REMOTE_XGEN", help="Where xgen is there. Default: on PATH."
        ),
    ] = None,
) -> None:
    source = context.get_parameter_source("remote_xgen")
    written = source is not None and source.name == "COMMANDLINE"
    if written and host is None:
        usage("--remote-xgen: says where xgen is on the host of --host; write that too")
    if host is not None:
        from xgen.cli.remote import run_at

        options = ["--host", host, *(["--remote-xgen", str(remote_xgen)] if written else [])]
        run_at(host, remote_xgen, options, context.meta[_WORDS])


def _run() -> None:
    """A command, here or on the cluster that its profile leads to."""
    try:
        app()
    except Exception as error:
        from xgen.spec.ssh import ElsewhereError

        if not isinstance(error, ElsewhereError):
            raise
        from xgen.cli.remote import run_elsewhere

        run_elsewhere(error)


def main() -> None:
    """Entry point: a user's mistake is one line each and exit code 2, never a traceback."""
    # `xgen logs RUN | head` ends as quietly as any other program. Not by the signal's default: it would also kill an
    # exporter whose reader hangs up, and a submission whose sbatch does not read all of the script.
    stdout = sys.stdout
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()
            if sys.stdout is not stdout:  # typer has been told that the reader is gone
                raise BrokenPipeError
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - sorted by `fail`, which raises what it does not know
        fail(error)


if __name__ == "__main__":
    main()
