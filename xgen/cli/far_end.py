"""`xgen far-end`: what ssh starts on a cluster for `xgen --host`; no person writes it."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    terminal: Annotated[str, typer.Option("--terminal", help="A command for a terminal, as the laptop wrote it.")] = "",
) -> None:
    """The cluster's end of a command that another machine asked for over ssh (docs/remote.md)."""
    from xgen.cli.main import main
    from xgen.remote.far import become_terminal, serve

    if terminal:
        become_terminal(terminal)
    else:
        serve()
    main()
