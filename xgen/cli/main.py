"""`xgen`: the commands. Each is a file of its own; this one only wires them."""

from __future__ import annotations

import os
import signal
import sys

# pydantic would look for plugins in the metadata of every installed package: 40 ms at each start, for none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import typer

from xgen.cli import (
    cancel,
    checkpoints,
    data,
    doctor,
    export,
    exporter,
    fetch,
    fork,
    image,
    image_build,
    image_check,
    lengths,
    logs,
    monitor,
    plan,
    resume,
    samples,
    schema,
    status,
    submit,
)
from xgen.cli.common import fail

app = typer.Typer(
    name="xgen",
    help="Typed job specs to SLURM: submit, watch, resume after preemption.\n\n"
    "Start with: xgen submit jobs/tiny/pretrain.yaml --cluster dev --dry-run",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for module in (
    submit, plan, status, logs, cancel, resume, fork, checkpoints, export, lengths, samples, fetch, schema, doctor,
    exporter,
):  # fmt: skip
    app.command(name=module.__name__.rpartition(".")[2])(module.command)
image.app.command(name="build")(image_build.command)
image.app.command(name="check")(image_check.command)
app.add_typer(image.app, name="image")
app.add_typer(data.app, name="data")
app.add_typer(monitor.app, name="monitor")


def main() -> None:
    """Entry point: a user's mistake is one line each and exit code 2, never a traceback."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `xgen logs RUN | head` ends as quietly as any other program
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - sorted by `fail`, which raises what it does not know
        fail(error)


if __name__ == "__main__":
    main()
