"""What a shell completes: names of runs and of cluster profiles. Nothing is said where they cannot be read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import typer


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Of the cluster that is named so far, the newest first."""
    from xgen.cli.common import run_root
    from xgen.runs import list_runs

    with suppress(Exception, SystemExit):  # whatever is wrong, the command itself says it
        root = run_root(context.params.get("cluster"))
        return [run.name for run in reversed(list_runs(root)) if run.name.startswith(incomplete)]
    return []


def clusters(incomplete: str) -> list[str]:
    from xgen.spec.load import known_profiles

    with suppress(Exception):
        return sorted(name for name in known_profiles(Path.cwd()) if name.startswith(incomplete))
    return []
